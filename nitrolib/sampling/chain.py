"""The chain: which samplers run between the penalties and the draw, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .candidates import Candidates
from .filters import min_p, top_k, top_p

if TYPE_CHECKING:
    from .params import SamplingParams

Step = Callable[[Candidates], Candidates]


def filter_steps(params: SamplingParams) -> tuple[Step, ...]:
    """The default chain's filters that are not off, in order: top_k, top_p, min_p.

    Logit bias and penalties come before, on the row itself; temperature and the draw after, in
    one (`select.dist`).
    """
    steps: tuple[tuple[bool, Step], ...] = (
        (params.top_k > 0, partial(top_k, k=params.top_k)),
        (params.top_p < 1, partial(top_p, p=params.top_p, floor=params.min_p)),
        (params.min_p > 0, partial(min_p, p=params.min_p)),
    )
    return tuple(step for is_on, step in steps if is_on)
