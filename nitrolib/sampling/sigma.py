"""top_n_sigma (arXiv:2411.07641): mask the logits that are too many standard deviations below the
best. Entries are masked with -inf, none is dropped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .filters import rounded_up, top_k

if TYPE_CHECKING:
    from .candidates import Candidates, Logits
    from .few import Few

_CHUNK = 16_384  # values read at once: 128 KiB of doubles stay in the cache


def top_n_sigma(candidates: Candidates, n: float) -> Candidates:
    """Mask every logit below the largest by more than *n* standard deviations (population, of the
    finite logits). n <= 0, or a lone candidate, changes nothing."""
    logits = candidates.logits
    if n <= 0 or logits.size <= 1:
        return candidates
    cut = float(logits.max()) - n * deviation(logits)
    return candidates._replace(logits=_masked(logits, cut))


def top_n_sigma_top_k(candidates: Candidates, n: float, k: int) -> Candidates:
    """`top_n_sigma`, then `top_k` with 0 < k: in the other order, which comes to the same (what is
    masked is never chosen, whichever of it fills the places up to k) and masks a few."""
    logits = candidates.logits
    kept = top_k(candidates, k)
    if n <= 0 or logits.size <= 1:
        return kept
    cut = float(kept.logits.max()) - n * deviation(logits)
    return kept._replace(logits=_masked(kept.logits, cut))


def top_n_sigma_few(few: Few, n: float) -> None:
    """`top_n_sigma` on a few candidates."""
    if n <= 0 or len(few.logits) <= 1:
        return
    finite = [logit for logit in few.logits if logit > -math.inf]
    mean = math.fsum(finite) / len(finite)
    sigma = math.sqrt(math.fsum((logit - mean) ** 2 for logit in finite) / len(finite))
    cut = few.top() - n * sigma
    few.logits = [logit if logit >= cut else -math.inf for logit in few.logits]


def deviation(logits: Logits) -> float:
    """The population standard deviation of the finite ones of *logits* (n,), at least one."""
    top = float(logits.max())
    total = squares = 0.0
    buffer = np.empty(min(_CHUNK, logits.size))
    for start in range(0, logits.size, _CHUNK):
        chunk = logits[start : start + _CHUNK]
        below = np.subtract(chunk, top, out=buffer[: chunk.size], dtype=np.float64)
        total += float(below.sum())
        squares += float(np.einsum("i,i->", below, below))  # not a dot: BLAS would start threads
    if total == -math.inf:
        return deviation(logits[logits > -math.inf])
    mean = total / logits.size
    return math.sqrt(max(0.0, squares / logits.size - mean * mean))


def _masked(logits: Logits, cut: float) -> Logits:
    masked: Logits = np.where(logits >= rounded_up(cut, logits), logits, logits.dtype.type(-np.inf))
    return masked
