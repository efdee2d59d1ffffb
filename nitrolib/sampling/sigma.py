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

_CHUNK = 8_192  # values read at once
_ONES = np.ones(_CHUNK, np.float32)


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
    few = kept.logits.astype(np.float64)
    few[few < few.max() - n * deviation(logits)] = -math.inf
    return kept._replace(logits=few)


def top_n_sigma_few(few: Few, n: float) -> None:
    """`top_n_sigma` on a few candidates."""
    if n <= 0 or len(few.logits) <= 1:
        return
    finite = [logit for logit in few.logits if logit > -math.inf]
    mean = sum(finite) / len(finite)
    apart = [logit - mean for logit in finite]
    # Not "** 2" and not fsum, which raise where a tiny temperature made the logits huge.
    sigma = math.sqrt(sum([distance * distance for distance in apart]) / len(finite))
    if not math.isfinite(sigma):
        return
    cut = few.top() - n * sigma
    few.change([logit if logit >= cut else -math.inf for logit in few.logits])


def deviation(logits: Logits) -> float:
    """The population standard deviation of the finite ones of *logits* (n,), at least one; infinite
    where a tiny temperature made them too large to tell."""
    if logits.dtype == np.float32:
        single = _single(logits)
        if single is not None:
            return single
    finite = logits[logits > -math.inf].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        found = float(finite.std())
    return found if math.isfinite(found) else math.inf


def _single(logits: Logits) -> float | None:
    """The same in single precision, in one pass; None where that does not do (a logit of -inf, or
    so large that its square is not finite).

    Sums of differences from about the mean, and of their squares, lose no digits; chunk by chunk
    they stay in the cache, and too short for BLAS to wake its threads.
    """
    sample = logits[:: max(1, logits.size // 16)]
    total = squares = 0.0
    buffer = np.empty(min(_CHUNK, logits.size), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        about = np.float32(np.add.reduce(sample) / sample.size)
        for start in range(0, logits.size, _CHUNK):
            chunk = logits[start : start + _CHUNK]
            apart = np.subtract(chunk, about, out=buffer[: chunk.size])
            total += float(apart.dot(_ONES[: chunk.size]))
            squares += float(apart.dot(apart))
    if not (math.isfinite(total) and math.isfinite(squares)):
        return None
    mean = total / logits.size
    return math.sqrt(max(0.0, squares / logits.size - mean * mean))


def _masked(logits: Logits, cut: float) -> Logits:
    masked: Logits = np.where(logits >= rounded_up(cut, logits), logits, logits.dtype.type(-np.inf))
    return masked
