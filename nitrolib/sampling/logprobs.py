"""LogProbs: what the model itself thought of a token, before anything was done to its logits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .partial_sort import descending, largest

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOG_ZERO = -3.4028234663852886e38
"""The logarithm of probability 0 as it is written: JSON has no infinity."""


class Scores(NamedTuple):
    """The logprob of one token, and ids and logprobs of the most likely ones, best first."""

    own: float
    ids: list[int]
    logprobs: list[float]


class LogProbs:
    """Natural logarithms of the softmax over whole rows of *n_vocab* logits, at temperature 1.

    Keeps one row of scratch space, so that no call allocates a vocabulary. Not thread-safe.
    """

    def __init__(self, n_vocab: int) -> None:
        self._weights = np.empty(n_vocab, np.float32)

    def __call__(self, logits: NDArray[np.float32], token: int, n: int) -> Scores:
        """Scores of *token* and of the min(n, n_vocab) most likely tokens, equal ones in order of
        their ids. *logits* (n_vocab,) float32 is not modified; its largest value is finite."""
        if n >= logits.size:
            order = descending(logits)
        elif n > 0:
            found = largest(logits, n)
            order = found[descending(logits[found])]
        else:
            order = np.empty(0, np.intp)
        top = float(logits.max())
        scale = math.log(self._mass(logits, top))
        return Scores(
            _log(float(logits[token]) - top - scale),
            order.tolist(),
            [_log(value - top - scale) for value in logits[order].tolist()],
        )

    def _mass(self, logits: NDArray[np.float32], top: float) -> float:
        """Sum of exp(logit - top), at least 1: single terms, doubly precise sum."""
        weights = self._weights
        with np.errstate(under="ignore"):
            np.subtract(logits, np.float32(top), out=weights)
            np.exp(weights, out=weights)
        return float(weights.sum(dtype=np.float64))


def _log(value: float) -> float:
    return max(value, LOG_ZERO)
