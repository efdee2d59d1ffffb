"""Choices: several answers to one prompt, which is evaluated once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from ..backends.base import Runtime
    from .request import GenerationRequest

__all__ = ["Choices", "check_count", "each", "seed_of"]

_SEEDS = 2**32 - 1  # the last one, 2**32 - 1, stands for a fresh draw


class Choices:
    """What the sequences of one prompt know of each other.

    Whichever runs first evaluates the prompt. The others wait for its slot and go on from what it
    holds there, one after another; where the runtime copies sequences, each takes any free slot as
    soon as the prompt is evaluated, with a copy. Used by the scheduler's thread alone.

    slot: where the prompt is, -1 before anyone has run.
    """

    def __init__(self, request: GenerationRequest, runtime: Runtime) -> None:
        self._asked = request.id_slot
        self._copies = request.id_slot < 0 and "copy" in runtime.capabilities
        self._evaluated = False
        self.slot = -1

    @property
    def id_slot(self) -> int:
        """The slot in which the next of them must run, -1 for any."""
        if self.slot < 0:
            return self._asked
        return -1 if self.donor is not None else self.slot

    @property
    def donor(self) -> int | None:
        """The slot to copy the prompt from."""
        return self.slot if self._copies and self._evaluated else None

    def seated(self, slot: int) -> None:
        if not self._evaluated:
            self.slot = slot

    def evaluated(self) -> None:
        self._evaluated = True


def each(request: GenerationRequest, n: int) -> list[GenerationRequest]:
    """The requests of `n` choices. They differ in their seeds; only the first counts as a chat."""
    seed = request.params.seed
    return [request] + [
        replace(
            request,
            params=replace(request.params, seed=seed_of(seed, index)),
            kind="completion" if request.kind == "chat" else request.kind,
        )
        for index in range(1, n)
    ]


def seed_of(seed: int, index: int) -> int:
    """The seed of choice `index`: so many above the first one's, round the end of the 32-bit seeds
    and past the one that stands for a fresh draw. A seed that is itself a fresh draw stays so."""
    seed %= 2**32
    return -1 if seed == _SEEDS else (seed + index) % _SEEDS


def check_count(n: int, places: int) -> None:
    """Raise InvalidRequest for a number of choices that could never be queued."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= places:
        raise InvalidRequest(
            f"n must be a whole number from 1 to {places}, got {n!r}",
            field="n",
            value=n,
            allowed=f"1 to {places}: the slots, and as many as may wait",
        )
