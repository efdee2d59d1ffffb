"""XTC, "exclude top choices": now and then drop the most likely tokens and keep the least likely of
the good ones (text-generation-webui, pull request 6335)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .partial_sort import mass

if TYPE_CHECKING:
    from .candidates import Candidates
    from .few import Few
    from .rng import Uniform32


class Xtc:
    """With *probability*, drop all candidates of at least *threshold* probability but the least
    likely of them, if at least *min_keep* candidates are left.

    It draws from a generator of its own, seeded as the request's, once for every token that has two
    candidates or more. A candidate of probability 0 is never a good one. Off, and best left out, at
    a probability of 0 or a threshold above 0.5.
    """

    def __init__(
        self, probability: float, threshold: float, min_keep: int, uniform: Uniform32
    ) -> None:
        self._probability = probability
        self._threshold = threshold
        self._min_keep = min_keep
        self._uniform = uniform

    def wide(self, candidates: Candidates) -> Candidates:
        logits = candidates.logits
        if logits.size < 2 or self._uniform() > self._probability:
            return candidates
        top = float(logits.max())
        least = max(self._threshold * mass(logits, top), 5e-324)
        with np.errstate(over="ignore"):
            good = np.subtract(logits, top, dtype=np.float64)
        np.exp(good, out=good)
        found = (good >= least).nonzero()[0]
        dropped = found.size - 1
        if dropped < 1 or logits.size - dropped < self._min_keep:
            return candidates._replace(ranked=True)
        of_found = logits[found]
        kept = np.ones(logits.size, np.bool_)
        kept[found] = False
        kept[found[(of_found == of_found.min()).nonzero()[0][-1]]] = True
        return candidates.keep(kept.nonzero()[0], ranked=True)

    def few(self, few: Few) -> None:
        size = len(few.logits)
        if size < 2 or self._uniform() > self._probability:
            return
        few.rank()
        weights = few.weights()
        least = max(self._threshold * sum(weights), 5e-324)
        dropped = sum(weight >= least for weight in weights) - 1
        if dropped >= 1 and size - dropped >= self._min_keep:
            few.keep(slice(dropped, None))
