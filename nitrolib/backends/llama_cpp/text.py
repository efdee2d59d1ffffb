"""Text to token ids through llama.cpp's tokenizers, so that plain text never gives a token that
steers the model."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InvalidRequest
from ..tokenizer import check_text, never_in_text
from .long_text import pieces_of_bpe, pieces_of_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...gguf import Vocabulary

# Writes at most `size` ids of the text to the address and returns their number, or minus what was
# needed. (text, its bytes, address, size)
RawTokenize = Callable[[bytes, int, int, int], int]


class Tokenizer:
    """Plain text to ids. Any thread may call it.

    The library keeps tokens that were added with a text of their own ("<|im_start|>") whole
    wherever a text spells them, and may drop spaces beside them. So a text is cut at these, and
    they are spelled in other tokens.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        texts: Sequence[bytes],
        raw: RawTokenize,
        *,
        own_space: bool,
        byte_level: bool,
    ) -> None:
        """`texts` are those of all tokens as the file has them, `raw` is the native tokenizer.
        With `own_space` a text gets its leading space here. A `byte_level` tokenizer splits by
        expressions, and drops bytes that the vocabulary has no token for: then it is checked."""
        self._raw = raw
        self._own_space = own_space
        self._pieces = vocabulary.pieces
        # Unknown is no steering token: some vocabularies have nothing else for rare characters.
        self._forbidden = never_in_text(vocabulary) - {vocabulary.unknown}
        self._texts = {number: _text_of(texts[number]) for number in self._forbidden}
        marked = sorted(
            (_text_of(texts[number]) for number in vocabulary.user_defined & self._forbidden),
            key=len,
            reverse=True,
        )
        found = "|".join(re.escape(text) for text in marked if text)
        self._marks = re.compile(f"({found})") if found else None
        self._bytes = _byte_ids(vocabulary)
        self._spelled: dict[str, list[int]] = {}  # the same for ever, whoever writes it
        self._check_bytes = byte_level and len(self._bytes) < 256
        self._pieces_of = pieces_of_bpe if byte_level else _whole
        if not byte_level and vocabulary.user_defined - self._forbidden:
            self._pieces_of = pieces_of_runs

    def __call__(self, text: str, *, space_prefix: bool = True) -> list[int]:
        """Ids of `text`; see `Runtime.tokenize`. Raises InvalidRequest for text that is not valid
        Unicode, or that this vocabulary cannot spell."""
        check_text(text)
        if not text:
            return []
        if space_prefix and self._own_space:
            text = " " + text
        ids = self._plain(text)
        if self._check_bytes:
            self._check_spelling(text, ids)
        return ids

    def _plain(self, text: str) -> list[int]:
        parts = [text] if self._marks is None else self._marks.split(text)
        if len(parts) == 1:
            return self._unmarked(text)
        spelled: list[int] = []
        for index, part in enumerate(parts):
            if part:
                spelled += self._apart(part) if index % 2 else self._unmarked(part)
        return spelled

    def _unmarked(self, text: str) -> list[int]:
        """Ids of a text without marks: but merging may make a steering token out of its letters."""
        ids = self._ids(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        spelled: list[int] = []
        for number in ids:
            forbidden = self._texts.get(number)
            spelled += (number,) if forbidden is None else self._apart(forbidden)
        return spelled

    def _apart(self, text: str) -> list[int]:
        """The text of a forbidden token in other tokens: all but its last character, then that."""
        if text not in self._spelled:
            if len(text.strip()) < 2:  # some tokenizers put a space before a letter: back it is
                ids = [self._bytes[byte] for byte in text.encode() if byte in self._bytes]
            else:
                ids = self._plain(text[:-1]) + self._plain(text[-1])
            self._spelled[text] = ids
        return self._spelled[text]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self._pieces_of(text):
            ids += self._native_ids(piece)
        return ids

    def _native_ids(self, text: str) -> list[int]:
        data = text.encode()
        size = len(data) + 2
        buffer = np.empty(size, np.int32)
        count = self._raw(data, len(data), buffer.ctypes.data, size)
        if count < 0:
            buffer = np.empty(-count, np.int32)
            count = self._raw(data, len(data), buffer.ctypes.data, -count)
        ids: list[int] = buffer[: max(count, 0)].tolist()
        return ids

    def _check_spelling(self, text: str, ids: list[int]) -> None:
        if b"".join([self._pieces[number] for number in ids]) != text.encode():
            raise InvalidRequest(
                "the model's vocabulary cannot spell this text",
                field="text",
                value=text[:100],
                allowed="text that the vocabulary has tokens for",
            )


def _whole(text: str) -> list[str]:
    return [text]


def _text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\u2581", " ")


def _byte_ids(vocabulary: Vocabulary) -> dict[int, int]:
    """Byte -> the id of the token that is this byte alone."""
    if vocabulary.byte_ids is not None:
        return dict(enumerate(vocabulary.byte_ids))
    found: dict[int, int] = {}
    for number, piece in enumerate(vocabulary.pieces):
        if len(piece) == 1 and number not in vocabulary.user_defined:
            found.setdefault(piece[0], number)
    return found
