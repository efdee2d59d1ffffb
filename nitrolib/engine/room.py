"""Room: how many tokens an answer may still have, and what leaves a full context to make more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..backends.base import Runtime
    from .request import GenerationRequest

__all__ = ["Discard", "Room", "plan_shift"]


class Discard(NamedTuple):
    """The tokens of a slot from position `start` up to `end`, `end` not included."""

    start: int
    end: int


class Room:
    """The tokens of one answer against its `max_tokens` and the context of its slot.

    A prompt of P tokens leaves n_ctx - P: the last sampled token need not be fed.

    limit: most tokens the answer may have.
    until: sampled tokens at which `make` has to be asked: the limit, or a full context.
    truncated: whether the context was full.
    dropped: tokens that shifts took out of the slot.
    """

    def __init__(self, request: GenerationRequest, prompt: int, runtime: Runtime) -> None:
        self._shifts = request.context_policy == "shift"
        self._n_keep = request.n_keep
        self._add_bos = runtime.vocabulary.add_bos
        self._n_ctx, self._prompt = runtime.n_ctx, prompt
        self._full_at = runtime.n_ctx - prompt
        asked = request.params.max_tokens
        self._asked = sys.maxsize if asked is None else asked
        self.limit = self._asked if self._shifts else min(self._asked, self._full_at)
        self.until = min(self.limit, self._full_at)
        self.truncated = False
        self.dropped = 0
        self._times = self._evaluated = self._kept = 0
        self._crowded = False

    def make(self, sampled: int) -> Discard | None:
        """What has to go so that the answer can go on after `sampled` tokens; None if it ends."""
        if sampled < self._full_at:
            return None
        if self._shifts and sampled >= self.limit:  # a shift would have made room
            return None
        self.truncated = True
        if not self._shifts:
            return None
        held = self._prompt + sampled - 1 - self.dropped
        return plan_shift(held, self._n_ctx, self._prompt, self._n_keep, add_bos=self._add_bos)

    def shifted(self, discard: Discard, evaluated: int) -> None:
        """It was done, and `evaluated` tokens have to be evaluated again."""
        gone = discard.end - discard.start
        self._kept = discard.start
        self._times += 1
        self._evaluated += evaluated
        self.dropped += gone
        self._full_at += gone
        self.until = min(self.limit, self._full_at)

    def crowded(self) -> None:
        """The KV cache of all slots together is full, before the context of this one is."""
        self.truncated = self._crowded = True

    def notes(self) -> tuple[str, ...]:
        """What a Completion says of it."""
        crowded = ("the answer was cut: the KV cache has no room for more",)
        return self._shift_notes() + (crowded if self._crowded else ())

    def _shift_notes(self) -> tuple[str, ...]:
        if not self._times:
            return ()
        again = f", {self._evaluated} evaluated again" if self._evaluated else ""
        return (
            f"the context was full (shifts: {self._times}): {self.dropped} tokens after the first "
            f"{self._kept} were dropped{again}",
        )


def plan_shift(held: int, n_ctx: int, prompt: int, n_keep: int, *, add_bos: bool) -> Discard | None:
    """What to discard of `held` tokens in a context of `n_ctx`, as llama.cpp's server does; None
    when nothing can go.

    The first `n_keep` tokens stay, -1 being the whole prompt, and one more where the model puts BOS
    in front; at most all but four of the context. Half of the rest goes, the older half.
    """
    keep = (prompt if n_keep < 0 else n_keep) + add_bos
    keep = max(min(keep, n_ctx - 4, held), 0)
    discard = (held - keep) // 2
    return Discard(keep, keep + discard) if discard > 0 else None
