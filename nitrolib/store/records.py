"""What the store keeps, as frozen records: plain data that no database stands behind.

Times are whole seconds since 1970. The JSON values inside (lists and dicts) are copies of the
reader's own: changing one changes nothing that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ACTIVE",
    "Assistant",
    "Json",
    "Message",
    "MessageFile",
    "Order",
    "Page",
    "Run",
    "StoredResponse",
    "Thread",
    "text_of",
    "text_part",
]

Json: TypeAlias = dict[str, Any]  # a JSON object
Order = Literal["asc", "desc"]  # oldest first, newest first
ACTIVE = ("queued", "in_progress", "cancelling")  # states of a run that has not ended
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A conversation.

    assistants: JSON objects, each with `assistant_id` and what the thread says otherwise than the
        assistant itself (`instructions`, `model`, ...).
    model_id, settings, parameters: what the thread says otherwise than its assistants.
    """

    id: str
    created_at: int
    title: str = ""
    assistants: tuple[Json, ...] = ()
    model_id: str | None = None
    settings: Json = field(default_factory=dict)
    parameters: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a thread.

    content: parts, such as `{"type": "text", "text": {"value": "...", "annotations": []}}`.
    file_ids: files that belong to it, in the order they were given.
    status: "completed", "in_progress" or "incomplete".
    """

    id: str
    thread_id: str
    created_at: int
    role: str
    content: tuple[Json, ...] = ()
    file_ids: tuple[str, ...] = ()
    assistant_id: str | None = None
    run_id: str | None = None
    chat_completion_id: str | None = None
    status: str = "completed"
    completed_at: int | None = None
    metadata: Json = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of its parts, joined."""
        return "".join(text_of(part) for part in self.content)


def text_part(text: str) -> Json:
    """A part of a message that is *text*."""
    return {"type": "text", "text": {"value": text, "annotations": []}}


def text_of(part: Mapping[str, Any]) -> str:
    """The text of one part of a message; "" for a part of another kind."""
    text = part.get("text", "") if part.get("type") == "text" else ""
    found = text.get("value", "") if isinstance(text, dict) else text
    return found if isinstance(found, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFile:
    """That a file belongs to a message."""

    id: str
    message_id: str
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistant:
    """Instructions and parameters that threads are answered with.

    model: the model it speaks with; None is the one that is loaded.
    models: JSON objects `{"model_id": ...}`, those it can be used with; "*" is any.
    tools, events: as the API that made it gave them.
    parameters: of its chats (`temperature`, `max_tokens`, ...).
    """

    id: str
    created_at: int
    name: str = ""
    description: str | None = None
    instructions: str = ""
    model: str | None = None
    models: tuple[Json, ...] = ()
    avatar: str = ""
    tools: tuple[Json, ...] = ()
    events: Json = field(default_factory=dict)
    parameters: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A thread being answered by an assistant, or having been.

    status: "queued", "in_progress", "cancelling", or, at its end, "completed", "failed",
        "cancelled", "incomplete" or "expired".
    parameters: of its chat, and whatever else the API that made it has to repeat.
    last_error, incomplete_details, usage: as the API shows them; None is not there.
    notes: what was dropped, cut or not as asked, a sentence each.
    """

    id: str
    thread_id: str
    created_at: int
    assistant_id: str
    status: str = "queued"
    model: str = ""
    instructions: str = ""
    parameters: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    started_at: int | None = None
    expires_at: int | None = None
    cancelled_at: int | None = None
    failed_at: int | None = None
    completed_at: int | None = None
    last_error: Json | None = None
    incomplete_details: Json | None = None
    usage: Json | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """One response of the Responses API.

    previous_id: the response it goes on from.
    input, output: items of this turn alone.
    body: whatever else the API shows of it (`status`, `usage`, `instructions`, ...).
    """

    id: str
    created_at: int
    model: str
    previous_id: str | None = None
    input: tuple[Json, ...] = ()
    output: tuple[Json, ...] = ()
    body: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[R]):
    """Part of a list. `has_more`: the list goes on in the direction that was paged."""

    data: tuple[R, ...]
    has_more: bool

    @property
    def first_id(self) -> str | None:
        return self.data[0].id if self.data else None  # type: ignore[attr-defined]

    @property
    def last_id(self) -> str | None:
        return self.data[-1].id if self.data else None  # type: ignore[attr-defined]
