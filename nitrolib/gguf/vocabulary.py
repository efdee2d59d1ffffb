"""Vocabulary: the tokens of a model, their texts decoded to bytes once, at load."""

from __future__ import annotations

import codecs
import functools
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from .special_tokens import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Habits, SpecialIds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .reader import GGUFFile

__all__ = ["Vocabulary"]

NO_TOKEN = 0xFFFFFFFF  # how a file says that it has no such token

_SPACE = "\u2581".encode()  # what SentencePiece writes for a space


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokens of a model. Ids run from 0 to n_vocab - 1. Which tokens are of which kind, and
    what they are where the file is silent, is as in llama.cpp.

    pieces: the bytes that each id adds to a text: b"" for control, unknown and unused tokens, one
        byte for a byte token, U+2581 as a space. Bytes, since a piece may be half a character.
    special: text of every control and user-defined token -> its id.
    control: ids of control, unknown and unused tokens: those without a text.
    user_defined: ids of tokens that were added with a text of their own, such as "<tool_call>".
    byte_ids: ids of the 256 byte tokens by byte, or None where the vocabulary has not all of them.
    bos, eos, unknown, sep: ids or None; an encoder's "[CLS]" is its BOS, "[SEP]" its sep.
    eog: every id that ends a generation (eos, end of turn, ...).
    add_bos, add_eos, add_sep: whether a text begins with BOS, and ends with EOS or the separator.
    add_space_prefix: whether a space is put before a text.
    """

    n_vocab: int
    pieces: Sequence[bytes]
    special: Mapping[str, int]
    control: frozenset[int]
    user_defined: frozenset[int]
    byte_ids: tuple[int, ...] | None
    bos: int | None
    eos: int | None
    unknown: int | None
    sep: int | None
    eog: frozenset[int]
    add_bos: bool
    add_eos: bool
    add_sep: bool
    add_space_prefix: bool

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Vocabulary:
        """Decode the vocabulary of a file that passed verify (about 0.5 us a token); raises
        ModelFileError where it has none."""
        if "tokenizer.ggml.tokens" not in file.metadata:
            file.fail("the file has no vocabulary", key="tokenizer.ggml.tokens")
        raw = _named(file.metadata.strings("tokenizer.ggml.tokens").raw())
        model = file.metadata.text("tokenizer.ggml.model") or ""
        habits = Habits.of(file, model)
        marked = SpecialIds(file, model, raw, _types(file, len(raw)))
        types = marked.types
        pieces = _sentence_pieces(raw) if habits.escaped_spaces else _byte_level(raw)
        special, byte_ids = _unlike_others(file, raw, types, pieces)
        bos, eos = marked.ids["bos"], marked.ids["eos"]
        sep = marked.ids["seperator"]
        return cls(
            n_vocab=len(raw),
            pieces=tuple(pieces),
            special=special,
            control=_ids(np.isin(types, (CONTROL, UNKNOWN, UNUSED))),
            user_defined=_ids(types == USER_DEFINED),
            byte_ids=tuple(byte_ids[b] for b in range(256)) if len(byte_ids) == 256 else None,
            bos=bos,
            eos=eos,
            unknown=marked.ids["unknown"],
            sep=sep,
            eog=frozenset(marked.ends),
            add_bos=habits.add_bos and bos is not None,
            add_eos=habits.add_eos and eos is not None,
            add_sep=habits.add_sep and sep is not None,
            add_space_prefix=habits.add_space_prefix,
        )


def _named(texts: list[bytes]) -> list[bytes]:
    """The texts, with llama.cpp's names for those that are empty."""
    if all(texts):
        return texts
    return [text or b"[EMPTY_%d]" % token for token, text in enumerate(texts)]


def _unlike_others(
    file: GGUFFile, raw: list[bytes], types: NDArray[np.int64], pieces: list[bytes]
) -> tuple[dict[str, int], dict[int, int]]:
    """Put the pieces of all but normal tokens right; returns `special`, and the byte tokens by
    byte."""
    special: dict[str, int] = {}
    byte_ids: dict[int, int] = {}
    for token in np.flatnonzero(types != NORMAL).tolist():
        kind, text = types[token], raw[token]
        if kind == BYTE:
            value = byte_value(text)
            if value is None:
                file.fail(
                    f"token {token} is a byte token and its text {text[:20]!r} is none of "
                    "<0x00> to <0xFF>",
                    key="tokenizer.ggml.token_type",
                )
            pieces[token] = bytes((value,))
            byte_ids.setdefault(value, token)
        elif kind == USER_DEFINED:
            pieces[token] = text.replace(_SPACE, b" ")
            special[pieces[token].decode("utf-8", "replace")] = token
        else:
            pieces[token] = b""
            if kind == CONTROL:
                special[text.decode("utf-8", "replace")] = token
    special.pop("", None)
    return special, byte_ids


def byte_value(text: bytes) -> int | None:
    """The byte that the text of a byte token such as <0x0A> stands for, or None."""
    return _BYTE_TEXTS.get(text)


_BYTE_TEXTS = {f"<0x{value:02X}>".encode(): value for value in range(256)}


def _types(file: GGUFFile, n_vocab: int) -> NDArray[np.int64]:
    key = "tokenizer.ggml.token_type"
    if key not in file.metadata:
        return np.full(n_vocab, NORMAL, np.int64)
    types = file.metadata.numbers(key)
    if types.size != n_vocab or types.dtype.kind not in "iu":
        file.fail(f"{types.size} types for {n_vocab} tokens", key=key)
    return types.astype(np.int64)


def _ids(chosen: NDArray[np.bool_]) -> frozenset[int]:
    return frozenset(np.flatnonzero(chosen).tolist())


def _sentence_pieces(raw: list[bytes]) -> list[bytes]:
    return [text.replace(_SPACE, b" ") for text in raw]


def _byte_level(raw: list[bytes]) -> list[bytes]:
    """Undo GPT-2's writing of bytes as printable characters, for all tokens in one call: every
    character is one byte, so the lengths tell where to cut."""
    try:
        texts = [text.decode() for text in raw]
        joined, _ = codecs.charmap_encode("".join(texts), "strict", _byte_level_map())
    except UnicodeError:  # an added token with other characters: one by one, as they are
        return [_byte_level_piece(text) for text in raw]
    ends = list(accumulate(map(len, texts)))
    return [joined[end - len(text) : end] for text, end in zip(texts, ends, strict=True)]


def _byte_level_piece(text: bytes) -> bytes:
    """llama.cpp writes "[UNK_BYTE_0x...]" for what is no byte; the text itself says more."""
    try:
        return codecs.charmap_encode(text.decode(), "strict", _byte_level_map())[0]
    except UnicodeError:
        return text


@functools.lru_cache(maxsize=1)
def _byte_level_map() -> dict[int, int]:
    """Character number -> byte, as in github.com/openai/gpt-2 encoder.py, bytes_to_unicode: bytes
    that print stand for themselves, the others for U+0100 on, in order."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printing)
    return {byte: byte for byte in printing} | {
        0x100 + index: byte for index, byte in enumerate(others)
    }
