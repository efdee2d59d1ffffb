"""Slots: the seats in the running batch, each with the record of what its KV cache holds, and the
table of them that keeps every record true."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from . import prefix_cache
from .job import clock
from .request import SlotStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..backends.base import CopyingRuntime, Feed, Runtime, ShiftingRuntime
    from ..errors import BackendError
    from .job import Job, Work
    from .room import Discard

__all__ = ["Slot", "SlotTable"]


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the runtime. Written by the scheduler thread alone.

    tokens: exactly what the runtime's sequence holds: `len(tokens) == runtime.length(number)`
        between any two steps. It is the key of the prefix cache.
    work: what runs here, None when idle.
    last_used: the turn in which it was last taken; 0 is never.
    since: when that was, on the job clock.
    """

    number: int
    tokens: list[int] = field(default_factory=list)
    work: Work | None = None
    last_used: int = 0
    since: float = 0.0

    @property
    def idle(self) -> bool:
        return self.work is None

    @property
    def decoding(self) -> bool:
        """Whether the prompt is evaluated in full and single tokens follow."""
        return self.work is not None and len(self.tokens) >= len(self.work.prompt)

    def status(self) -> SlotStatus:
        """May be called from any thread: `work` is read once."""
        work, held = self.work, len(self.tokens)
        if work is None:
            return SlotStatus(slot=self.number, state="idle", cached_tokens=held)
        state = "prefill" if held < len(work.prompt) else "decode"
        return SlotStatus(slot=self.number, state=state, cached_tokens=held)  # type: ignore[arg-type]


class SlotTable:
    """All slots of a runtime. Between any two calls each slot's `tokens` are what its sequence
    holds: whatever changes the one changes the other, here and nowhere else."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._slots = [Slot(number) for number in range(runtime.n_seq)]
        self._turn = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def idle(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.idle]

    def decoding(self) -> bool:
        return any(slot.decoding for slot in self._slots)

    def of(self, job: Job) -> list[Slot]:
        """The slots in which a job runs."""
        return [slot for slot in self._slots if slot.work is not None and slot.work.job is job]

    def seat(self, work: Work, candidates: Sequence[Slot]) -> Slot:
        """Put work into the best of some idle slots, and keep what it shares with the record."""
        if work.donor is None:
            slot, cached = prefix_cache.choose(candidates, work.prompt, work.reuse)
            self._keep(slot, cached)
        else:
            slot, cached = self._beside(self._slots[work.donor], work, candidates)
        work.start(slot.number, cached)
        self._turn += 1
        slot.last_used, slot.since = self._turn, clock()
        slot.work = work
        return slot

    def _beside(self, donor: Slot, work: Work, candidates: Sequence[Slot]) -> tuple[Slot, int]:
        """A slot that has been given what the donor's holds of the prompt."""
        shared = prefix_cache.shared(donor, work.prompt)
        if donor in candidates:
            self._keep(donor, shared)
            return donor, shared
        slot, _ = prefix_cache.choose(candidates, work.prompt, reuse=False)
        self._keep(slot, 0)
        if shared:
            cast("CopyingRuntime", self._runtime).copy(donor.number, slot.number, shared)
            slot.tokens.extend(work.prompt[:shared])
        return slot, shared

    def _keep(self, slot: Slot, n: int) -> None:
        if n < len(slot.tokens):
            self._runtime.keep(slot.number, n)
            del slot.tokens[n:]

    def shift(self, slot: Slot, discard: Discard) -> None:
        """Take tokens out of the middle of a slot at work.

        A runtime that can, moves what comes after them. Positions then are no longer those of an
        evaluation from the beginning, so the record must not serve others. Any other runtime gets
        what comes after them to evaluate again, together with the token that is to be fed.
        """
        work, (start, end) = slot.work, discard
        assert work is not None
        if "shift" in self._runtime.capabilities:
            cast("ShiftingRuntime", self._runtime).shift(slot.number, start, end)
            del slot.tokens[start:end]
            work.leaves_record = False
            work.shifted(list(slot.tokens), 0)
            return
        tokens = slot.tokens[:start] + slot.tokens[end:] + [work.next_token]
        self._keep(slot, start)
        work.shifted(tokens, len(tokens) - 1 - start)

    def free(self, slot: Slot) -> None:
        """Take the work out. The record stays for later prompts, unless it must not serve them."""
        work, slot.work = slot.work, None
        if work is not None and not work.leaves_record:
            self.clear(slot)

    def clear(self, slot: Slot) -> None:
        """Empty the KV cache and the record of an idle slot."""
        if slot.tokens:
            self._runtime.keep(slot.number, 0)
            slot.tokens.clear()
        slot.last_used = 0  # an empty slot is as good as any other

    def record(self, feeds: list[Feed], error: BackendError | None) -> tuple[list[Feed], set[int]]:
        """Note what a decode evaluated. Returns the feeds that were evaluated and the numbers of
        the slots that failed, which are empty now. What is neither of both was not touched, and
        can be fed again."""
        failed: set[int] = set()
        if error is not None:
            fed = {feed.seq for feed in feeds}
            failed = fed & set(getattr(error, "failed", None) or fed) or fed
            for number in failed:
                self._slots[number].tokens.clear()
                if self._runtime.length(number):
                    self._runtime.keep(number, 0)
            feeds = [feed for feed in feeds if feed.seq not in failed and self._arrived(feed)]
        for feed in feeds:
            self._slots[feed.seq].tokens.extend(feed.tokens)
        return feeds, failed

    def reset(self) -> None:
        """Empty everything, whatever the state; raises what the runtime raises."""
        for slot in self._slots:
            slot.work = None
            slot.tokens.clear()
            self._runtime.keep(slot.number, 0)

    def _arrived(self, feed: Feed) -> bool:
        return self._runtime.length(feed.seq) > len(self._slots[feed.seq].tokens)
