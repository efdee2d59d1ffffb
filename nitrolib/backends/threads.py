"""How many native threads may run: the cores of this process, a budget over all runtimes, and the
few worker threads that evaluate sequences side by side.

The native library waits by spinning: one thread more than there are cores makes an evaluation
hundreds of times slower. So the threads of all runtimes of a process share one budget.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from .cgroup import cpu_quota

if TYPE_CHECKING:
    from collections.abc import Callable


def available_cores() -> int:
    """Cores this process may use: its affinity, and a container's quota rounded down; at least
    1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        count = getattr(os, "process_cpu_count", os.cpu_count)
        cores = count() or 1
    quota = cpu_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def choose_threads(asked: int | None, cores: int) -> int:
    """Native threads of one runtime: `asked`, or all cores but one, which is for the rest of the
    program. Raises InvalidRequest for more threads than `cores`."""
    if asked is None:
        return max(1, cores - 1)
    if not 1 <= asked <= cores:
        raise InvalidRequest(
            f"threads {asked} is more than the {cores} cores this process may use, and native "
            "threads that outnumber the cores are hundreds of times slower",
            field="threads",
            value=asked,
            allowed=f"1 to {cores}",
        )
    return asked


class ThreadBudget:
    """Permits for native threads, `cores` in all. First come, first served: nobody starves."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.reset()

    def reset(self) -> None:
        """Forget every permit: only for the child of a fork, where those threads are gone."""
        self._lock = threading.Lock()
        self._free = self.cores
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    def acquire(self, threads: int) -> None:
        """Wait for `threads` permits; never more than `cores`, or it would wait for ever."""
        with self._lock:
            if self._free >= threads and not self._waiting:
                self._free -= threads
                return
            assert threads <= self.cores
            gate = threading.Lock()
            gate.acquire()
            ticket = (threads, gate)
            self._waiting.append(ticket)
        try:
            gate.acquire()
        except BaseException:  # an interrupt while waiting: take back the ticket or the permits
            with self._lock:
                granted = ticket not in self._waiting
                if not granted:
                    self._waiting.remove(ticket)
                    self._grant()
            if granted:
                self.release(threads)
            raise

    def release(self, threads: int) -> None:
        """Give back what `acquire` got."""
        with self._lock:
            self._free += threads
            if self._waiting:
                self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            threads, gate = self._waiting.popleft()
            self._free -= threads
            gate.release()


_budget: ThreadBudget | None = None
_budget_lock = threading.Lock()


def process_budget() -> ThreadBudget:
    """The budget all runtimes of this process share; the cores are counted at the first call."""
    global _budget
    with _budget_lock:
        if _budget is None:
            _budget = ThreadBudget(available_cores())
        return _budget


class Workers:
    """Threads that help the calling one. They start at the first use and are gone after `close`
    (and after a fork, when a fresh object is needed)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[tuple[Callable[[], None], SimpleQueue[None]] | None] = (
            SimpleQueue()
        )
        self._threads: list[threading.Thread] = []

    def run(self, task: Callable[[], None], copies: int) -> None:
        """Run `task` in the calling thread and in `copies - 1` others, and return when all have.

        `task` must not raise in the others; what it raises in the caller (an interrupt) is
        raised here, after the others are done.
        """
        finished: SimpleQueue[None] = SimpleQueue()
        helpers = copies - 1
        while len(self._threads) < helpers:
            thread = threading.Thread(
                target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        for _ in range(helpers):
            self._tasks.put((task, finished))
        interrupt: BaseException | None = None
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - raised again below
            interrupt = error
        while helpers:
            try:
                finished.get()
                helpers -= 1
            except BaseException as error:  # noqa: BLE001, PERF203 - raised again below
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _work(self) -> None:
        while (entry := self._tasks.get()) is not None:
            task, finished = entry
            try:
                task()
            finally:
                finished.put(None)
            del entry, task, finished  # an idle thread keeps nothing alive

    def close(self) -> None:
        """End the threads and wait for them."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
