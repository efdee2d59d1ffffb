"""What a session remembers of a conversation. Plain frozen data, shared by forks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from ..prompt import Message

if TYPE_CHECKING:
    from ..prompt.continuation import Evaluated


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer. `dropped`: exchanges before it that its prompt left out.
    `vocabulary`: digest of the one that the ids in `evaluated` belong to."""

    user: str
    assistant: str
    dropped: int = 0
    evaluated: Evaluated | None = None
    vocabulary: str = ""

    @property
    def messages(self) -> tuple[Message, Message]:
        return Message("user", self.user), Message("assistant", self.assistant)


Past = tuple[Exchange, ...]


def check_text(field: str, text: str) -> None:
    try:
        if not isinstance(text, str):
            raise InvalidRequest(
                f"{field} must be a string, got {type(text).__name__}",
                field=field,
                value=text,
                allowed="a string",
            )
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{field} is not valid Unicode: {error.reason} at character {error.start}",
            field=field,
            value=text,
            allowed="text without lone surrogates",
        ) from error
