"""Vocabulary: the tokens of a model, their texts decoded to bytes once, at load."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .reader import GGUFFile

__all__ = ["Vocabulary"]

# Token types of tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

NO_TOKEN = 0xFFFFFFFF  # how a file says that it has no such token

_SPACE = "\u2581".encode()  # what SentencePiece writes for a space

# Texts by which models end a turn, where the file names no id for it.
_END_TEXTS = frozenset({
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<end_of_turn>", "<|END_OF_TURN_TOKEN|>", "<EOT>", "_<EOT>", "<|return|>", "<|call|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")

# Byte-level BPE models that want BOS although the file may not say so.
_BPE_WITH_BOS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokens of a model. Ids run from 0 to n_vocab - 1.

    pieces: the bytes that each id adds to a text: b"" for control, unknown and unused tokens, one
        byte for a byte token, U+2581 as a space. Bytes, since a piece may be half a character.
    special: text of every control and user-defined token -> its id.
    control: ids of control, unknown and unused tokens: those without a text.
    user_defined: ids of tokens that were added with a text of their own, such as "<|im_start|>".
    byte_ids: ids of the 256 byte tokens by byte, or None where the vocabulary has not all of them.
    bos, eos, unknown: ids or None.
    eog: every id that ends a generation (eos, end of turn, ...).
    add_bos: whether a text begins with BOS; add_space_prefix: whether a space is put before it.
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
    eog: frozenset[int]
    add_bos: bool
    add_space_prefix: bool

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Vocabulary:
        """Decode the vocabulary of a file that passed verify (about 0.3 us a token); raises
        ModelFileError where it has none."""
        if "tokenizer.ggml.tokens" not in file.metadata:
            file.fail("the file has no vocabulary", key="tokenizer.ggml.tokens")
        raw = file.metadata.strings("tokenizer.ggml.tokens").raw()
        model = file.metadata.text("tokenizer.ggml.model") or ""
        types = _types(file, len(raw))
        pieces = _byte_level(raw) if model == "gpt2" else _sentence_pieces(raw)
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
        ids = {key: _token_id(file, key, len(raw)) for key in (*_END_KEYS, *_OTHER_KEYS)}
        if model == "llama":  # what llama.cpp takes where the file is silent
            ids = {**ids, **_llama_defaults(file, ids, len(raw))}
        ends = {ids[key] for key in _END_KEYS} | {special.get(text) for text in _END_TEXTS}
        add_bos, add_space = _habits(file, model)
        return cls(
            n_vocab=len(raw),
            pieces=tuple(pieces),
            special=special,
            control=_ids(np.isin(types, (CONTROL, UNKNOWN, UNUSED))),
            user_defined=_ids(types == USER_DEFINED),
            byte_ids=tuple(byte_ids[b] for b in range(256)) if len(byte_ids) == 256 else None,
            bos=ids["bos_token_id"],
            eos=ids["eos_token_id"],
            unknown=ids["unknown_token_id"],
            eog=frozenset(token for token in ends if token is not None),
            add_bos=add_bos and ids["bos_token_id"] is not None,
            add_space_prefix=add_space,
        )


_OTHER_KEYS = ("bos_token_id", "unknown_token_id")


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


def _token_id(file: GGUFFile, name: str, n_vocab: int) -> int | None:
    token = file.metadata.integer(f"tokenizer.ggml.{name}")
    return token if token is not None and 0 <= token < n_vocab else None


def _llama_defaults(
    file: GGUFFile, ids: Mapping[str, int | None], n_vocab: int
) -> dict[str, int | None]:
    defaults = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return {
        name: default
        for name, default in defaults.items()
        if ids[name] is None and f"tokenizer.ggml.{name}" not in file.metadata and default < n_vocab
    }


def _habits(file: GGUFFile, model: str) -> tuple[bool, bool]:
    """Whether BOS and whether a space is put before a text: as the file says, else as llama.cpp
    does for this kind of tokenizer."""
    add_bos = file.metadata.flag("tokenizer.ggml.add_bos_token")
    if add_bos is None:
        pre = file.metadata.text("tokenizer.ggml.pre")
        add_bos = model in ("llama", "bert") or pre in _BPE_WITH_BOS
    add_space = file.metadata.flag("tokenizer.ggml.add_space_prefix")
    if add_space is None:
        add_space = model in ("llama", "t5")
    return add_bos, add_space


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
    try:
        return codecs.charmap_encode(text.decode(), "strict", _byte_level_map())[0]
    except UnicodeError:
        return text


def _byte_level_map() -> dict[int, int]:
    """Character number -> byte, as in github.com/openai/gpt-2 encoder.py, bytes_to_unicode: bytes
    that print stand for themselves, the others for U+0100 on, in order."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printing)
    return {byte: byte for byte in printing} | {
        0x100 + index: byte for index, byte in enumerate(others)
    }
