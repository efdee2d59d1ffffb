"""Slots: the seats in the running batch, each with the record of what its KV cache holds, and the
table of them that keeps every record true."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from ..backends.base import Interrupted, NoRoom
from .job import clock
from .slot_state import SlotState
from .status import SlotStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..backends.base import CopyingRuntime, Feed, Runtime, ShiftingRuntime, StatefulRuntime
    from ..errors import BackendError
    from .job import Job, Work
    from .room import Discard

__all__ = ["Follow", "Slot", "SlotTable"]


class Follow(NamedTuple):
    """What work waits for before it begins: that `work` has evaluated the first `length` tokens of
    its prompt in `source`."""

    source: Slot
    work: Work
    length: int

    @property
    def pending(self) -> bool:
        return self.source.work is self.work and len(self.source.tokens) < self.length


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the runtime. Written by the scheduler thread alone.

    tokens: exactly what the runtime's sequence holds: `len(tokens) == runtime.length(number)`
        between any two steps. It is the key of the prefix cache.
    work: what runs here, None when idle.
    last_used: the turn in which it was last taken; 0 is never.
    since: when that was, on the job clock.
    lora: the strengths of the adapters that `tokens` were evaluated with.
    moved: whether tokens were moved: their positions are no longer those of an evaluation from the
        beginning, so the record must not serve others.
    borrowed: how many of the first tokens were copied from another slot, and take no room.
    follows: what `work` waits for, None when it runs.
    """

    number: int
    tokens: list[int] = field(default_factory=list)
    work: Work | None = None
    last_used: int = 0
    since: float = 0.0
    lora: tuple[float, ...] = ()
    moved: bool = False
    borrowed: int = 0
    follows: Follow | None = None

    @property
    def idle(self) -> bool:
        return self.work is None

    @property
    def decoding(self) -> bool:
        """Whether the prompt is evaluated in full and single tokens follow."""
        return self.work is not None and len(self.tokens) >= len(self.work.prompt)

    @property
    def cells(self) -> int:
        """Room that a slot at work takes once its prompt is evaluated, about: what was borrowed may
        have become its own."""
        assert self.work is not None
        borrowed = self.borrowed if self.follows is None else self.follows.length
        return max(len(self.tokens), len(self.work.prompt)) + 1 - borrowed

    def serves(self, lora: tuple[float, ...]) -> bool:
        """Whether what it holds is what an evaluation with these adapters would give."""
        leaves = self.work is None or self.work.leaves_record
        return leaves and not self.moved and self.lora == lora

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

    def busy(self) -> int:
        """How many slots are at work."""
        return sum(slot.work is not None for slot in self._slots)

    def decoding(self) -> bool:
        return any(slot.decoding for slot in self._slots)

    def of(self, job: Job) -> list[Slot]:
        """The slots in which a job runs."""
        return [slot for slot in self._slots if slot.work is not None and slot.work.job is job]

    # ---- taking and giving back ------------------------------------------------------------

    def take(self, slot: Slot, work: Work) -> None:
        """Put work into an idle slot. What the slot holds stays, if it can serve that work."""
        if not slot.serves(work.lora):
            self._empty(slot)
        self._turn += 1
        slot.last_used, slot.since = self._turn, clock()
        slot.lora, slot.work = work.lora, work

    def free(self, slot: Slot) -> None:
        """Take the work out. The record stays for later prompts, unless it must not serve them."""
        work, slot.work, slot.follows = slot.work, None, None
        if slot.moved or (work is not None and not work.leaves_record):
            self.clear(slot)

    def set_back(self, slot: Slot) -> Work:
        """Take unfinished work out and empty the slot; the work goes on later, in any slot."""
        work = slot.work
        assert work is not None
        self.rewind(slot)
        self.free(slot)
        self.clear(slot)
        return work

    def rewind(self, slot: Slot) -> None:
        """Empty a slot at work, whose work will be fed again whatever it was fed."""
        work = slot.work
        assert work is not None
        if slot.decoding:
            work.resume([*slot.tokens, work.next_token])
        self._empty(slot)

    def clear(self, slot: Slot) -> None:
        """Empty the KV cache and the record of an idle slot."""
        self._empty(slot)
        slot.last_used = 0  # an empty slot is as good as any other

    def drop_oldest(self) -> bool:
        """Empty the idle slot that was used longest ago. False when none holds anything."""
        idle = [slot for slot in self._slots if slot.idle and slot.tokens]
        if idle:
            self.clear(min(idle, key=lambda slot: slot.last_used))
        return bool(idle)

    def reset(self) -> None:
        """Empty everything, whatever the state; raises what the runtime raises."""
        for slot in self._slots:
            slot.work = slot.follows = None
            slot.moved, slot.borrowed = False, 0
            slot.tokens.clear()
            self._runtime.keep(slot.number, 0)

    # ---- what sequences hold ---------------------------------------------------------------

    def keep(self, slot: Slot, n: int) -> int:
        """Forget all but the first `n` tokens. Returns how many are left: a model that cannot go
        back begins anew."""
        if n < len(slot.tokens):
            n = self._runtime.keep(slot.number, n)
            del slot.tokens[n:]
            slot.moved = slot.moved and n > 0
            slot.borrowed = min(slot.borrowed, n)
        return n

    def withdraw(self, slot: Slot, n: int) -> None:
        """Take the last `n` tokens out of a slot at work: its work goes on before them."""
        tokens = slot.tokens[:-n]
        if self.keep(slot, len(tokens)) < len(tokens):
            assert slot.work is not None
            slot.work.resume([*tokens, slot.work.next_token])

    def copy(self, source: Slot, target: Slot, n: int) -> None:
        """Make `target` the first `n` tokens of `source`."""
        if not n:
            self._empty(target)
            return
        cast("CopyingRuntime", self._runtime).copy(source.number, target.number, n)
        target.tokens[:] = source.tokens[:n]
        target.borrowed = n

    def shift(self, slot: Slot, discard: Discard) -> None:
        """Take tokens out of the middle of a slot at work.

        A runtime that can, moves what comes after them. Any other gets what comes after them to
        evaluate again, together with the token that is to be fed.
        """
        work, (start, end) = slot.work, discard
        assert work is not None
        if "shift" in self._runtime.capabilities:
            cast("ShiftingRuntime", self._runtime).shift(slot.number, start, end)
            del slot.tokens[start:end]
            slot.moved = True
            work.resume(list(slot.tokens))
            work.shifted(0)
            return
        tokens = slot.tokens[:start] + slot.tokens[end:] + [work.next_token]
        left = self.keep(slot, start)
        work.resume(tokens)
        work.shifted(len(tokens) - 1 - left)

    def save(self, slot: Slot) -> SlotState:
        """What an idle slot holds. Needs the capability "state"."""
        state = cast("StatefulRuntime", self._runtime).save(slot.number)
        return SlotState(tokens=tuple(slot.tokens), state=state, lora=slot.lora)

    def restore(self, slot: Slot, saved: SlotState) -> None:
        """Make an idle slot hold what was saved. Raises InvalidRequest for what does not fit, and
        leaves the slot empty."""
        self.clear(slot)
        if not saved.tokens:
            return
        cast("StatefulRuntime", self._runtime).restore(slot.number, saved.state, saved.tokens)
        slot.tokens.extend(saved.tokens)
        slot.lora = saved.lora
        self._turn += 1
        slot.last_used = self._turn

    def record(
        self, feeds: Sequence[Feed], error: BackendError | None
    ) -> tuple[Sequence[Feed], set[int]]:
        """Note what a decode evaluated. Returns the feeds that were evaluated and the numbers of
        the slots that failed, which are empty now. What is neither of both was not touched, and
        can be fed again."""
        failed: set[int] = set()
        if error is not None:
            feeds, failed = self._record_error(feeds, error)
        for feed in feeds:
            self._slots[feed.seq].tokens.extend(feed.tokens)
        return feeds, failed

    def extend(self, slots: Sequence[Slot], tokens: Sequence[int]) -> None:
        """Note that one more token of each slot was evaluated."""
        for slot, token in zip(slots, tokens, strict=True):
            slot.tokens.append(token)

    def _record_error(
        self, feeds: Sequence[Feed], error: BackendError
    ) -> tuple[Sequence[Feed], set[int]]:
        if isinstance(error, NoRoom):
            return (), set()
        if isinstance(error, Interrupted):
            for number in getattr(error, "emptied", ()):
                self.rewind(self._slots[number])
            return (), set()
        fed = {feed.seq for feed in feeds}
        failed = fed & set(getattr(error, "failed", None) or fed) or fed
        for number in failed:
            self._slots[number].tokens.clear()
            if self._runtime.length(number):
                self._runtime.keep(number, 0)
        arrived = [feed for feed in feeds if feed.seq not in failed and self._arrived(feed)]
        return arrived, failed

    def _arrived(self, feed: Feed) -> bool:
        return self._runtime.length(feed.seq) > len(self._slots[feed.seq].tokens)

    def _empty(self, slot: Slot) -> None:
        slot.moved, slot.borrowed = False, 0
        if slot.tokens:
            self._runtime.keep(slot.number, 0)
            slot.tokens.clear()
