"""The temperature sampler: one number that divides every logit, perhaps moved by the entropy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .entropy import Softmax

if TYPE_CHECKING:
    from .candidates import Candidates
    from .few import Few


class Heat(NamedTuple):
    """A temperature *t* and, where *spread* is above 0, how far entropy moves it (dynatemp).

    With n candidates of entropy H (nats, over all that are there), the temperature in effect is
    low + (high - low) * (H / ln n) ** exponent, low = max(0, t - spread) and high = t + spread: low
    for a model that is sure, high for one that is not. A lone candidate is left alone.
    """

    t: float = 1.0
    spread: float = 0.0
    exponent: float = 1.0

    @property
    def is_greedy(self) -> bool:
        return self.t <= 0 and self.spread <= 0

    @property
    def is_neutral(self) -> bool:
        return self.t == 1 and self.spread <= 0

    def of(self, candidates: Candidates) -> tuple[Candidates, float]:
        """The candidates (ranked by dynatemp) and the temperature in effect."""
        if self.spread <= 0:
            return candidates, self.t
        n = candidates.logits.size
        if n <= 1:
            return candidates, 1.0
        entropy = Softmax.of(candidates.logits).entropy
        return candidates._replace(ranked=True), self._moved(entropy, n)

    def of_few(self, few: Few) -> float:
        """The temperature in effect; dynatemp ranks the candidates."""
        if self.spread <= 0:
            return self.t
        n = len(few.logits)
        if n <= 1:
            return 1.0
        few.rank()
        return self._moved(few.entropy(), n)

    def _moved(self, entropy: float, n: int) -> float:
        # Rounding may leave the share a little outside, where a power may have no value.
        share = min(1.0, max(0.0, entropy / math.log(n)))
        low, high = max(0.0, self.t - self.spread), self.t + self.spread
        moved: float = share**self.exponent
        return low + (high - low) * moved


def temperature(candidates: Candidates, t: float) -> Candidates:
    """Divide every logit by *t*; 1 changes nothing.

    t <= 0 is greedy: the first of the largest logits keeps its value, all others become -inf, and
    no candidate is dropped. A *t* so small that the division overflows is greedy too.
    """
    if t == 1:
        return candidates
    logits = candidates.logits.astype(np.float64)
    best = int(logits.argmax())
    if t > 0:
        with np.errstate(over="ignore"):
            scaled = logits / t
        if math.isfinite(scaled[best]):
            return candidates._replace(logits=scaled)
    greedy = np.full_like(logits, -math.inf)
    greedy[best] = logits[best]
    return candidates._replace(logits=greedy)


def temperature_few(few: Few, t: float) -> None:
    """`temperature` on a few candidates."""
    if t == 1:
        return
    logits, top = few.logits, few.top()
    if t > 0 and math.isfinite(top / t):
        few.change([logit / t for logit in logits])
        return
    greedy = [-math.inf] * len(logits)
    greedy[logits.index(top)] = top
    few.change(greedy)


def heated(candidates: Candidates, heat: Heat) -> Candidates:
    """The whole sampler, where others follow it."""
    return temperature(*heat.of(candidates))


def heated_few(few: Few, heat: Heat) -> None:
    """`heated` on a few candidates."""
    temperature_few(few, heat.of_few(few))
