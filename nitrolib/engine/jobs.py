"""Jobs: the unfinished jobs of a loop, and whether more may come."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..errors import BackendError, ModelNotLoaded, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .counters import Counters
    from .job import Job

__all__ = ["Jobs"]


class Jobs:
    """What was submitted and has not ended. Every method from any thread.

    places: jobs that may be here at once.
    """

    def __init__(self, places: int, counters: Counters) -> None:
        self.places = places
        self._counters = counters
        self._lock = threading.Lock()
        self._jobs: dict[Job, None] = {}
        self._open = True
        self._broken = False

    def __contains__(self, job: object) -> bool:
        return job in self._jobs

    def __iter__(self) -> Iterator[Job]:
        with self._lock:
            return iter(list(self._jobs))

    def __len__(self) -> int:
        return len(self._jobs)

    def enter(
        self, jobs: tuple[Job, ...], queue: Callable[[], None], *, running: int, turn_s: float
    ) -> None:
        """Take jobs in, all of them or none, and call `queue` before anything else happens here.

        Raises ModelNotLoaded after `close`, BackendError after `fail`, and Overloaded when there
        are not places enough: `running` of those here do not wait, and one ends in `turn_s`.
        """
        with self._lock:
            self._check_open()
            if self._broken:
                raise BackendError("the native engine failed; unload and load the model again")
            if len(self._jobs) + len(jobs) > self.places:
                waiting = max(len(self._jobs) - running, 0)
                raise Overloaded(queue_size=waiting, retry_after_s=max(1.0, turn_s))
            self._jobs.update(dict.fromkeys(jobs))
            queue()

    def ask(self, queue: Callable[[], None]) -> None:
        """Call `queue` while the loop still reads what it puts down. Raises ModelNotLoaded."""
        with self._lock:
            self._check_open()
            queue()

    def remove(self, job: Job) -> bool:
        """A job ends. False when it had ended before."""
        with self._lock:
            if job not in self._jobs:
                return False
            del self._jobs[job]
        spent = job.spent()
        if spent is not None:
            self._counters.ended(spent)
        return True

    def close(self) -> None:
        """Nothing comes in any more."""
        with self._lock:
            self._open = False

    def fail(self) -> None:
        """The runtime is beyond use."""
        with self._lock:
            self._broken = True

    def _check_open(self) -> None:
        if not self._open:
            raise ModelNotLoaded()
