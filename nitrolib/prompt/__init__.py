"""Messages in, token ids out: prompt templates, chat templates, and what separates their text from
message text until the tokens are made."""

from __future__ import annotations

from .chat_template import ChatTemplate
from .encode import Part, SpecialTokens, Tokenize, encode, encode_parts, split
from .message import Message, Prompt, Segment
from .template import PromptTemplate, Style

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
    "encode",
    "encode_parts",
    "split",
]
