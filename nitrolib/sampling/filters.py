"""Samplers that drop candidates: top_k, top_p, min_p.

Each takes candidates and returns candidates, logits unchanged, and always keeps the most likely
one. Probabilities are softmax over the candidates handed in. `..._few` do the same on a few.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from itertools import accumulate
from operator import neg
from typing import TYPE_CHECKING

import numpy as np

from .partial_sort import crossing, largest, mass, positions_reaching

if TYPE_CHECKING:
    from .candidates import Candidates, Indices, Logits
    from .few import Few


def top_k(candidates: Candidates, k: int) -> Candidates:
    """The k largest logits, ranked; equal logits at the cut in array order. k <= 0 changes
    nothing."""
    if k <= 0:
        return candidates
    if k >= candidates.logits.size:
        return candidates._replace(ranked=True)
    return candidates.keep(largest(candidates.logits, k), ranked=True)


def top_p(candidates: Candidates, p: float, min_keep: int = 0, floor: float = 0.0) -> Candidates:
    """The fewest of the most likely candidates whose probabilities reach *p*, and at least
    *min_keep*, ranked (nucleus sampling, arXiv:1904.09751). p >= 1 changes nothing.

    *floor* is the p of a min_p that runs next: candidates that it drops are dropped here, which
    spares looking for the exact end of the nucleus among a whole vocabulary.
    """
    if p >= 1:
        return candidates
    logits = candidates.logits
    top = float(logits.max())
    if top == -math.inf:
        return candidates._replace(ranked=True)
    likely = logits[logits >= _cut(logits, top, floor)] if floor > 0 else logits
    cut, ties = crossing(likely, top, p * mass(logits, top))
    kept = positions_reaching(logits, cut, ties)
    return _at_least(candidates, kept, min_keep, ranked=True)


def min_p(candidates: Candidates, p: float, min_keep: int = 0) -> Candidates:
    """The candidates at least *p* times as likely as the best, and at least *min_keep*
    (arXiv:2407.01082). They keep their order, unless min_keep decides. p <= 0 changes nothing."""
    if p <= 0:
        return candidates
    logits = candidates.logits
    kept = (logits >= _cut(logits, float(logits.max()), p)).nonzero()[0]
    return _at_least(candidates, kept, min_keep, ranked=candidates.ranked)


def top_k_few(few: Few, k: int) -> None:
    if k > 0:
        few.rank()
        few.keep(slice(k))


def top_p_few(few: Few, p: float, min_keep: int = 0) -> None:
    if p >= 1:
        return
    few.rank()
    sums = list(accumulate(few.weights()))
    few.keep(slice(max(bisect_left(sums, p * sums[-1]) + 1, min_keep)))


def min_p_few(few: Few, p: float, min_keep: int = 0) -> None:
    if p <= 0:
        return
    cut = few.top() + min(0.0, math.log(p))
    if few.ranked:
        count = bisect_right(few.logits, -cut, key=neg)
        few.keep(slice(max(count, min_keep)))
        return
    kept = [position for position, logit in enumerate(few.logits) if logit >= cut]
    if len(kept) >= min_keep:
        few.take(kept)
    else:
        few.rank()
        few.keep(slice(min_keep))


def _at_least(candidates: Candidates, kept: Indices, min_keep: int, *, ranked: bool) -> Candidates:
    if kept.size >= min_keep:
        return candidates.keep(kept, ranked=ranked)
    if min_keep >= candidates.logits.size:
        return candidates._replace(ranked=True)
    return candidates.keep(largest(candidates.logits, min_keep), ranked=True)


def _cut(logits: Logits, top: float, p: float) -> float | np.float32:
    """The logit of a candidate *p* times as likely as *top*, at most *top* itself, for comparing
    *logits* with."""
    return rounded_up(top + min(0.0, math.log(p)), logits)


def rounded_up(cut: float, logits: Logits) -> float | np.float32:
    """The smallest number of the *logits*' own type that is not below *cut*.

    Comparing a float32 array with a double would either convert the array or, worse, round the
    double to the nearest float32, which may lie on its other side.
    """
    if logits.dtype == np.float64:
        return cut
    with np.errstate(over="ignore"):
        rounded = np.float32(cut)
    if float(rounded) < cut:
        rounded = np.float32(np.nextafter(rounded, np.float32(np.inf)))
    return rounded
