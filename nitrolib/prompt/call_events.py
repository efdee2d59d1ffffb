"""What a parser of answers tells: text, and calls as they begin, grow and end."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message import ToolCall

_ID_CHARS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call begins; `index` counts the calls of the answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of a call's arguments, which are JSON when they are whole; never empty."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is over. Not `complete`: the answer ended, or went wrong, inside its arguments."""

    index: int
    complete: bool = True


Event = TextDelta | CallStarted | ArgumentsDelta | CallEnded


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A whole answer: the join of its events. `notes` say what looked like a call and is none."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    notes: tuple[str, ...] = ()


def new_call_id() -> str:
    """`call_` and 24 random letters and digits."""
    return "call_" + "".join(secrets.choice(_ID_CHARS) for _ in range(24))
