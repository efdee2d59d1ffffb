"""The candidate set once it is small: plain lists, which are faster than arrays up to about a
hundred candidates, because each array operation costs as much as twenty float ones."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import exp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .candidates import Candidates

MOST = 128
"""Candidates that are still few."""

TINY = 5e-324  # a target of 0 would choose a banned token that comes first


class Few:
    """A few candidates, changed in place by the samplers.

    ids, logits: of equal length, in the order that counts; a logit at -inf has probability 0 and
        stays. At least one logit is finite.
    ranked: whether they are known to be in descending order.
    """

    __slots__ = ("ids", "logits", "ranked")

    def __init__(self, ids: list[int], logits: list[float], ranked: bool = False) -> None:
        self.ids = ids
        self.logits = logits
        self.ranked = ranked

    @classmethod
    def of(cls, candidates: Candidates) -> Few:
        logits = candidates.logits.tolist()
        ids = list(range(len(logits))) if candidates.ids is None else candidates.ids.tolist()
        few = cls(ids, logits)
        if candidates.ranked:
            few.rank()
        return few

    def rank(self) -> None:
        """Sort, descending by logit, equal logits in their order."""
        if not self.ranked:
            logits = self.logits
            self.take(sorted(range(len(logits)), key=logits.__getitem__, reverse=True))
            self.ranked = True

    def take(self, positions: Sequence[int]) -> None:
        """Keep the candidates at these positions, in this order."""
        self.ids = [self.ids[position] for position in positions]
        self.logits = [self.logits[position] for position in positions]

    def cut(self, count: int) -> None:
        """Keep the first *count*."""
        del self.ids[count:], self.logits[count:]

    def top(self) -> float:
        """The largest logit."""
        return self.logits[0] if self.ranked else max(self.logits)

    def weights(self, temperature: float = 1.0) -> list[float]:
        """What the candidates' probabilities are in proportion to; the largest weighs 1. At a
        temperature of 0 the first of the largest has all the weight."""
        top = self.top()
        if temperature == 1:
            return [exp(logit - top) for logit in self.logits]
        if temperature > 0:
            return [exp((logit - top) / temperature) for logit in self.logits]
        best = self.logits.index(top)
        return [float(position == best) for position in range(len(self.logits))]

    def draw(self, u: float, temperature: float = 1.0) -> int:
        """The position of the first candidate at which the probabilities, added up in order, reach
        *u*, a number from 0 to 1."""
        sums = list(accumulate(self.weights(temperature)))
        return bisect_left(sums, max(u * sums[-1], TINY))
