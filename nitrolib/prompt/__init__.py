"""Messages in, token ids out: prompt templates, chat templates, tools, and what separates a
template's text from message text until the tokens are made."""

from __future__ import annotations

from .chat_template import ChatTemplate
from .encode import Part, SpecialTokens, Tokenize, encode, encode_parts, split
from .message import Message, Prompt, Segment, ToolCall
from .template import PromptTemplate, Style
from .tools import Tool, ToolChoice, read_tool_choice, read_tools

__all__ = [
    "ChatTemplate",
    "Message",
    "Part",
    "Prompt",
    "PromptTemplate",
    "Segment",
    "SpecialTokens",
    "Style",
    "Tokenize",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "encode",
    "encode_parts",
    "read_tool_choice",
    "read_tools",
    "split",
]
