"""Messages in, token ids out: prompt templates, chat templates, tools, and what separates a
template's text from message text until the tokens are made."""

from __future__ import annotations

from .call_events import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    Event,
    ParsedAnswer,
    TextDelta,
    new_call_id,
)
from .call_parser import ToolCallParser, joined
from .call_syntax import CallSyntax
from .chat_plan import ChatPlan, Trigger, prepare_chat
from .chat_template import ChatTemplate
from .encode import Part, SpecialTokens, Tokenize, encode, encode_parts, split
from .history import check_history, read_messages
from .message import Message, Prompt, Segment, ToolCall
from .template import PromptTemplate, Style
from .tools import Tool, ToolChoice, read_tool_choice, read_tools

__all__ = [
    "ArgumentsDelta",
    "CallEnded",
    "CallStarted",
    "CallSyntax",
    "ChatPlan",
    "ChatTemplate",
    "Event",
    "Message",
    "ParsedAnswer",
    "Part",
    "Prompt",
    "PromptTemplate",
    "Segment",
    "SpecialTokens",
    "Style",
    "TextDelta",
    "Tokenize",
    "Tool",
    "ToolCall",
    "ToolCallParser",
    "ToolChoice",
    "Trigger",
    "check_history",
    "encode",
    "encode_parts",
    "joined",
    "new_call_id",
    "prepare_chat",
    "read_messages",
    "read_tool_choice",
    "read_tools",
    "split",
]
