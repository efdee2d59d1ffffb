"""Survivors: the candidates that a token was drawn from, with their probabilities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .partial_sort import descending, largest, mass
from .select import probability
from .temperature import temperature as heated

if TYPE_CHECKING:
    from .candidates import Candidates
    from .few import Few


class Survivors(NamedTuple):
    """token: the id that was drawn, p its probability. top: the most likely ids with theirs,
    descending, at most as many as were to be kept; those of probability 0 are left out."""

    token: int
    p: float
    top: tuple[tuple[int, float], ...]


def of_one(token: int, count: int) -> Survivors:
    """A token that was the only candidate."""
    return Survivors(token, 1.0, ((token, 1.0),)[:count])


def of_few(few: Few, temperature: float, token: int, count: int) -> Survivors:
    """*temperature* is what is left to divide the logits by."""
    weights = few.weights_at(temperature)
    total = sum(weights)
    by_id = {few.ids[i]: weight / total for i, weight in enumerate(weights) if weight}
    ordered = sorted(by_id.items(), key=lambda pair: -pair[1])
    return Survivors(token, by_id[token], tuple(ordered[:count]))


def of_candidates(candidates: Candidates, temperature: float, token: int, count: int) -> Survivors:
    """*temperature* is what is left to divide the logits by."""
    candidates = heated(candidates, temperature)
    logits = candidates.logits
    at = largest(logits, count) if 0 < count < logits.size else np.arange(logits.size)
    at = at[descending(logits[at])][:count]
    top = float(logits.max())
    total = mass(logits, top)
    likely = [(candidates.id_at(i), math.exp(float(logits[i]) - top) / total) for i in at.tolist()]
    p = probability(candidates, token)
    return Survivors(token, p, tuple(pair for pair in likely if pair[1] > 0))
