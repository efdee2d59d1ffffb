"""Sampler: the state of one generation between a row of logits and a token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BackendError
from . import bias, chain
from .candidates import Candidates
from .dry import Dry, dry_window_size
from .edits import Edits, not_finite
from .few import Few
from .mirostat import Mirostat
from .partial_sort import descending, largest, shortlist
from .penalties import Window, window_size
from .rng import Uniform, resolve_seed
from .select import choose_few, dist
from .support import check_supported, check_vocabulary
from .survivors import Survivors, of_candidates, of_few, of_one

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .breakers import Breakers
    from .legality import Constraint
    from .params import SamplingParams
    from .penalties import Penalty

_FEW = 100  # up to this top_k plain floats are faster than arrays
_FLOAT32 = np.dtype(np.float32)


class Sampler:
    """Chooses the tokens of one generation.

    *n_vocab* is the length of a row of logits and *context_length* that of the slot, in tokens,
    which a `repeat_last_n` or `dry_penalty_last_n` of -1 stands for. *banned* ids are never chosen,
    whatever their bias: the engine passes all end-of-generation ids of the model where `ignore_eos`
    is set, and none elsewhere. *constraint* is the state of a grammar that the answer must follow.
    *breakers* are the compiled `dry_sequence_breakers`; DRY needs them (`needs_breakers`).
    *keep_survivors* is how many of the most likely candidates to keep in `last`, for
    `post_sampling_probs`; None keeps none and costs nothing.

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
        *,
        constraint: Constraint | None = None,
        breakers: Breakers | None = None,
        keep_survivors: int | None = None,
    ) -> None:
        extras = {
            "breakers": breakers,
            "constraint": constraint,
            "keep_survivors": keep_survivors,
        }
        check_supported(params, [name for name, extra in extras.items() if extra is not None])
        check_vocabulary(params, n_vocab)
        self._params = params
        self._shape = (n_vocab,)
        self._constraint = constraint
        self._legal: NDArray[np.float32] | None = None  # a row that only holds legal tokens
        self._is_masked = False
        self._bias = bias.gather(params.logit_bias, banned)
        # Empty where tokens are biased too.
        self._banned = frozenset(() if params.logit_bias else self._bias.ids.tolist())
        self._seed = resolve_seed(params.seed)
        self._uniform = Uniform(self._seed)
        self._kept = keep_survivors
        self._last: Survivors | None = None
        self._windows: list[Window | Dry] = []
        self._penalties: list[Penalty] = []  # those that come first, on the row
        self._leaves_out = False  # whether `_choose` leaves out banned tokens by itself
        self._plan_chain(context_length, breakers)
        edits = len(self._penalties) + self._bias.ids.size
        if self._leaves_out:
            edits -= len(self._banned)
        self._sample = self._choose_edited if edits else self._choose

    def _plan_chain(self, context_length: int, breakers: Breakers | None) -> None:
        params, (n_vocab,) = self._params, self._shape
        self._mirostat = Mirostat(params, n_vocab, self._uniform) if params.mirostat else None
        if self._mirostat is not None:
            self._choose = self._draw_mirostat
            return
        penalties = self._make_penalties(context_length, breakers)
        plan = chain.plan(params, penalties)
        self._penalties = [penalties[name] for name in plan.head]
        self._steps = chain.steps(plan.tail, params, self._seed, penalties)
        self._heat = plan.heat
        few = params.top_k <= _FEW and params.top_k + len(self._banned) < n_vocab
        if plan.is_greedy:
            self._choose = self._greedy
            self._leaves_out = True
        elif few and plan.is_usual and params.min_keep <= 1 and self._kept is None:
            self._top_p = params.top_p if "top_p" in plan.tail else 1.0
            self._min_p = params.min_p if "min_p" in plan.tail else 0.0
            self._choose = self._draw_from_few
            self._leaves_out = True
        else:
            self._choose = self._draw

    def _make_penalties(self, context_length: int, breakers: Breakers | None) -> dict[str, Penalty]:
        made: dict[str, Penalty] = {}
        if size := window_size(self._params, context_length):
            window = Window(size)
            self._windows.append(window)
            made["penalties"] = window.penalty(self._params)
        if size := dry_window_size(self._params, context_length):
            assert breakers is not None  # check_supported
            dry = Dry(self._params, size, breakers)
            self._windows.append(dry)
            made["dry"] = dry.penalty
        return made

    @property
    def seed(self) -> int:
        """The seed in use, 0 to 2**32 - 2: with it as `seed` a request can be repeated."""
        return self._seed

    @property
    def listens(self) -> bool:
        """Whether it has to be told what comes: to others `accept` means nothing."""
        return self._constraint is not None or bool(self._windows)

    @property
    def last(self) -> Survivors | None:
        """The candidates that the last token was drawn from; None without `keep_survivors`."""
        return self._last

    def accept_prompt(self, ids: Iterable[int]) -> None:
        """Note the tokens of the prompt, in order: they enter the windows of the penalties, and a
        constraint knows nothing of them."""
        ids = list(ids)
        for window in self._windows:
            window.extend(ids)

    def accept(self, ids: Iterable[int]) -> None:
        """Note tokens of the answer, in order: they go on with the constraint, then enter the
        windows of the penalties. `sample` does not do so by itself."""
        ids = list(ids)
        if self._constraint is not None:
            for token_id in ids:
                self._constraint.accept(token_id)
        for window in self._windows:
            window.extend(ids)

    def sample(self, logits: NDArray[np.float32]) -> int:
        """The id of the next token, from *logits* (n_vocab,) float32.

        With a constraint the token is drawn as without one, and only if it is not allowed drawn
        again, with new random numbers, from the tokens that are: most often a whole mask of the
        vocabulary is never made. The distribution is thus not that of masking first, except at
        temperature 0.

        The row is written to on the way and is as before on return. Raises BackendError if it
        holds NaN or +inf, if no token is left (every logit -inf), or if the constraint allows none
        that is left.
        """
        # The same object in all likelihood, and comparing types costs as much as an argmax.
        is_float32 = logits.dtype is _FLOAT32 or logits.dtype == _FLOAT32
        if not is_float32 or logits.shape != self._shape:
            raise BackendError(
                f"expected logits of shape {self._shape} and type float32, got {logits.shape} "
                f"and {logits.dtype}"
            )
        token = self._sample(logits)
        if self._constraint is None or self._constraint.allows(token):
            return token
        self._is_masked = True
        try:
            return self._sample(self._only_legal(logits, self._constraint.mask()))
        finally:
            self._is_masked = False

    def _only_legal(
        self, logits: NDArray[np.float32], allowed: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """A copy of the row with -inf for every token that is not allowed, in memory that is kept
        for the next time."""
        if self._legal is None:
            self._legal = np.empty_like(logits)
        self._legal.fill(-math.inf)
        np.copyto(self._legal, logits, where=allowed)
        return self._legal

    def _choose_edited(self, row: NDArray[np.float32]) -> int:
        ids, amounts = self._bias
        with Edits(row) as edits:
            if self._banned:
                edits.ban(ids)
            else:
                edits.change(ids, np.add, amounts)
            for concerned, effect in self._penalties:
                ids, numbers = concerned()
                edits.change(ids, effect, numbers)
            return self._choose(row)

    def _greedy(self, row: NDArray[np.float32]) -> int:
        best = int(row.argmax())
        top = row.item(best)  # NaN if any is: argmax gives its position
        if not -math.inf < top < math.inf:
            self._check_top(top)
        if best in self._banned:
            return self._choose_edited(row)
        if self._kept is not None:
            self._last = of_one(best, self._kept)
        return best

    def _draw_from_few(self, row: NDArray[np.float32]) -> int:
        params = self._params
        banned, k = self._banned, params.top_k
        wanted = k + len(banned)
        found = shortlist(row, wanted)
        if found.size > 4 * wanted:  # many equal logits
            self._check_top(float(row[found].max()))
            found = found[largest(row[found], wanted)]
        few = row[found]
        order = descending(few)
        ids: list[int] = found[order].tolist()
        logits: list[float] = few[order].tolist()
        self._check_top(logits[0])
        if banned and not banned.isdisjoint(ids):
            left = [pair for pair in zip(ids, logits, strict=True) if pair[0] not in banned]
            ids, logits = [pair[0] for pair in left], [pair[1] for pair in left]
            self._check_top(logits[0])
        del logits[k:]
        position = choose_few(
            logits,
            top_p=self._top_p,
            min_p=self._min_p,
            temperature=self._heat.t,
            u=self._uniform(),
        )
        return ids[position]

    def _draw(self, row: NDArray[np.float32]) -> int:
        self._check_top(float(row.max()))
        left = chain.run(self._steps, Candidates(None, row))
        if isinstance(left, Few):
            heat = self._heat.of_few(left)
            token = left.ids[left.draw(self._uniform(), heat)]
            if self._kept is not None:
                self._last = of_few(left, heat, token, self._kept)
            return token
        left, heat = self._heat.of(left)
        token = dist(left, self._uniform(), heat)
        if self._kept is not None:
            self._last = of_candidates(left, heat, token, self._kept)
        return token

    def _draw_mirostat(self, row: NDArray[np.float32]) -> int:
        assert self._mirostat is not None
        self._check_top(float(row.max()))
        token, left = self._mirostat.choose(Candidates(None, row))
        if self._kept is not None:
            self._last = of_candidates(left, 1.0, token, self._kept)
        return token

    def _check_top(self, top: float) -> None:
        if -math.inf < top < math.inf:
            return
        if top != -math.inf:
            raise not_finite(top)
        why = " of the tokens that the constraint allows" if self._is_masked else ""
        raise BackendError(f"no token is left to choose: every logit{why} is -inf")
