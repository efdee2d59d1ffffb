"""Repeat, frequency and presence penalties on the tokens of a recent window."""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .candidates import Candidates, Indices, Logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from .few import Few
    from .params import SamplingParams


class Penalty(NamedTuple):
    """A sampler that changes the logits of a few known tokens.

    concerned: distinct ids (n,) in no particular order and a number for each (n,). effect: the new
        logits of some of them, from their logits and numbers.
    """

    concerned: Callable[[], tuple[Indices, NDArray[np.float64]]]
    effect: Callable[[Logits, NDArray[np.float64]], NDArray[np.float64]]

    def wide(self, candidates: Candidates) -> Candidates:
        """Applied to candidates other than the row as the model made it; unranked."""
        ids, numbers = self.concerned()
        if not ids.size:
            return candidates
        candidates = candidates.in_order()
        logits = candidates.logits.astype(np.float64)
        at = ids
        if candidates.ids is not None:
            order = ids.argsort()
            place = order[np.minimum(ids[order].searchsorted(candidates.ids), ids.size - 1)]
            at = (ids[place] == candidates.ids).nonzero()[0]
            numbers = numbers[place[at]]
        logits[at] = self.effect(logits[at], numbers)
        return Candidates(candidates.ids, logits)

    def few(self, few: Few) -> None:
        """The same on few candidates."""
        left = self.wide(Candidates(np.array(few.ids, np.intp), np.array(few.logits, np.float64)))
        few.change(left.logits.tolist())
        few.ranked = False


def window_size(params: SamplingParams, context_length: int) -> int:
    """Tokens the penalties look back on; 0 if they change nothing."""
    if params.mirostat or "penalties" not in params.order:
        return 0
    if (params.repeat_penalty, params.frequency_penalty, params.presence_penalty) == (1, 0, 0):
        return 0
    return context_length if params.repeat_last_n == -1 else params.repeat_last_n


class Window:
    """The last `size` tokens (1 or more): which ids they are and how often each occurs."""

    def __init__(self, size: int) -> None:
        self._recent: deque[int] = deque(maxlen=size)
        self._place: dict[int, int] = {}  # id -> its place in the two arrays
        self._ids = np.empty(0, np.intp)
        self._counts = np.empty(0, np.float64)

    def penalty(self, params: SamplingParams) -> Penalty:
        """Repeat, frequency and presence penalty on what is in the window."""
        return Penalty(lambda: (self.ids, self.counts), partial(penalized, params=params))

    @property
    def ids(self) -> Indices:
        """Ids in the window, each once, in no particular order; a view."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> NDArray[np.float64]:
        """How often each of `ids` occurs; a view."""
        return self._counts[: len(self._place)]

    def extend(self, ids: Iterable[int]) -> None:
        """Add tokens at the end; the oldest leave."""
        ids = list(ids)
        if len(ids) > 32:  # a prompt
            self._recent.extend(ids)
            self._recount()
            return
        for token_id in ids:
            if len(self._recent) == self._recent.maxlen:
                self._remove(self._recent[0])
            self._recent.append(token_id)
            self._add(token_id)

    def _recount(self) -> None:
        counted = Counter(self._recent)
        self._place = {token_id: place for place, token_id in enumerate(counted)}
        self._ids = np.fromiter(counted, np.intp, len(counted))
        self._counts = np.fromiter(counted.values(), np.float64, len(counted))

    def _add(self, token_id: int) -> None:
        place = self._place.get(token_id)
        if place is not None:
            self._counts[place] += 1
            return
        place = len(self._place)
        if place == self._ids.size:
            self._ids = np.concatenate((self._ids, np.empty(place + 64, np.intp)))
            self._counts = np.concatenate((self._counts, np.empty(place + 64)))
        self._place[token_id] = place
        self._ids[place] = token_id
        self._counts[place] = 1

    def _remove(self, token_id: int) -> None:
        place = self._place[token_id]
        if self._counts[place] > 1:
            self._counts[place] -= 1
            return
        del self._place[token_id]
        last = len(self._place)  # the last place closes the gap
        if place != last:
            moved = int(self._ids[last])
            self._place[moved] = place
            self._ids[place] = moved
            self._counts[place] = self._counts[last]


def penalized(
    logits: Logits, counts: NDArray[np.float64], params: SamplingParams
) -> NDArray[np.float64]:
    """The *logits* (n,) of tokens that occur *counts* (n,) times in the window, penalised.

    A positive logit is divided by `repeat_penalty` and any other multiplied by it, once however
    often the token occurs (arXiv:1909.05858); then `frequency_penalty` is taken off for each
    occurrence and `presence_penalty` once. -inf stays -inf. Returns a new array.
    """
    result = logits.astype(np.float64)
    factor = params.repeat_penalty
    if factor != 1:
        result = np.where(result <= 0, result * factor, result / factor)
    if params.frequency_penalty or params.presence_penalty:
        result -= counts * params.frequency_penalty + params.presence_penalty
    return result
