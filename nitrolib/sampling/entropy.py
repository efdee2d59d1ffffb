"""What the samplers that look at entropy need of a softmax."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .candidates import Logits

_LEAST = -1e300  # stands for -inf, whose product with its weight of 0 is no number


class Softmax(NamedTuple):
    """Of logits (n,), the largest of them finite.

    below: logit - largest logit (n,), finite. weights: exp(below) (n,); probabilities are weights /
    total. expected: the mean of below by probability.
    """

    below: NDArray[np.float64]
    weights: NDArray[np.float64]
    total: float
    expected: float

    @classmethod
    def of(cls, logits: Logits) -> Softmax:
        with np.errstate(over="ignore"):
            below = np.subtract(logits, logits.max(), dtype=np.float64)
        np.maximum(below, _LEAST, out=below)
        weights = np.exp(below)
        total = float(weights.sum())
        return cls(below, weights, total, float(np.einsum("i,i->", weights, below)) / total)

    @property
    def entropy(self) -> float:
        """-sum(p ln p), in nats."""
        return math.log(self.total) - self.expected
