"""Samplers: makes the sampler of an answer, with all that it needs of the model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..sampling import BreakerTable, Sampler, needs_breakers

if TYPE_CHECKING:
    from ..backends.base import Runtime
    from ..sampling import Constraint, SamplingParams
    from ..sampling.constraint import CompiledConstraint

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

    def compile(self, params: SamplingParams) -> CompiledConstraint | None:
        """The constraint of a request. Raises InvalidRequest and Unsupported naming what is wrong
        with its grammar or schema."""
        if not params.grammar and params.json_schema is None:
            return None
        from ..sampling.constraint import compile_constraint  # few requests have one

        self._constrained = True
        return compile_constraint(params, self._vocabulary)

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
