"""Sequence breakers of DRY: strings turned into patterns of token ids, once for a vocabulary.

A token whose text contains a breaker breaks sequences by itself. One whose text ends in the
beginning of a breaker does so when the tokens of the breaker's rest follow it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .candidates import Indices

MAX_BREAKERS = 64
"""Different breakers of one request: each costs a look at the texts of the whole vocabulary."""

_MAX_BYTES = 40  # of a breaker: the rest is cut off
_MAX_TAIL = 20  # tokens
_CACHED = 16  # sets of breakers that are kept


@dataclass(frozen=True, slots=True)
class Breakers:
    """Which tokens break a sequence.

    single: ids that break it by themselves.
    tails: other ids -> the runs of token ids, none empty, that must follow them to break it.
    """

    single: frozenset[int]
    tails: Mapping[int, tuple[tuple[int, ...], ...]]

    @property
    def longest(self) -> int:
        """Tokens of the longest tail; 0 where there is none."""
        return max((len(tail) for tails in self.tails.values() for tail in tails), default=0)


class BreakerTable:
    """Compiles breakers against the vocabulary of one model and keeps the results; make one when
    a model is loaded. Any thread may call it.

    *pieces* are the bytes of every token, by id; *special* the texts of control and user-defined
    tokens, which count with their text here; *tokenize* gives the ids of a text that goes on from
    other text: without BOS, without a space put in front, none of it taken for a control token.
    The texts are joined at the first `compile`. A piece counts with the space it begins with, which
    llama.cpp leaves out where the tokenizer is SentencePiece's.
    """

    def __init__(
        self,
        pieces: Sequence[bytes],
        tokenize: Callable[[str], Sequence[int]],
        special: Mapping[str, int] | None = None,
    ) -> None:
        self._pieces = pieces
        self._special = special or {}
        self._tokenize = tokenize
        self._texts: _Texts | None = None
        self._compiled: OrderedDict[tuple[bytes, ...], Breakers] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, breakers: Sequence[str]) -> Breakers:
        """The patterns of these breakers, each cut to its first 40 bytes; empty ones break nothing.

        Milliseconds for a vocabulary of 150,000, nothing when they were compiled lately. Raises
        InvalidRequest for more than MAX_BREAKERS or one that is not valid Unicode.
        """
        cut = tuple(dict.fromkeys(_encoded(text)[:_MAX_BYTES] for text in breakers if text))
        if len(cut) > MAX_BREAKERS:
            raise InvalidRequest(
                f"dry_sequence_breakers holds {len(cut)} different breakers, and at most "
                f"{MAX_BREAKERS} are possible",
                field="dry_sequence_breakers",
                value=len(cut),
                allowed=f"at most {MAX_BREAKERS} different strings",
            )
        with self._lock:  # two requests would do the same work twice
            compiled = self._compiled.get(cut)
            if compiled is None:
                compiled = self._compiled[cut] = self._compile(cut)
                if len(self._compiled) > _CACHED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(cut)
            return compiled

    def _compile(self, breakers: tuple[bytes, ...]) -> Breakers:
        if self._texts is None:
            self._texts = _Texts(self._pieces, self._special)
        single: set[int] = set()
        tails: dict[int, dict[tuple[int, ...], None]] = {}
        for breaker in breakers:
            containing = self._texts.containing(breaker)
            single.update(containing)
            for length in range(1, len(breaker)):
                heads = self._texts.ending_in(breaker[:length]) - containing
                # Half a character is no text to a tokenizer: only what can be told is a pattern.
                tail = self._tail(breaker[length:]) if heads else ()
                if tail:
                    for head in heads:
                        tails.setdefault(head, {})[tail] = None
        return Breakers(frozenset(single), {head: tuple(found) for head, found in tails.items()})

    def _tail(self, rest: bytes) -> tuple[int, ...]:
        try:
            text = rest.decode()
        except UnicodeDecodeError:
            return ()
        return tuple(self._tokenize(text))[:_MAX_TAIL]


class _Texts:
    """The texts of all tokens, joined, to be searched at once."""

    def __init__(self, pieces: Sequence[bytes], special: Mapping[str, int]) -> None:
        texts = list(pieces)
        for text, token_id in special.items():
            texts[token_id] = text.encode()
        self._bytes: NDArray[np.uint8] = np.frombuffer(b"".join(texts), np.uint8)
        lengths = np.fromiter(map(len, texts), np.intp, len(texts))
        self._ends: Indices = lengths.cumsum()
        self._starts: Indices = self._ends - lengths

    def containing(self, wanted: bytes) -> frozenset[int]:
        """Ids of the tokens whose text contains *wanted* (not empty)."""
        room = max(0, self._bytes.size - len(wanted) + 1)
        at = (self._bytes[:room] == wanted[0]).nonzero()[0]
        for offset, byte in enumerate(wanted[1:], start=1):
            at = at[self._bytes[at + offset] == byte]
        token = self._ends.searchsorted(at, side="right")
        return frozenset(token[at + len(wanted) <= self._ends[token]].tolist())

    def ending_in(self, wanted: bytes) -> frozenset[int]:
        """Ids of the tokens whose text ends in *wanted* (not empty)."""
        token = (self._ends - self._starts >= len(wanted)).nonzero()[0]
        for back, byte in enumerate(reversed(wanted), start=1):
            token = token[self._bytes[self._ends[token] - back] == byte]
        return frozenset(token.tolist())


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"dry_sequence_breakers must be valid Unicode, got {text[:100]!r}",
            field="dry_sequence_breakers",
            value=text,
            allowed="valid Unicode",
        ) from None
