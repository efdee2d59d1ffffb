"""Sampler: the state of one generation between a row of logits and a token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BackendError
from . import bias
from .candidates import Candidates
from .chain import filter_steps
from .edits import Edits
from .partial_sort import descending, largest, shortlist
from .penalties import Window, penalized, window_size
from .rng import Uniform, resolve_seed
from .select import choose_few, dist
from .support import check_supported, check_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .params import SamplingParams

_FEW = 100  # up to this top_k plain floats are faster than arrays


class Sampler:
    """Chooses the tokens of one generation.

    *n_vocab* is the length of a row of logits and *context_length* that of the slot, in tokens,
    which a `repeat_last_n` of -1 stands for. *banned* ids are never chosen, whatever their bias:
    the engine passes all end-of-generation ids of the model where `ignore_eos` is set, and none
    elsewhere.

    Raises Unsupported for a parameter that this version does not honour, and InvalidRequest for a
    `logit_bias` of a token that the model does not have. The same seed and the same logits give the
    same tokens, whatever else runs. Not thread-safe: one generation, one sampler.
    """

    def __init__(
        self,
        params: SamplingParams,
        n_vocab: int,
        context_length: int,
        banned: Iterable[int] = (),
    ) -> None:
        check_supported(params)
        check_vocabulary(params, n_vocab)
        self._params = params
        self._shape = (n_vocab,)
        self._bias = bias.gather(params.logit_bias, banned)
        size = window_size(params, context_length)
        self._window = Window(size) if size else None
        self._steps = filter_steps(params)
        self._seed = resolve_seed(params.seed)
        self._uniform = Uniform(self._seed)
        if params.temperature == 0:
            self._choose = self._greedy
        elif 0 < params.top_k <= _FEW and params.top_k < n_vocab:
            self._choose = self._draw_from_few
        else:
            self._choose = self._draw

    @property
    def seed(self) -> int:
        """The seed in use, 0 to 2**32 - 2: with it as `seed` a request can be repeated."""
        return self._seed

    def accept(self, ids: Iterable[int]) -> None:
        """Note tokens of the prompt or of the answer, in order: they enter the penalty window.
        `sample` does not do so by itself."""
        if self._window is not None:
            self._window.extend(ids)

    def sample(self, logits: NDArray[np.float32]) -> int:
        """The id of the next token, from *logits* (n_vocab,) float32.

        The row is written to on the way and is as before on return. Raises BackendError if it
        holds NaN or +inf, or if no token is left (every logit -inf).
        """
        if logits.shape != self._shape or logits.dtype != np.float32:
            raise BackendError(
                f"expected logits of shape {self._shape} and type float32, got {logits.shape} "
                f"and {logits.dtype}"
            )
        if not self._bias.ids.size and self._window is None:
            return self._choose(logits)
        with Edits(logits) as edits:
            if self._bias.ids.size:
                ids, amounts = self._bias
                edits.set(ids, logits[ids] + amounts)
            if self._window is not None:
                ids = self._window.ids
                edits.set(ids, penalized(logits[ids], self._window.counts, self._params))
            return self._choose(logits)

    def _greedy(self, row: NDArray[np.float32]) -> int:
        best = int(row.argmax())  # of a NaN, its position
        _check_top(row.item(best))
        return best

    def _draw_from_few(self, row: NDArray[np.float32]) -> int:
        params = self._params
        found = shortlist(row, params.top_k)
        if found.size > 4 * params.top_k:  # many equal logits
            _check_top(float(row[found].max()))
            found = found[largest(row[found], params.top_k)]
        few = row[found]
        order = descending(few)[: params.top_k]
        logits: list[float] = few[order].tolist()
        _check_top(logits[0])
        position = choose_few(
            logits,
            top_p=params.top_p,
            min_p=params.min_p,
            temperature=params.temperature,
            u=self._uniform(),
        )
        return int(found[order[position]])

    def _draw(self, row: NDArray[np.float32]) -> int:
        _check_top(float(row.max()))
        candidates = Candidates(None, row)
        for step in self._steps:
            candidates = step(candidates)
        return dist(candidates, self._uniform(), self._params.temperature)


def _check_top(top: float) -> None:
    if math.isfinite(top):
        return
    if top == -math.inf:
        raise BackendError("no token is left to choose: every logit is -inf")
    raise BackendError(f"the model's logits hold {'NaN' if math.isnan(top) else '+inf'}")
