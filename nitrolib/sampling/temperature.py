"""The temperature sampler."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .candidates import Candidates


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
