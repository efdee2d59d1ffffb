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
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from ..backends.base import Feed, NoRoom
from ..errors import BackendError, NitroError
from .admission import Admission
from .counters import Counters
from .ending import always, by_caller, by_deadline, by_stop, deliver
from .interruption import Interruption
from .job import Job, MakeError, Work, clock, enter_loop, refuse_in_loop
from .jobs import Jobs
from .planning import Step, planner
from .post import Post
from .seating import Seating
from .slots import SlotTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backends.base import InterruptibleRuntime, RepeatingRuntime, RowsRuntime, Runtime
    from .cleaning import CleaningPolicy
    from .slots import Slot

__all__ = ["Scheduler", "StopReason"]

StopReason = Literal["unload", "shutdown"]
T = TypeVar("T")
log = logging.getLogger(__name__)

_EXIT_PATIENCE_S = 10.0  # longest wait at interpreter exit for a native step to return
_INTERRUPT_AGAIN_S = 0.01
_COUNT_AFTER = 16  # steps that are alike


class Scheduler:
    """Runs jobs on a runtime, which it owns from here on and closes at the end."""

    def __init__(
        self,
        runtime: Runtime,
        cleaning: CleaningPolicy,
        *,
        max_queue: int,
        cont_batching: bool,
        cells: int | None = None,
        lookup: int = 0,
        counters: Counters | None = None,
        before_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.runtime = runtime
        self.slots = SlotTable(runtime)
        self.post = Post()
        self._before_close = before_close
        self._counters = Counters() if counters is None else counters
        self._jobs = Jobs(runtime.n_seq + max_queue, self._counters)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # The rest belongs to the scheduler's thread.
        self._planner = planner(runtime, drafts=lookup > 0)
        self._repeats = "repeat" in runtime.capabilities and not lookup
        self._interruption = Interruption(_interrupt(runtime))
        self._seating = Seating(runtime, self.slots)
        self._admission = Admission(
            self.slots, self._seating, cleaning, cont_batching=cont_batching, cells=cells
        )
        self._next_deadline = float("inf")
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
        self._jobs.enter(
            jobs,
            lambda: self._inbox.put(partial(self._enqueue, jobs)),
            running=len(self.slots),
            turn_s=self._mean_s / len(self.slots),
        )

    @property
    def places(self) -> int:
        """Jobs that may be here at once."""
        return self._jobs.places

    def cancel(self, job: Job) -> None:
        """End a job at the next step, or sooner where the runtime can be interrupted. Takes no
        lock: it may be called by the garbage collector."""
        self._inbox.put(partial(self._cancel, job))
        self._interruption.leaves(job)

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the scheduler's thread between two steps and return what it returns."""
        refuse_in_loop()
        reply: Future[T] = Future()
        self._jobs.ask(lambda: self._inbox.put(partial(_answer, reply, function)))
        return reply.result()

    def clear_idle(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Empty the KV cache of every idle slot. Returns the slots cleared and the busy ones."""
        return self.call(self._admission.clear_idle)

    def stop(self, reason: StopReason, timeout: float | None = None) -> None:
        """End every job, close the runtime, and wait for that. Safe to call twice."""
        if os.getpid() != self._pid:  # a forked child has neither the thread nor a usable lock
            return
        refuse_in_loop()
        self._jobs.close()
        self.stop_soon(reason)
        self._join(timeout)

    def stop_soon(self, reason: StopReason) -> None:
        """Ask for the end without waiting. Takes no lock, as `cancel`."""
        self._inbox.put(partial(self._stop, reason))
        self._interruption.everything()

    def counts(self) -> tuple[int, int]:
        """How many slots are busy and how many jobs wait for one."""
        running = {work.job for slot in self.slots if (work := slot.work) is not None}
        busy = sum(not slot.idle for slot in self.slots)
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
        self._seating.go_on()
        self._admission.admit()
        step = self._planner.next(self.slots)
        self.post.send()
        if not step.feeds:
            self._sleep()
        elif self._begin(step):
            error = self._run(step)
            changed = self._record(step, error)
            if self._repeats and not changed and not step.prefilling:
                self._go_on([self.slots[feed.seq] for feed in step.feeds])

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

    def _begin(self, step: Step) -> bool:
        """Whether to run the step: a message that came before it could be interrupted for it is
        read first."""
        if not step.prefilling or not self._interruption.possible:
            return True
        self._interruption.before(slot.work.job for slot in step.prefilling if slot.work)
        return self._inbox.empty()

    def _run(self, step: Step) -> BackendError | None:
        try:
            self.runtime.decode(step.feeds)
        except BackendError as error:
            return error
        finally:
            self._interruption.after()
        return None

    def _record(self, step: Step, error: BackendError | None) -> bool:
        """Take the outputs of what was evaluated, and end what failed. True when something is to be
        done other than to go on in every slot."""
        changed = error is not None
        evaluated, failed = self.slots.record(step.feeds, error)
        for number in failed:
            work = self.slots[number].work
            if work is not None and error is not None:
                self._end(work.job, always(error))
        for feed in evaluated:
            slot = self.slots[feed.seq]
            if feed.output != "none":
                changed |= self._advance(slot, feed)
            elif slot.work is not None:
                slot.work.prefilled(len(slot.tokens))
        if evaluated:
            self._counters.decoded(len(evaluated))
        elif isinstance(error, NoRoom):
            self._make_room(step, error)
        return changed

    def _go_on(self, slots: Sequence[Slot]) -> None:
        """Steps in which each of `slots` goes on by one token, as in the last step, until anything
        else is to be done. What a whole turn looks after cannot have changed before that."""
        works = [slot.work for slot in slots if slot.work is not None]
        if len(works) < len(slots) or self.slots.busy() > len(slots):
            return
        runtime = cast("RepeatingRuntime", self.runtime)
        changed, uncounted = False, 0
        while not changed and self._inbox.empty() and clock() < self._next_deadline:
            self.post.send()
            tokens = [work.next_token for work in works]
            try:
                rows = runtime.repeat(tokens)
            except BackendError as error:
                feeds = [Feed(slot.number, (slot.work.next_token,)) for slot in slots if slot.work]
                self._record(Step(feeds, []), error)
                break
            self.slots.extend(slots, tokens)
            for slot, work, row in zip(slots, works, rows, strict=True):
                if slot.work is not work:  # its job has just ended through another of its slots
                    changed = True
                    continue
                try:
                    done = work.follow(row)
                except Exception as exc:  # noqa: BLE001 -- as in `_advance`
                    self._fail(slot, work, exc)
                    changed = True
                else:
                    if done or work.discard is not None:
                        self._settle(slot, work, done)
                        changed = True
            uncounted += 1
            if changed or uncounted == _COUNT_AFTER:
                self._counters.decoded(len(slots), uncounted)
                uncounted = 0
        if uncounted:
            self._counters.decoded(len(slots), uncounted)

    def _advance(self, slot: Slot, feed: Feed) -> bool:
        work = slot.work
        if work is None:  # its job has just ended through another of its slots
            return True
        try:
            if feed.output == "every":
                done = self._verify(slot, work, feed.tokens[1:])
            else:
                done = work.advance(self.runtime, slot.number)
        except Exception as exc:  # noqa: BLE001 -- this request's own: its neighbours go on
            self._fail(slot, work, exc)
            return True
        if not done and work.discard is None:
            return False
        self._settle(slot, work, done)
        return True

    def _fail(self, slot: Slot, work: Work, exc: Exception) -> None:
        """End the request whose work could not take its output."""
        if not isinstance(exc, NitroError):
            log.error("a request failed", exc_info=exc)
        self._end(work.job, always(exc))
        if isinstance(exc, BackendError):  # perhaps NaN, which nobody shall go on from
            self.slots.clear(slot)

    def _settle(self, slot: Slot, work: Work, done: bool) -> None:
        """Work has taken its output, and does not just go on with its next token."""
        if done:
            self._done(slot, work)
        elif work.discard is not None:
            self.slots.shift(slot, work.discard)

    def _verify(self, slot: Slot, work: Work, drafted: Sequence[int]) -> bool:
        done = work.verify(cast("RowsRuntime", self.runtime).rows(slot.number), drafted)
        self._counters.drafted(len(drafted), len(drafted) - work.refused)
        if work.refused:
            self.slots.withdraw(slot, work.refused)
        return done

    def _done(self, slot: Slot, work: Work) -> None:
        # The slot is free before the reader hears of the end: who has an answer finds it free.
        self._free(slot)
        self._mean_s += 0.2 * (clock() - slot.since - self._mean_s)
        if work.job.finished:
            self._jobs.remove(work.job)
            deliver(work.job, work.job.complete)

    def _free(self, slot: Slot) -> None:
        self.slots.free(slot)
        self._admission.slot_given_back()

    def _make_room(self, step: Step, error: NoRoom) -> None:
        """The KV cache was too full for the step. What idle slots keep for later goes first, then
        the work of the job that came last waits until another ends."""
        if self.slots.drop_oldest():
            return
        fed = {feed.seq for feed in step.feeds}
        running = [slot for slot in self.slots if slot.tokens or slot.number in fed]
        latest = max(running, key=_arrival)
        work = latest.work
        assert work is not None
        if len(running) > 1:
            self._admission.set_back(self.slots.set_back(latest))
            self._counters.set_back()
        elif work.out_of_room():
            self._done(latest, work)
        else:
            self._end(work.job, always(error))

    def _enqueue(self, jobs: tuple[Job, ...]) -> None:
        for job in jobs:
            if job not in self._jobs:  # it ended before it came here
                continue
            if job.deadline is not None:
                self._next_deadline = min(self._next_deadline, job.deadline)
            self._admission.join(job)

    # ---- every other end -------------------------------------------------------------------

    def _cancel(self, job: Job) -> None:
        self._end(job, by_caller)

    def _expire(self) -> None:
        now = clock()
        if now < self._next_deadline:
            return
        jobs = [job for job in self._jobs if job.deadline is not None]
        for job in jobs:
            if job.deadline is not None and job.deadline <= now:
                self._end(job, by_deadline)
        left = [job.deadline for job in jobs if job.deadline is not None and job.deadline > now]
        self._next_deadline = min(left, default=float("inf"))

    def _end(self, job: Job, make: MakeError) -> None:
        """End a job that is not done, wherever it is; nothing for one that is."""
        if not self._jobs.remove(job):
            return
        try:
            self._admission.leave(job)
            for slot in self.slots.of(job):
                self._free(slot)
        finally:
            deliver(job, partial(job.end, make))

    def _join(self, timeout: float | None) -> None:
        """Wait for the loop's end. A decode that began just when it was to be interrupted is
        interrupted again."""
        if not self._interruption.possible:
            self._thread.join(timeout)
            return
        give_up = clock() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        while self._thread.is_alive() and (left := give_up - clock()) > 0:
            self._thread.join(min(left, _INTERRUPT_AGAIN_S))
            self._interruption.everything()

    def _stop(self, reason: StopReason) -> None:
        if self._stop_reason is None:
            self._stop_reason = reason

    def _recover(self, exc: Exception) -> None:
        """End all requests and start over with empty slots; if even that fails, refuse requests
        until the model is loaded again."""
        log.error("the scheduler failed; all requests end", exc_info=exc)
        self._end_all(always(exc))
        try:
            self.slots.reset()
        except Exception as worse:
            log.error("the runtime cannot be reset", exc_info=worse)
            self._jobs.fail()
            self._end_all(always(exc))
        self._admission.slot_given_back()
        self.post.send()

    def _end_all(self, make: MakeError) -> None:
        for job in self._jobs:
            try:
                self._end(job, make)
            except Exception:  # noqa: PERF203 -- the others still have to be ended
                log.exception("a slot could not be given back")

    def _shut_down(self) -> None:
        self._jobs.close()
        reason = self._stop_reason or "shutdown"
        while not self._inbox.empty():  # somebody may wait for an answer
            with contextlib.suppress(Exception):
                self._inbox.get()()
        self._end_all(by_stop(reason))
        self.post.close()
        self._interruption.close()
        try:
            self._before_close()
            self.runtime.close()
        except Exception:
            log.exception("closing the runtime failed")


def _interrupt(runtime: Runtime) -> Callable[[], None] | None:
    if "interrupt" not in runtime.capabilities:
        return None
    return cast("InterruptibleRuntime", runtime).interrupt


def _arrival(slot: Slot) -> tuple[float, int]:
    assert slot.work is not None
    return slot.work.job.submitted, slot.last_used


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
