"""What a sort of the logits would tell, found without one: the k largest, and where the running
sum of probabilities crosses a target.

Sorting a vocabulary takes 100 times as long as finding its largest value. All weights are
exp((value - top) / temperature), in double precision, so that the largest weighs 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .candidates import Indices, Logits

_LARGE = 65_536  # values above which reading all of them once more is dear
_SMALL = 256  # values that are simply sorted
_BINS = 4096  # of keys, the last one open
_BINS_A_UNIT = 64
_FLOAT32_MAX = 3.4028234663852886e38
_CHUNK = 16_384  # values weighed at once: 128 KiB of doubles stay in the cache


def largest(values: Logits, k: int) -> Indices:
    """Positions of the k largest of *values* (n,), 0 < k < n, ascending; of equal values at the
    cut the first ones."""
    found = shortlist(values, k)
    if found.size == k:
        return found
    short = values[found]
    cut = np.partition(short, found.size - k)[found.size - k]
    kept: Indices = found[positions_reaching(short, cut, k - int(np.count_nonzero(short > cut)))]
    return kept


def shortlist(values: Logits, k: int) -> Indices:
    """Positions, ascending, of the k largest of *values* (n,), 0 < k < n, of equal ones at least
    the first, and usually few more. A NaN always counts.

    The values are read as a grid of rows. The k largest of the column maxima are k different
    values, so the k-th largest value is not below the smallest of them. Of a large vocabulary only
    columns whose maximum reaches it are looked at again. No copy of *values*.
    """
    n = values.size
    rows = min(64 if n <= _LARGE else 128, n // (4 * k))
    if rows < 4:
        return _reaching(values, np.partition(values, n - k)[n - k])
    width = n // rows
    grid = values[: rows * width].reshape(rows, width)
    best = np.maximum.reduce(grid, axis=0)
    ordered = best.copy() if n > _LARGE else best
    ordered.partition(width - k)
    cut = ordered[width - k]
    if cut == -math.inf:
        return _finite(values, k)
    if n <= _LARGE:
        return _reaching(values, cut)
    columns = (~(best < cut)).nonzero()[0]  # not "best >= cut", which would lose a NaN
    hits = (~(grid.take(columns, axis=1).ravel() < cut)).nonzero()[0]
    row, column = np.divmod(hits, columns.size)
    found: Indices = row * width + columns[column]
    if rows * width == n:
        return found
    rest = (~(values[rows * width :] < cut)).nonzero()[0]
    return np.concatenate((found, rest + rows * width))


def _reaching(values: Logits, cut: float) -> Indices:
    """Positions of the values that are not below *cut*: a NaN is not."""
    found: Indices = (~(values < cut)).nonzero()[0]
    return found


def _finite(values: Logits, k: int) -> Indices:
    """Positions of all of *values* but -inf, and of the first of those if there are less than k: a
    row of which a grammar allows little."""
    masked = values == -math.inf
    found: Indices = (~masked).nonzero()[0]
    if found.size < k:
        found = np.sort(np.concatenate((found, masked.nonzero()[0][: k - found.size])))
    return found


def positions_reaching(values: Logits, cut: float, ties: int) -> Indices:
    """Positions, ascending, of the values above *cut* and of the first *ties* equal to it."""
    kept = values > cut
    kept[(values == cut).nonzero()[0][:ties]] = True
    return kept.nonzero()[0]


def descending(values: Logits) -> Indices:
    """The order that sorts *values* (n,) descending, equal values in their order, NaN first."""
    # An ascending sort of the reversed values, read backwards, keeps ties in order and puts NaN in
    # front; sorting the negated values would put it at the end, where nobody looks.
    return (values.size - 1) - values[::-1].argsort(kind="stable")[::-1]


def mass(values: Logits, top: float, temperature: float = 1.0) -> float:
    """Sum of the weights of *values*, whose largest is *top*."""
    total = 0.0
    for start in range(0, values.size, _CHUNK):
        total += float(_weights(values[start : start + _CHUNK], top, temperature).sum())
    return total


def crossing(
    values: Logits, top: float, target: float, temperature: float = 1.0
) -> tuple[float, int]:
    """Add up weights from the largest value down until they reach *target*: the value on which
    that happens, and how many of the values equal to it are needed (1 or more). If all of them fall
    short of it, the smallest that still adds anything.

    *top* is the largest of *values* and finite. Values at -inf are never reached, not even where
    *target* is the whole mass and rounding leaves the sum short of it. The work is that of a
    selection: split at a pivot, weigh the upper part, go on in the part that holds the crossing.
    """
    above = 0.0  # weight of the values already passed
    # A model that knows what it wants has its mass above this.
    pivot = float(values.dtype.type(max(top - 8 * temperature, -_FLOAT32_MAX)))
    while values.size > _SMALL:
        higher = values[values > pivot]
        if higher.size < values.size:  # else nothing was learned from the first guess
            weight = mass(higher, top, temperature)
            if higher.size and above + weight >= target:
                values = higher
            else:
                above += weight
                equal = int(np.count_nonzero(values == pivot)) if pivot > -math.inf else 0
                each = _weight(pivot, top, temperature)
                lower = values[(values < pivot) & (values > -math.inf)]
                if equal and (above + equal * each >= target or not lower.size):
                    return pivot, _needed(target - above, each, equal)
                if not lower.size:  # rounding: all mass lies above the pivot, yet not the target
                    lowest = float(higher.min())
                    return lowest, int(np.count_nonzero(higher == lowest))
                above += equal * each
                values = lower
        pivot = _middle(values)
    return _crossing_sorted(np.sort(values)[::-1], top, target, temperature, above)


def prefix_above(
    keys: NDArray[np.float64], weights: NDArray[np.float64], target: float, least: int
) -> Indices:
    """Positions of the fewest *keys* (n,), ascending, equal ones in array order, whose *weights*
    (n,) exceed *target* together, and of at least *least*; of all of them if they fall short.

    Keys are 0 or more; bins of keys tell about where the prefix ends, and only that far is sorted.
    """
    near = np.arange(keys.size)
    if keys.size > _SMALL:
        bins = np.minimum(keys * _BINS_A_UNIT, _BINS - 1).astype(np.intp)
        enough = np.bincount(bins, weights).cumsum() > target * (1 + 1e-9)
        enough &= np.bincount(bins).cumsum() >= least
        if enough.any():
            near = (bins <= enough.argmax()).nonzero()[0]
    order: Indices = near[keys[near].argsort(kind="stable")]
    sums = weights[order].cumsum()
    return order[: max(int(sums.searchsorted(target, side="right")) + 1, least)]


def walk(values: Logits, top: float, target: float, temperature: float = 1.0) -> int:
    """The first position at which the weights, added up in array order, reach *target* (above 0,
    at most the mass of *values*)."""
    passed, last = 0.0, 0
    for start in range(0, values.size, _CHUNK):
        weights = _weights(values[start : start + _CHUNK], top, temperature)
        sums = passed + weights.cumsum()
        if sums[-1] >= target:
            return start + int(sums.searchsorted(target))
        if sums[-1] > passed:
            passed = float(sums[-1])
            last = start + int(weights.nonzero()[0][-1])
    return last  # rounding left the sum short: the last value with any weight


def _weights(values: Logits, top: float, temperature: float) -> Logits:
    with np.errstate(over="ignore"):  # of a tiny temperature: -inf, and weight 0
        weights = np.subtract(values, top, dtype=np.float64)
        if temperature != 1.0:
            weights /= temperature
    return np.exp(weights, out=weights)


def _weight(value: float, top: float, temperature: float) -> float:
    return math.exp((value - top) / temperature)


def _needed(missing: float, each: float, equal: int) -> int:
    """How many of *equal* weights of *each* make up the *missing* weight."""
    if missing >= equal * each:
        return equal
    return min(equal, max(1, math.ceil(missing / each)))


def _middle(values: Logits) -> float:
    """The median of some of the values."""
    sample = values[:: max(1, values.size // 63)]
    return float(np.partition(sample, sample.size // 2)[sample.size // 2])


def _crossing_sorted(
    values: Logits, top: float, target: float, temperature: float, above: float
) -> tuple[float, int]:
    sums = above + _weights(values, top, temperature).cumsum()
    at = int(sums.searchsorted(min(target, sums[-1])))
    cut = float(values[at])
    return cut, at + 1 - int(np.count_nonzero(values > cut))
