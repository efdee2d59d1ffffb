"""Admission: the jobs that wait, who of them gets a slot next, and the cleanings between them."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cleaning import CleaningPolicy
    from .job import Job, Work
    from .seating import Seating
    from .slots import Slot, SlotTable

__all__ = ["Admission"]


class Admission:
    """Gives idle slots to waiting jobs, in the order of arrival. Used by the scheduler's thread.

    A job that asked for a busy slot waits for it and lets those behind it pass: first come, first
    served for every slot. A due cleaning lets nobody pass.

    cells: tokens that all slots together may hold, None where each has room of its own. While
        others run a job waits until its prompt fits beside theirs.
    """

    def __init__(
        self,
        slots: SlotTable,
        seating: Seating,
        cleaning: CleaningPolicy,
        *,
        cont_batching: bool,
        cells: int | None,
    ) -> None:
        self._slots = slots
        self._seating = seating
        self._cleaning = cleaning
        self._cont_batching = cont_batching
        self._cells = cells
        self._waiting: deque[Job] = deque()
        self._clean_owed = False
        self._crowded = False  # somebody was set back; until a slot is given back nobody comes in

    def join(self, job: Job) -> None:
        """A job arrives."""
        if job.kind == "chat":
            job.clean_first = self._cleaning.chat_accepted()
        self._waiting.append(job)

    def leave(self, job: Job) -> None:
        """A job ends before it is done; nothing where it does not wait."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
        if job.clean_first:  # the cleaning it was to bring falls to the next chat
            self._clean_owed = True

    def set_back(self, work: Work) -> None:
        """Work lost its slot for want of room: it is the next to get one, as soon as another is
        given back. To let it in before would take the room from the others again."""
        job = work.job
        if not job.waiting:
            self._waiting.appendleft(job)
        job.put_back(work)
        self._crowded = True

    def slot_given_back(self) -> None:
        self._crowded = False

    def admit(self) -> None:
        """Seat whoever can be seated now."""
        if not self._waiting or self._crowded:
            return
        if not self._cont_batching and self._slots.decoding():
            return
        idle = self._slots.idle()
        passed: list[Job] = []
        while idle and self._waiting:
            job = self._waiting[0]
            if self._must_clean(job):
                if len(idle) < len(self._slots):
                    break
                self._clean(job)
            candidates = self._candidates(job, idle)
            if not candidates:
                passed.append(self._waiting.popleft())
                continue
            work = job.take()
            if not self._fits(work):
                job.put_back(work)
                break
            self._waiting.popleft()
            idle.remove(self._seating.seat(work, candidates))
            if job.waiting:
                self._waiting.append(job)
        self._waiting.extendleft(reversed(passed))

    def clear_idle(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Empty the KV cache of every idle slot. Returns the slots cleared and the busy ones."""
        idle = self._slots.idle()
        for slot in idle:
            self._slots.clear(slot)
        self._cleaning.reset()
        return (
            tuple(slot.number for slot in idle),
            tuple(slot.number for slot in self._slots if not slot.idle),
        )

    def _candidates(self, job: Job, idle: list[Slot]) -> list[Slot]:
        wanted = job.id_slot
        if wanted < 0:
            return idle
        return [slot for slot in idle if slot.number == wanted]

    def _fits(self, work: Work) -> bool:
        """Whether the prompt fits beside what runs. Answers that grow may still meet their end."""
        if self._cells is None:
            return True
        busy = [slot for slot in self._slots if not slot.idle]
        if not busy:
            return True
        taken = sum(slot.cells for slot in busy)
        return taken + len(work.prompt) + 1 - self._seating.saved(work, busy) <= self._cells

    def _must_clean(self, job: Job) -> bool:
        return job.clean_first or (self._clean_owed and job.kind == "chat")

    def _clean(self, job: Job) -> None:
        for slot in self._slots:
            self._slots.clear(slot)
        self._cleaning.cleaned()
        self._clean_owed = job.clean_first = False
