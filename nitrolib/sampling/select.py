"""The last step: one token of the candidates that are left."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from math import exp
from typing import TYPE_CHECKING

from .few import TINY, is_cold
from .partial_sort import crossing, mass, walk

if TYPE_CHECKING:
    from .candidates import Candidates


def dist(candidates: Candidates, u: float, temperature: float = 1.0) -> int:
    """The id of the first candidate at which the probabilities, added up in order, reach *u*, a
    number from 0 to 1. The largest logit must be finite.

    *temperature* divides the logits on the way, which saves a copy of them where the temperature
    sampler comes last; where it `is_cold`, the first of the largest is chosen.
    """
    logits = candidates.logits
    top = float(logits.max())
    if is_cold(temperature, top):
        return candidates.id_at(int(logits.argmax()))
    target = max(u * mass(logits, top, temperature), TINY)
    if not candidates.ranked:
        return candidates.id_at(walk(logits, top, target, temperature))
    value, nth = crossing(logits, top, target, temperature)
    return candidates.id_at(int((logits == value).nonzero()[0][nth - 1]))


def probability(candidates: Candidates, token: int) -> float:
    """The probability of one of the candidates, above 0."""
    logits = candidates.logits
    at = token if candidates.ids is None else int((candidates.ids == token).nonzero()[0][0])
    top = float(logits.max())
    return exp(float(logits[at]) - top) / mass(logits, top)


def choose_few(
    logits: list[float], *, top_p: float, min_p: float, temperature: float, u: float
) -> int:
    """The default chain from top_p to the draw, on a few candidates: the position chosen.

    *logits* are descending and the first is finite. The result is that of the filters, the
    temperature and `dist` one after another; on up to a hundred candidates plain floats are twice
    as fast as arrays, because each array operation costs as much as twenty float ones.
    """
    top = logits[0]
    if is_cold(temperature, top):
        return 0
    if top_p < 1:
        sums = list(accumulate([exp(logit - top) for logit in logits]))
        del logits[bisect_left(sums, top_p * sums[-1]) + 1 :]
    if min_p > 0:
        cut = top + math.log(min_p)
        while logits[-1] < cut:
            logits.pop()
    sums = list(accumulate([exp((logit - top) / temperature) for logit in logits]))
    return bisect_left(sums, max(u * sums[-1], TINY))
