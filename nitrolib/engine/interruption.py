"""Interruption: ends a native decode early when somebody it works for is gone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .alarm import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .job import Job

__all__ = ["Interruption"]


class Interruption:
    """A prompt may keep the native library busy for seconds. Where it can be interrupted, by
    calling `interrupt`, a request is cancelled, or meets its deadline, within milliseconds
    nevertheless: what was evaluated meanwhile is lost, and the others are fed again. A step that
    only decodes is not worth that: it ends soon by itself.

    `before` and `after` belong to the thread that evaluates and frame each decode.

    possible: whether it can be interrupted.
    """

    def __init__(self, interrupt: Callable[[], None] | None) -> None:
        self._call = interrupt
        self.possible = interrupt is not None
        self._jobs: frozenset[Job] = frozenset()  # whose prompts are being evaluated
        self._loop = 0  # the thread that evaluates
        self._alarm = Alarm(self._interrupt)

    def before(self, jobs: Iterable[Job]) -> None:
        """A decode will evaluate parts of the prompts of `jobs`."""
        if not self.possible:
            return
        self._loop = threading.get_ident()
        self._jobs = frozenset(jobs)
        deadlines = [job.deadline for job in self._jobs if job.deadline is not None]
        if deadlines:
            self._alarm.set(min(deadlines))

    def after(self) -> None:
        """It has returned."""
        if self._jobs:
            self._alarm.unset()
            self._jobs = frozenset()

    def leaves(self, job: Job) -> None:
        """Nobody waits for that job any more. From any thread, perhaps a garbage collection: takes
        no lock."""
        if job in self._jobs:
            self._interrupt()

    def everything(self) -> None:
        """Nobody waits for anything any more. From any thread, as `leaves`."""
        if self.possible:
            self._interrupt()

    def close(self) -> None:
        """The runtime is about to be closed."""
        self.possible = False
        self._alarm.close()

    def _interrupt(self) -> None:
        if threading.get_ident() != self._loop:  # else a collection there: no decode runs
            assert self._call is not None
            self._call()
