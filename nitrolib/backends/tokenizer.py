"""Text to token ids through the library's SentencePiece tokenizer, with its hazards fenced off:
a buffer of our own, NUL bytes, and control tokens that a text spells by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidRequest, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..gguf import Vocabulary

# Writes at most `size` ids to the address and returns their number, or minus what was needed.
RawTokenize = Callable[[bytes, int, int], int]

# A character that no piece of the vocabulary contains, if it is any of these.
_FENCES = (*range(1, 32), 127)


class Tokenizer:
    """Plain text to ids. Holds no state that calls change: any thread may call it."""

    def __init__(self, vocabulary: Vocabulary, texts: Sequence[bytes], raw: RawTokenize) -> None:
        """`texts` are those of all tokens as the file has them; `raw` is the native tokenizer."""
        if vocabulary.byte_ids is None:
            raise ModelFileError(
                "the vocabulary has not all 256 byte tokens", key="tokenizer.ggml.tokens"
            )
        self._raw = raw
        self._bytes = vocabulary.byte_ids
        self._forbidden = never_in_text(vocabulary)
        self._texts = {
            number: texts[number].decode("utf-8", "replace").replace("\u2581", " ")
            for number in self._forbidden
        }
        self._fence = _find_fence(texts)
        # The library puts a space before every text. Behind the fence, which merges with nothing,
        # the text stands alone: its ids are what follows those of space and fence.
        opening = self._ids(self._fence)
        self._n_opening = len(opening)
        self._space = opening[:-1]
        self._adds_space = vocabulary.add_space_prefix
        self._spelled: dict[int, list[int]] = {}

    def __call__(self, text: str, *, space_prefix: bool = True) -> list[int]:
        """Ids of `text` as SentencePiece gives them, never one of a control, unknown or marker
        token: where a text spells one, the ids of its parts stand instead.

        Without `space_prefix` the text continues earlier text. Raises InvalidRequest for text that
        is not valid Unicode (a lone surrogate).
        """
        check_text(text)
        if not text:
            return []
        first, *others = text.split("\0")
        ids = self._part(first, space_prefix and self._adds_space)
        for part in others:
            # C strings end at NUL, so its byte token is put between the parts by hand.
            ids.append(self._bytes[0])
            ids += self._part(part, False)
        return ids

    def _part(self, text: str, space: bool) -> list[int]:
        if not text:
            return list(self._space) if space else []
        ids = self._ids(text) if space else self._ids(self._fence + text)[self._n_opening :]
        if self._forbidden.isdisjoint(ids):
            return ids
        spelled: list[int] = []
        for number in ids:
            spelled += self._spell(number) if number in self._forbidden else (number,)
        return spelled

    def _spell(self, number: int) -> list[int]:
        """The text of a forbidden token in other tokens: all but its last character, then that."""
        if number not in self._spelled:
            text = self._texts[number]
            if len(text) > 1:
                spelled = self._part(text[:-1], False) + self._part(text[-1], False)
            else:
                spelled = [self._bytes[byte] for byte in text.encode()]
            self._spelled[number] = spelled
        return self._spelled[number]

    def _ids(self, text: str) -> list[int]:
        data = text.encode()
        size = len(data) + 2
        buffer = np.empty(size, np.int32)
        count = self._raw(data, buffer.ctypes.data, size)
        if count < 0:  # more ids than bytes: a vocabulary without a token for the space
            buffer = np.empty(-count, np.int32)
            count = self._raw(data, buffer.ctypes.data, -count)
        ids: list[int] = buffer[:count].tolist()
        return ids


def check_text(text: str) -> None:
    if not isinstance(text, str):
        raise InvalidRequest(
            f"text must be a str, got {type(text).__name__}",
            field="text",
            value=type(text).__name__,
            allowed="a str",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"text is not valid Unicode: character {error.start} is a lone surrogate "
            f"(U+{ord(text[error.start]):04X})",
            field="text",
            value=f"U+{ord(text[error.start]):04X}",
            allowed="text without lone surrogates",
        ) from None


def never_in_text(vocabulary: Vocabulary) -> frozenset[int]:
    """Ids that plain text must not give: tokens without a text (control, unknown, unused), markers
    that were added, and what ends a generation; but runs of spaces and bytes are text even then."""
    marked = {*vocabulary.control, *vocabulary.user_defined, *vocabulary.eog}
    marked.update(id_ for id_ in (vocabulary.bos, vocabulary.eos) if id_ is not None)
    marked.difference_update(vocabulary.byte_ids or ())
    return frozenset(number for number in marked if not vocabulary.pieces[number].isspace())


def _find_fence(texts: Sequence[bytes]) -> str:
    """A character that stands in no text but its own, so that no merge can reach across it."""
    merging = b"".join(texts)
    if all(bytes((code,)) in merging for code in _FENCES):
        # Texts of one byte may be the fence itself. Leaving them out takes its time: only now.
        merging = b"".join(text for text in texts if len(text) > 1)
    for code in _FENCES:
        if bytes((code,)) not in merging:
            return chr(code)
    raise ModelFileError(
        "every control character is part of some token's text", key="tokenizer.ggml.tokens"
    )
