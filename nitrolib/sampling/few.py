"""The candidate set once it is small: plain lists, which are faster than arrays up to about a
hundred candidates, because each array operation costs as much as twenty float ones."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import exp, isfinite, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .candidates import Candidates

MOST = 128
"""Candidates that are still few."""

_LIGHT = 1e-200  # weights below have lost digits, or will

TINY = 5e-324  # a target of 0 would choose a banned token that comes first


def is_cold(temperature: float, top: float) -> bool:
    """Whether a temperature is that of a greedy choice among logits of which *top* is the largest:
    0 or less, or so small that the division overflows."""
    return temperature <= 0 or not isfinite(top / temperature)


class Few:
    """A few candidates, changed in place by the samplers.

    ids, logits: of equal length, in the order that counts; a logit at -inf has probability 0 and
        stays. At least one logit is finite.
    ranked: whether they are known to be in descending order.
    """

    __slots__ = ("_weights", "ids", "logits", "ranked", "reference")

    def __init__(self, ids: list[int], logits: list[float], ranked: bool = False) -> None:
        self.ids = ids
        self.logits = logits
        self.ranked = ranked
        self.reference = 0.0
        self._weights: list[float] | None = None

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
        ids, logits, weights = self.ids, self.logits, self._weights
        self.ids = [ids[position] for position in positions]
        self.logits = [logits[position] for position in positions]
        if weights is not None:
            self._weights = [weights[position] for position in positions]

    def keep(self, part: slice) -> None:
        """Keep the candidates of a slice."""
        self.ids, self.logits = self.ids[part], self.logits[part]
        if self._weights is not None:
            self._weights = self._weights[part]

    def change(self, logits: list[float]) -> None:
        """Give the candidates other logits."""
        self.logits = logits
        self._weights = None

    def top(self) -> float:
        """The largest logit."""
        return self.logits[0] if self.ranked else max(self.logits)

    def weights(self) -> list[float]:
        """What the candidates' probabilities are in proportion to: exp(logit - reference).

        They are reckoned once and kept as candidates are dropped, until those that are left have
        too little weight for that.
        """
        weights = self._weights
        if weights is None or max(weights) < _LIGHT:
            reference = self.reference = self.top()
            weights = self._weights = [exp(logit - reference) for logit in self.logits]
        return weights

    def expected(self) -> float:
        """The mean of logit - reference by probability."""
        weights, reference = self.weights(), self.reference
        pairs = zip(weights, self.logits, strict=True)
        return sum([w * (logit - reference) for w, logit in pairs if w]) / sum(weights)

    def entropy(self) -> float:
        """-sum(p ln p), in nats."""
        return log(sum(self.weights())) - self.expected()

    def weights_at(self, temperature: float) -> list[float]:
        """`weights` with the logits divided by *temperature*; where `is_cold`, the first of the
        largest has all the weight."""
        if temperature == 1:
            return self.weights()
        top = self.top()
        if not is_cold(temperature, top):
            return [exp((logit - top) / temperature) for logit in self.logits]
        best = self.logits.index(top)
        return [float(position == best) for position in range(len(self.logits))]

    def draw(self, u: float, temperature: float = 1.0) -> int:
        """The position of the first candidate at which the probabilities, added up in order, reach
        *u*, a number from 0 to 1."""
        sums = list(accumulate(self.weights_at(temperature)))
        return bisect_left(sums, max(u * sums[-1], TINY))
