"""The loop: one thread owns the runtime, admits, feeds, samples and delivers, step by step.

Everything else talks to it through the inbox, a queue of functions that it runs between two steps.
Nothing polls: with nothing to run it sleeps until a message or the exact next deadline.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..backends.base import Feed
from ..errors import (
    BackendError,
    Cancelled,
    DeadlineExceeded,
    ModelNotLoaded,
    NitroError,
    Overloaded,
)
from .job import Job, MakeError, clock, enter_loop, refuse_in_loop
from .slots import SlotTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backends.base import Runtime
    from .cleaning import CleaningPolicy
    from .slots import Slot

__all__ = ["PREFILL_CHUNK", "Scheduler", "StopReason"]

StopReason = Literal["unload", "shutdown"]
T = TypeVar("T")
log = logging.getLogger(__name__)

PREFILL_CHUNK = 64
"""Prompt tokens in one step of a slot. Between two chunks the loop notices cancellation and
deadlines and gives decoding neighbours their token, so a chunk is the longest anybody waits.
Chunks are cut at fixed multiples from position 0, whatever runs beside them: native results depend
on how tokens are grouped, and a seeded request must give the same tokens alone and in company."""

_EXIT_PATIENCE_S = 10.0  # longest wait at interpreter exit for a native step to return


class Scheduler:
    """Runs jobs on a runtime, which it owns from here on and closes at the end."""

    def __init__(
        self,
        runtime: Runtime,
        cleaning: CleaningPolicy,
        *,
        max_queue: int,
        cont_batching: bool,
        before_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.runtime = runtime
        self.cleaning = cleaning
        self.slots = SlotTable(runtime)
        self._cont_batching = cont_batching
        self._before_close = before_close
        self._chunk = min(PREFILL_CHUNK, runtime.n_batch)
        self.places = runtime.n_seq + max_queue  # jobs that may be here at once
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # What the lock guards: `_accepting`, `_broken` and `_jobs`, all unfinished jobs.
        self._lock = threading.Lock()
        self._accepting = True
        self._broken: BackendError | None = None
        self._jobs: dict[Job, None] = {}
        # The rest belongs to the scheduler's thread.
        self._waiting: deque[Job] = deque()
        self._next_deadline = float("inf")
        self._clean_owed = False
        self._mean_s = 1.0  # what one turn in a slot took lately, for retry_after_s
        self._stop_reason: StopReason | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._main, name="nitrolib-scheduler", daemon=True)
        self._thread.start()
        _live.add(self)

    # ---- from any thread -------------------------------------------------------------------

    def submit(self, *jobs: Job) -> None:
        """Queue jobs, all of them or none. Raises Overloaded when more would wait than may,
        ModelNotLoaded after `stop`, BackendError when the runtime is beyond use."""
        with self._lock:
            if not self._accepting:
                raise ModelNotLoaded()
            if self._broken is not None:
                raise BackendError("the native engine failed; unload and load the model again")
            if len(self._jobs) + len(jobs) > self.places:
                raise Overloaded(
                    queue_size=max(len(self._jobs) - len(self.slots), 0),
                    retry_after_s=max(1.0, self._mean_s / len(self.slots)),
                )
            self._jobs.update(dict.fromkeys(jobs))
            self._inbox.put(partial(self._enqueue, jobs))

    def cancel(self, job: Job) -> None:
        """End a job at the next step. Takes no lock: it may be called by the garbage collector."""
        self._inbox.put(partial(self._cancel, job))

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the scheduler's thread between two steps and return what it returns."""
        refuse_in_loop()
        reply: Future[T] = Future()
        with self._lock:
            if not self._accepting:
                raise ModelNotLoaded()
            self._inbox.put(partial(_answer, reply, function))
        return reply.result()

    def clear_idle(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Empty the KV cache of every idle slot. Returns the slots cleared and the busy ones."""
        return self.call(self._clear_idle)

    def stop(self, reason: StopReason, timeout: float | None = None) -> None:
        """End every job, close the runtime, and wait for that. Safe to call twice."""
        if os.getpid() != self._pid:  # a forked child has neither the thread nor a usable lock
            return
        refuse_in_loop()
        with self._lock:
            self._accepting = False
        self.stop_soon(reason)
        self._thread.join(timeout)

    def stop_soon(self, reason: StopReason) -> None:
        """Ask for the end without waiting. Takes no lock, as `cancel`."""
        self._inbox.put(partial(self._stop, reason))

    def counts(self) -> tuple[int, int]:
        """How many slots are busy and how many jobs wait for one."""
        running = {work.job for slot in self.slots if (work := slot.work) is not None}
        busy = sum(not slot.idle for slot in self.slots)
        with self._lock:
            return busy, sum(job not in running for job in self._jobs)

    # ---- the loop --------------------------------------------------------------------------

    def _main(self) -> None:
        enter_loop()
        try:
            while self._stop_reason is None:
                self._guarded_cycle()
        finally:
            self._shut_down()

    def _guarded_cycle(self) -> None:
        try:
            self._cycle()
        except Exception as exc:  # noqa: BLE001 -- a fault of whoever's must strand nobody
            self._recover(exc)

    def _cycle(self) -> None:
        """One turn of the loop: schedule, run, record."""
        self._run_messages()
        if self._stop_reason is not None:
            return
        self._expire()
        self._admit()
        feeds = self._schedule()
        if not feeds:
            self._sleep()
            return
        error = self._run(feeds)
        self._record(feeds, error)

    def _run_messages(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()

    def _sleep(self) -> None:
        wait = min(max(self._next_deadline - clock(), 0.0), threading.TIMEOUT_MAX)
        try:
            message = self._inbox.get(timeout=wait)
        except Empty:
            return
        message()

    def _schedule(self) -> list[Feed]:
        """One token for every decoding slot in slot order, then prompt chunks: of all slots while
        none decodes, else of the one that was admitted first, so that neighbours of a decoding
        slot delay it by one chunk a token, however many they are."""
        feeds, prefilling = [], []
        for slot in self.slots:
            work = slot.work
            if work is None:
                continue
            if slot.decoding:
                feeds.append(Feed(slot.number, (work.next_token,)))
            else:
                prefilling.append(slot)
        if feeds and len(prefilling) > 1:
            prefilling = [min(prefilling, key=_last_used)]
        feeds.extend(self._next_chunk(slot) for slot in prefilling)
        return feeds

    def _next_chunk(self, slot: Slot) -> Feed:
        work = slot.work
        assert work is not None
        start = len(slot.tokens)
        end = (start // self._chunk + 1) * self._chunk
        tokens = work.prompt[start:end]
        return Feed(slot.number, tokens, work.output if end >= len(work.prompt) else "none")

    def _run(self, feeds: list[Feed]) -> BackendError | None:
        try:
            self.runtime.decode(feeds)
        except BackendError as error:
            return error
        return None

    def _record(self, feeds: list[Feed], error: BackendError | None) -> None:
        """Take the outputs of what was evaluated, and end what failed."""
        evaluated, failed = self.slots.record(feeds, error)
        for number in failed:
            work = self.slots[number].work
            if work is not None and error is not None:
                self._end(work.job, _always(error))
        for feed in evaluated:
            slot = self.slots[feed.seq]
            if feed.output != "none":
                self._advance(slot)
            elif slot.work is not None:
                slot.work.prefilled(len(slot.tokens))

    def _advance(self, slot: Slot) -> None:
        work = slot.work
        if work is None:  # its job has just ended through another of its slots
            return
        try:
            done = work.advance(self.runtime, slot.number)
        except NitroError as error:
            self._end(work.job, _always(error))
            return
        except Exception as exc:  # this request's own: its neighbours go on
            log.exception("a request failed")
            self._end(work.job, _always(_backend_error(exc)))
            return
        if not done:
            if work.discard is not None:
                self.slots.shift(slot, work.discard)
            return
        # The slot is free before the reader hears of the end: who has an answer finds it free.
        self.slots.free(slot)
        self._mean_s += 0.2 * (clock() - slot.since - self._mean_s)
        if work.job.finished:
            self._forget(work.job)
            _deliver(work.job, work.job.complete)

    # ---- admission -------------------------------------------------------------------------

    def _enqueue(self, jobs: tuple[Job, ...]) -> None:
        for job in jobs:
            if job in self._jobs:  # else it ended before it came here
                self._line_up(job)

    def _line_up(self, job: Job) -> None:
        if job.kind == "chat":
            job.clean_first = self.cleaning.chat_accepted()
        if job.deadline is not None:
            self._next_deadline = min(self._next_deadline, job.deadline)
        self._waiting.append(job)

    def _admit(self) -> None:
        """Give idle slots to waiting jobs, in the order of arrival.

        A job that asked for a busy slot waits for it and lets those behind it pass: first come,
        first served for every slot. A due cleaning lets nobody pass.
        """
        if not self._waiting or (self.slots.decoding() and not self._cont_batching):
            return
        idle = self.slots.idle()
        passed: list[Job] = []
        while idle and self._waiting:
            job = self._waiting[0]
            if self._must_clean(job):
                if len(idle) < len(self.slots):
                    break
                self._clean(job)
            self._waiting.popleft()
            wanted = job.id_slot
            if wanted >= 0 and not self.slots[wanted].idle:
                passed.append(job)
                continue
            candidates = [self.slots[wanted]] if wanted >= 0 else idle
            idle.remove(self.slots.seat(job.take(), candidates))
            if job.waiting:
                self._waiting.append(job)
        self._waiting.extendleft(reversed(passed))

    def _must_clean(self, job: Job) -> bool:
        return job.clean_first or (self._clean_owed and job.kind == "chat")

    def _clean(self, job: Job) -> None:
        for slot in self.slots:
            self.slots.clear(slot)
        self.cleaning.cleaned()
        self._clean_owed = job.clean_first = False

    def _clear_idle(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        idle = self.slots.idle()
        for slot in idle:
            self.slots.clear(slot)
        self.cleaning.reset()
        return (
            tuple(slot.number for slot in idle),
            tuple(slot.number for slot in self.slots if not slot.idle),
        )

    # ---- every other end -------------------------------------------------------------------

    def _cancel(self, job: Job) -> None:
        self._end(job, lambda partial: Cancelled("cancelled", reason="caller", partial=partial))

    def _expire(self) -> None:
        now = clock()
        if now < self._next_deadline:
            return
        with self._lock:
            jobs = [job for job in self._jobs if job.deadline is not None]
        for job in jobs:
            if job.deadline is not None and job.deadline <= now:
                self._end(job, _deadline)
        left = [job.deadline for job in jobs if job.deadline is not None and job.deadline > now]
        self._next_deadline = min(left, default=float("inf"))

    def _end(self, job: Job, make: MakeError) -> None:
        """End a job that is not done, wherever it is; nothing for one that is."""
        if not self._forget(job):
            return
        try:
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)
            if job.clean_first:  # the cleaning it was to bring falls to the next chat
                self._clean_owed = True
            for slot in self.slots.of(job):
                self.slots.free(slot)
        finally:
            _deliver(job, partial(job.end, make))

    def _forget(self, job: Job) -> bool:
        with self._lock:
            known = job in self._jobs
            self._jobs.pop(job, None)
        return known

    def _stop(self, reason: StopReason) -> None:
        if self._stop_reason is None:
            self._stop_reason = reason

    def _recover(self, exc: Exception) -> None:
        """End all requests and start over with empty slots; if even that fails, refuse requests
        until the model is loaded again."""
        log.error("the scheduler failed; all requests end", exc_info=exc)
        self._end_all(_always(_backend_error(exc)))
        try:
            self.slots.reset()
        except Exception as worse:
            log.error("the runtime cannot be reset", exc_info=worse)
            with self._lock:
                self._broken = _backend_error(worse)
            self._end_all(_always(_backend_error(exc)))

    def _end_all(self, make: MakeError) -> None:
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            try:
                self._end(job, make)
            except Exception:  # noqa: PERF203 -- the others still have to be ended
                log.exception("a slot could not be given back")

    def _shut_down(self) -> None:
        with self._lock:
            self._accepting = False
        reason = self._stop_reason or "shutdown"
        while not self._inbox.empty():  # somebody may wait for an answer
            with contextlib.suppress(Exception):
                self._inbox.get()()
        self._end_all(
            lambda partial: Cancelled(f"ended by {reason}", reason=reason, partial=partial)
        )
        try:
            self._before_close()
            self.runtime.close()
        except Exception:
            log.exception("closing the runtime failed")


def _last_used(slot: Slot) -> int:
    return slot.last_used


def _always(error: NitroError) -> MakeError:
    return lambda _partial: error


def _deadline(partial: Any) -> NitroError:
    return DeadlineExceeded("the request's timeout_s passed", partial=partial)


def _backend_error(exc: Exception) -> BackendError:
    error = BackendError(f"the engine failed: {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error


def _deliver(job: Job, end: Callable[[], None]) -> None:
    """Let a job tell its end. Nothing else will finish it any more, so whatever fails in that, its
    caller must not hang."""
    try:
        end()
    except Exception as exc:
        log.exception("a request could not be ended in order")
        job.outbox.finish(_backend_error(exc))


def _answer(reply: Future[T], function: Callable[[], T]) -> None:
    try:
        reply.set_result(function())
    except Exception as exc:  # noqa: BLE001 -- it belongs to the thread that asked
        reply.set_exception(exc)


_live: weakref.WeakSet[Scheduler] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """At interpreter exit the loops end in order: a native step must not outlive Python."""
    for scheduler in list(_live):
        scheduler.stop("shutdown", timeout=_EXIT_PATIENCE_S)
