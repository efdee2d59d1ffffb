"""Detokenizer: token ids to text as they come, never half a character."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence


class Detokenizer:
    """Turns the tokens of one answer into text.

    *pieces* holds the bytes of every token id; they may end inside a character. The texts of all
    `feed` calls and of `finish`, joined, are `b"".join(bytes).decode(errors="replace")`, whatever
    the cuts: invalid bytes become U+FFFD as the standard decoder does it, as soon as they are known
    to be invalid. With *strip_leading_space* white space before the first visible character of the
    answer is dropped.
    """

    def __init__(self, pieces: Sequence[bytes], *, strip_leading_space: bool = False) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stripping = strip_leading_space

    @property
    def pending(self) -> bytes:
        """The bytes of a character that is not complete yet, at most three."""
        return self._decoder.getstate()[0]

    def feed(self, token_id: int) -> str:
        """The text that this token completes, perhaps "". Raises InvalidRequest for an id that is
        not in the vocabulary."""
        if not 0 <= token_id < len(self._pieces):
            raise InvalidRequest(
                f"token id {token_id} is not in the vocabulary of {len(self._pieces)} tokens",
                field="token_id",
                value=token_id,
                allowed=f"token ids from 0 to {len(self._pieces) - 1}",
            )
        return self._visible(self._decoder.decode(self._pieces[token_id]))

    def finish(self) -> str:
        """What is left at the end of the answer: an incomplete character as U+FFFD, else "". The
        detokenizer is then as new, but for leading space it has dropped already."""
        return self._visible(self._decoder.decode(b"", final=True))

    def _visible(self, text: str) -> str:
        if self._stripping and text:
            text = text.lstrip()
            self._stripping = not text
        return text
