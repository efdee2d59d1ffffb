"""DRY, "don't repeat yourself": penalise the token that would go on with a sequence that occurred
before (text-generation-webui, pull request 5677)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .penalties import Penalty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .breakers import Breakers
    from .candidates import Indices
    from .params import SamplingParams

_LARGEST_EXPONENT = 88.7228391  # ln of the largest float32


def needs_breakers(params: SamplingParams) -> bool:
    """Whether a Sampler of these parameters needs compiled sequence breakers."""
    return dry_window_size(params, 1) > 0


def dry_window_size(params: SamplingParams, context_length: int) -> int:
    """Tokens that DRY looks back on; 0 if it is off."""
    if params.mirostat or params.dry_multiplier == 0 or "dry" not in params.order:
        return 0
    return context_length if params.dry_penalty_last_n == -1 else params.dry_penalty_last_n


class Dry:
    """The last `size` tokens (1 or more) and where in them the newest ones occurred before.

    For every place in the window the length of the match is kept: how many tokens up to there equal
    as many newest tokens. A new token makes the match at the place before longer by one wherever it
    stands itself, and 0 elsewhere, so that a token costs one pass over the window in numpy and no
    search. (A whole prompt is matched by the Z-algorithm.)
    """

    def __init__(self, params: SamplingParams, size: int, breakers: Breakers) -> None:
        self._multiplier = params.dry_multiplier
        self._base = params.dry_base
        self._allowed = params.dry_allowed_length
        self._most = math.inf
        if params.dry_base > 1.000001:
            self._most = int(_LARGEST_EXPONENT / math.log(params.dry_base))
        self._size = size
        self._breakers = breakers
        self._longest_tail = breakers.longest
        self._tokens = np.empty(0, np.int32)  # the window is its last `size` of the first `_end`
        self._matches = np.empty(0, np.int32)
        self._end = 0
        self._broken = -1  # place of the newest breaker's first token
        self._resumed = 0  # place after its last one

    @property
    def penalty(self) -> Penalty:
        return Penalty(self.penalties, np.subtract)

    def extend(self, ids: Iterable[int]) -> None:
        """Add tokens at the end; the oldest leave."""
        ids = list(ids)[-self._size :]
        self._make_room(len(ids))
        if len(ids) > 32:  # a prompt
            self._tokens[self._end : self._end + len(ids)] = ids
            self._end += len(ids)
            start = max(0, self._end - self._size)
            newest = self._tokens[start : self._end][::-1].tolist()
            self._matches[start : self._end - 1] = z_lengths(newest)[:0:-1]
            self._find_breaker(newest)
            return
        for token_id in ids:
            self._append(token_id)

    def penalties(self) -> tuple[Indices, NDArray[np.float64]]:
        """Distinct ids (n,) and what is to be subtracted from their logits (n,).

        A token that followed a match of m tokens, at least the allowed length, costs multiplier *
        base ** (m - allowed length), m being the longest such match. Matches reach back to the
        newest breaker at most, and a token that is a breaker by itself costs nothing.
        """
        start, end = max(0, self._end - self._size), self._end
        limit = min(end - start, end - self._resumed if self._broken >= start else self._size)
        if end - start <= self._allowed or limit < self._allowed:
            return _NOTHING
        found = (self._matches[start : end - 1] >= self._allowed).nonzero()[0]
        if not found.size:
            return _NOTHING
        # No match reaches beyond the window's start either.
        lengths = np.minimum(self._matches[start + found], np.minimum(found + 1, limit))
        longest = _longest(self._tokens[start + found + 1], lengths, self._allowed)
        single = self._breakers.single
        amounts = {token: self._amount(m) for token, m in longest.items() if token not in single}
        return np.array([*amounts], np.intp), np.array([*amounts.values()], np.float64)

    def _amount(self, length: int) -> float:
        power: float = float(self._base) ** min(length - self._allowed, self._most)
        return self._multiplier * power

    def _append(self, token_id: int) -> None:
        end = self._end
        start = max(0, end + 1 - self._size)
        self._tokens[end] = token_id
        places = start + (self._tokens[start:end] == token_id).nonzero()[0]
        # Where the match ended one place earlier; before the window's start nothing matches.
        longer = self._matches[places - 1] + 1
        if places.size and places[0] == start:
            longer[0] = 1
        self._matches[start:end] = 0
        self._matches[places] = longer
        self._matches[end] = 0
        self._end = end + 1
        self._note_breaker(end)

    def _note_breaker(self, end: int) -> None:
        """Look for a breaker that the token at *end*, the newest, completes."""
        tokens = self._tokens
        if int(tokens[end]) in self._breakers.single:
            self._broken, self._resumed = end, end + 1
            return
        for length in range(1, min(self._longest_tail, end) + 1):
            place = end - length
            if place < self._broken:
                return
            tails = self._breakers.tails.get(int(tokens[place]))
            if tails and tuple(tokens[place + 1 : end + 1].tolist()) in tails:
                self._broken, self._resumed = place, end + 1
                return

    def _find_breaker(self, newest: list[int]) -> None:
        """The same for all tokens, newest first."""
        single, tails = self._breakers.single, self._breakers.tails
        for back, token_id in enumerate(newest):
            found = [len(t) for t in tails.get(token_id, ()) if _follows(newest, back, t)]
            if found or token_id in single:
                self._broken = self._end - 1 - back
                self._resumed = self._broken + 1 + max(found, default=0)
                return
        self._broken = -1

    def _make_room(self, count: int) -> None:
        """For *count* more tokens, moving the window to the front when the end is reached."""
        if self._end + count <= self._tokens.size:
            return
        start = max(0, self._end - self._size)
        room = 2 * (self._end - start) + 2 * count + 64
        for name in ("_tokens", "_matches"):
            old = getattr(self, name)
            new = np.zeros(room, np.int32)
            new[: self._end - start] = old[start : self._end]
            setattr(self, name, new)
        self._end -= start
        self._broken -= start
        self._resumed -= start


_NOTHING: tuple[Indices, NDArray[np.float64]] = (np.empty(0, np.intp), np.empty(0))


def z_lengths(items: list[int]) -> list[int]:
    """For each place, how many items from there on equal as many from the beginning; at the
    beginning 0. Linear time (D. Gusfield, Algorithms on Strings, Trees and Sequences, 1.4)."""
    n = len(items)
    lengths = [0] * n
    left = right = 0  # the match that reaches furthest
    for place in range(1, n):
        length = min(lengths[place - left], right - place) if place < right else 0
        if place + length >= right:
            while place + length < n and items[length] == items[place + length]:
                length += 1
            left, right = place, place + length
        lengths[place] = length
    return lengths


def _follows(newest: list[int], back: int, tail: tuple[int, ...]) -> bool:
    """Whether *tail* came after the token that is *back* places behind the newest."""
    return len(tail) <= back and tuple(reversed(newest[back - len(tail) : back])) == tail


def _longest(ids: NDArray[np.int32], lengths: NDArray[np.intp], allowed: int) -> dict[int, int]:
    """The longest match of each id, where it reaches *allowed*."""
    if ids.size > 1:
        order = lengths.argsort()
        ids, lengths = ids[order], lengths[order]
    pairs = zip(ids.tolist(), lengths.tolist(), strict=True)
    return {token: length for token, length in pairs if length >= allowed}
