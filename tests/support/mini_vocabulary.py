"""A vocabulary of bytes and a few control tokens, with a tokenizer that needs no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPECIAL_TEXTS = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|",
    "[INST]",
    "[/INST]",
)
FIRST_SPECIAL = 256


@dataclass(frozen=True)
class MiniVocabulary:
    """Ids 0 to 255 are the bytes; the special texts follow, BOS and EOS first."""

    texts: tuple[str, ...] = SPECIAL_TEXTS
    add_bos: bool = True
    add_space_prefix: bool = False
    eog: frozenset[int] = frozenset((FIRST_SPECIAL + 1,))
    bos: int = FIRST_SPECIAL
    eos: int = FIRST_SPECIAL + 1
    special: Mapping[str, int] = field(init=False, compare=False)
    pieces: Sequence[bytes] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        special = {text: FIRST_SPECIAL + index for index, text in enumerate(self.texts)}
        object.__setattr__(self, "special", special)
        pieces = [bytes((byte,)) for byte in range(256)] + [b""] * len(self.texts)
        object.__setattr__(self, "pieces", pieces)

    @property
    def n_vocab(self) -> int:
        return len(self.pieces)

    def tokenize(self, text: str, *, space_prefix: bool = True) -> list[int]:
        """Bytes, with a space in front as SentencePiece puts it, where the vocabulary says so."""
        return list((" " * (space_prefix and self.add_space_prefix) + text).encode())

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[token] for token in ids).decode()
