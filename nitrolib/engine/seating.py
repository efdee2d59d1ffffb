"""Seating: puts work into slots, and gives it what any slot holds, or soon will, of its prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .prefix_cache import choose, coming, emptiest, held
from .slots import Follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backends.base import Runtime
    from .job import Work
    from .slots import Slot, SlotTable

__all__ = ["WORTH_COPYING", "Seating"]

WORTH_COPYING = 32
"""Tokens that have to be saved before work takes them from another slot: less is evaluated in one
small part of a step, and is not worth a copy or a step of waiting."""


class Place(NamedTuple):
    """A free slot for work, and the first `length` tokens of its prompt, from `source`: that slot,
    or another one to copy from. With `wait` they are being evaluated there and not all there."""

    slot: Slot
    source: Slot
    length: int
    wait: bool = False


class Seating:
    """Where the runtime copies sequences, what one slot holds serves all: a prompt goes on from the
    longest beginning of it that any slot holds, busy or idle. And when a busy one is evaluating a
    longer one right now, the work waits for it in its own slot instead of evaluating it too, so
    that what several prompts have in common is evaluated once, also when they come together.

    Without copies work goes to the slot that holds most of its prompt, and to no other.
    """

    def __init__(self, runtime: Runtime, slots: SlotTable) -> None:
        self._slots = slots
        self._copies = "copy" in runtime.capabilities

    def seat(self, work: Work, candidates: Sequence[Slot]) -> Slot:
        """Put work into the best of some idle slots."""
        place = self._find(work, candidates)
        self._slots.take(place.slot, work)
        work.seated(place.slot.number)
        self._settle(work, place)
        return place.slot

    def go_on(self) -> None:
        """Let those begin who waited for another slot, once it holds what they waited for or never
        will. They look for the best place to copy from anew: in the second case the next of them
        evaluates it, and the others wait for that one."""
        for slot in self._slots:
            follow = slot.follows
            if follow is not None and not follow.pending:
                assert slot.work is not None
                slot.follows = None
                self._settle(slot.work, self._find(slot.work, (slot,)))

    def saved(self, work: Work, slots: Sequence[Slot]) -> int:
        """Tokens of a prompt that could be copied from one of some slots, at once or soon."""
        if not self._copies or not work.reuse:
            return 0
        return max(_holder(slots, work)[1], _leader(slots, work)[1])

    def _settle(self, work: Work, place: Place) -> None:
        slot, source, length, wait = place
        if wait:
            assert source.work is not None
            self._slots.keep(slot, 0)
            slot.follows = Follow(source, source.work, length)
            return
        if source is slot:
            length = self._slots.keep(slot, length)
        else:
            self._slots.copy(source, slot, length)
        work.start(length)

    def _find(self, work: Work, candidates: Sequence[Slot]) -> Place:
        if work.donor is not None:
            donor = self._slots[work.donor]
            slot = donor if donor in candidates else emptiest(candidates)
            return Place(slot, donor, held(donor, work))
        others = [slot for slot in self._slots if slot.work is not work]
        if not self._copies or not work.reuse or not others:
            slot, length = choose(candidates, work)
            return Place(slot, slot, length)
        source, there = _holder(others, work)
        leader, future = _leader(others, work)
        if future - there >= WORTH_COPYING:
            return Place(emptiest(candidates), leader, future, wait=True)
        if there < WORTH_COPYING:
            slot, length = choose(candidates, work)
            return Place(slot, slot, length)
        slot = emptiest(candidates)
        if source in candidates and _lost(source, work) < max(_lost(slot, work), WORTH_COPYING):
            slot = source
        return Place(slot, source, there)


def _lost(slot: Slot, work: Work) -> int:
    """Tokens that a slot would lose to a prompt: few where that goes on what the slot holds, many
    where it is another conversation."""
    return len(slot.tokens) - held(slot, work)


def _holder(slots: Sequence[Slot], work: Work) -> tuple[Slot, int]:
    """The slot that holds most of a prompt, and how much: of equal ones that with the least beside
    it, then the one used longest ago."""
    lengths = [(held(slot, work), slot) for slot in slots]
    length, slot = max(lengths, key=lambda one: (one[0], -len(one[1].tokens), -one[1].last_used))
    return slot, length


def _leader(slots: Sequence[Slot], work: Work) -> tuple[Slot, int]:
    """The slot that will hold most of a prompt, and how much: of equal ones the first to begin."""
    lengths = [(coming(slot, work), slot) for slot in slots]
    length, slot = max(lengths, key=lambda one: (one[0], -one[1].last_used))
    return slot, length
