"""Samplers: makes the sampler of an answer, with all that it needs of the model."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from ..sampling import BreakerTable, Sampler, needs_breakers
from .triggered import Spelling, TriggeredConstraint

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backends.base import Runtime
    from ..sampling import Constraint, SamplingParams
    from .request import GenerationRequest

__all__ = ["Samplers"]


class Samplers:
    """For one model. Every method may be called from any thread while the runtime is open; what is
    compiled for a request is kept and serves the next."""

    def __init__(self, runtime: Runtime) -> None:
        self._vocabulary = vocabulary = runtime.vocabulary
        self._n_ctx = runtime.n_ctx
        self._breakers = BreakerTable(
            vocabulary.pieces, partial(runtime.tokenize, space_prefix=False), vocabulary.special
        )
        self._constrained = False

    def compile(self, request: GenerationRequest) -> Callable[[], Constraint] | None:
        """What makes the constraint of each answer to a request. Raises InvalidRequest and
        Unsupported naming what is wrong with its grammar, schema or tools."""
        params = request.params
        if not params.grammar and params.json_schema is None and request.constraint is None:
            return None
        from ..sampling.constraint import compile_constraint, compile_source  # few requests do

        self._constrained = True
        if request.constraint is None:
            compiled = compile_constraint(params, self._vocabulary)
            return None if compiled is None else compiled.start
        calls = compile_source("lark", request.constraint, self._vocabulary, "tools")
        if request.trigger is None:
            return calls.start
        return partial(TriggeredConstraint, calls.start, request.trigger, self._spelling)

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling(self._vocabulary)

    def make(self, params: SamplingParams, constraint: Constraint | None) -> Sampler:
        """A sampler that has seen no token. Raises as Sampler and `BreakerTable.compile` do."""
        return Sampler(
            params,
            self._vocabulary.n_vocab,
            self._n_ctx,
            tuple(self._vocabulary.eog) if params.ignore_eos else (),
            constraint=constraint,
            breakers=self._breakers.compile(params.dry_sequence_breakers)
            if needs_breakers(params)
            else None,
            keep_survivors=params.n_probs if params.post_sampling_probs else None,
        )

    def forget(self) -> None:
        """Drop what was compiled for the model, which is going."""
        if self._constrained:
            from ..sampling.constraint import forget

            forget(self._vocabulary)
