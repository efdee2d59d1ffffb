"""Locally typical sampling (arXiv:2202.00666): keep the tokens whose information content is
nearest to what is expected of the next token.

With probabilities p, H = -sum(p ln p) and the score |-ln p - H| of each candidate, those of the
smallest scores are kept until their probabilities exceed the target. The most likely token may be
dropped. With d = logit - largest logit, the score is |d - sum(p d)|, which needs no logarithm.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from .entropy import Softmax
from .partial_sort import prefix_above

if TYPE_CHECKING:
    from .candidates import Candidates
    from .few import Few


def typical(candidates: Candidates, p: float, min_keep: int = 0) -> Candidates:
    """The shortest run of candidates, in ascending order of score, whose probabilities exceed *p*,
    and at least *min_keep* (at least one); in that order, unranked. p >= 1 changes nothing. A
    candidate of probability 0 counts as the least typical."""
    if p >= 1:
        return candidates
    softmax = Softmax.of(candidates.logits)
    scores = np.abs(softmax.below - softmax.expected)
    kept = prefix_above(scores, softmax.weights, p * softmax.total, max(1, min_keep))
    return candidates.keep(kept, ranked=False)


def typical_few(few: Few, p: float, min_keep: int = 0) -> None:
    """`typical` on a few candidates."""
    few.rank()
    weights = few.weights()
    middle = few.expected() + few.reference
    scores = [abs(logit - middle) for logit in few.logits]
    order = sorted(range(len(scores)), key=scores.__getitem__)
    sums = list(accumulate([weights[position] for position in order]))
    few.take(order[: max(bisect_right(sums, p * sums[-1]) + 1, min_keep)])
    few.ranked = False
