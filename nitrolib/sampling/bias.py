"""logit_bias and banned tokens: what is added to the raw logits before everything else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .candidates import Indices


class Bias(NamedTuple):
    """Distinct token ids (n,) and what is added to their logits (n,); -inf bans."""

    ids: Indices
    amounts: NDArray[np.float64]


def gather(logit_bias: Iterable[tuple[int, float]], banned: Iterable[int]) -> Bias:
    """One amount for each id: biases of the same id add up, and a ban wins over any of them."""
    total: dict[int, float] = {}
    for token_id, amount in logit_bias:
        total[token_id] = total.get(token_id, 0.0) + amount
    for token_id in banned:
        total[token_id] = -math.inf
    return Bias(
        np.fromiter(total, np.intp, len(total)),
        np.fromiter(total.values(), np.float64, len(total)),
    )
