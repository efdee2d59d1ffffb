"""The embedding lane: texts are evaluated beside the generations, several in one evaluation."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from ..backends.base import Interrupted
from ..errors import ModelNotLoaded
from .embedding import RerankJob
from .ending import always, by_caller, by_deadline, by_stop, deliver
from .interruption import Interruption
from .job import clock, enter_loop, refuse_in_loop
from .jobs import Jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..backends.base import Embedder, EmbeddingRuntime
    from .counters import Counters
    from .embedding import TextsJob, TextWork
    from .job import MakeError
    from .scheduler import StopReason

__all__ = ["EmbeddingLane"]


class EmbeddingLane:
    """A thread that owns the embedder of a runtime, which is made when it is first needed.

    Texts of all calls that wait share the evaluations: a call gives one text in turn, until the
    batch is full, so a long list delays nobody by more than one evaluation.
    """

    def __init__(self, runtime: EmbeddingRuntime, counters: Counters, *, places: int) -> None:
        self._runtime = runtime
        self._counters = counters
        self._jobs = Jobs(places, counters)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # What the lock guards: `_ready`, `_thread` and `_stopped`.
        self._lock = threading.Lock()
        self._ready: Future[Embedder] | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        # The rest belongs to the lane's thread.
        self._interruption = Interruption(None)
        self._waiting: deque[TextsJob[Any]] = deque()
        self._evaluating: tuple[TextsJob[Any], ...] = ()
        self._stop_reason: StopReason | None = None

    # ---- from any thread -------------------------------------------------------------------

    def embedder(self) -> Embedder:
        """The embedder, for its numbers and what goes around a text. Waits for it to be made;
        raises what that raises, and ModelNotLoaded after `stop`."""
        refuse_in_loop()
        with self._lock:
            if self._stopped:
                raise ModelNotLoaded()
            if self._ready is None:
                self._ready = Future()
                self._thread = threading.Thread(
                    target=self._main, args=(self._ready,), name="nitrolib-embedder", daemon=True
                )
                self._thread.start()
            ready = self._ready
        return ready.result()

    def submit(self, job: TextsJob[Any]) -> None:
        """Queue a job, after `embedder` was asked for. Raises Overloaded, ModelNotLoaded."""
        self._jobs.enter(
            (job,), lambda: self._inbox.put(partial(self._waiting.append, job)), running=1, turn_s=1
        )

    def cancel(self, job: TextsJob[Any]) -> None:
        """End a job, soon. Takes no lock: it may be called by the garbage collector."""
        self._inbox.put(partial(self._cancel, job))
        self._interruption.leaves(job)

    def counts(self) -> tuple[int, int]:
        """How many jobs are being evaluated and how many wait."""
        running = len(self._evaluating)
        return running, max(len(self._jobs) - running, 0)

    def stop(self, reason: StopReason) -> None:
        """End every job, free the embedder, and wait for that. Safe to call twice."""
        self._jobs.close()
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is None:
            return
        self._inbox.put(partial(self._stop, reason))
        while thread.is_alive():
            self._interruption.everything()
            thread.join(0.01)

    # ---- the lane's thread -----------------------------------------------------------------

    def _main(self, ready: Future[Embedder]) -> None:
        enter_loop()
        try:
            embedder = self._runtime.embedder()
        except Exception as error:  # noqa: BLE001 -- it belongs to who asked for it
            with self._lock:
                self._ready = self._thread = None  # the next call tries again
            ready.set_exception(error)
            return
        self._interruption = Interruption(embedder.interrupt)
        ready.set_result(embedder)
        try:
            while self._stop_reason is None:
                self._cycle(embedder)
        finally:
            self._interruption.close()
            self._end_all(by_stop(self._stop_reason or "shutdown"))
            embedder.close()

    def _cycle(self, embedder: Embedder) -> None:
        while not self._inbox.empty():
            self._inbox.get()()
        self._expire()
        if self._stop_reason is not None:
            return
        batch = self._take(embedder)
        if not batch:
            self._sleep()
            return
        self._evaluating = tuple(dict.fromkeys(work.job for work in batch))
        self._interruption.before(self._evaluating)
        try:
            if self._inbox.empty():
                self._evaluate(embedder, batch)
            else:  # a cancellation must not come between planning and evaluating
                _put_back(batch)
        finally:
            self._interruption.after()
            self._evaluating = ()
        self._line_up(batch)

    def _take(self, embedder: Embedder) -> list[TextWork[Any]]:
        """Texts of one kind that fit one evaluation, one of each job in turn."""
        batch: list[TextWork[Any]] = []
        room = embedder.n_batch
        turn = deque(job for job in self._waiting if _alike(job, self._waiting[0]))
        while turn and len(batch) < embedder.n_seq and turn[0].next_length <= room:
            job = turn.popleft()
            room -= job.next_length
            batch.append(job.take())
            if job.waiting:
                turn.append(job)
        return batch

    def _evaluate(self, embedder: Embedder, batch: list[TextWork[Any]]) -> None:
        """Evaluate texts; what fails together is tried job by job, so that it fails alone."""
        try:
            results = _results(embedder, batch)
        except Interrupted:
            _put_back(batch)
        except Exception as exc:  # noqa: BLE001 -- whatever it is, it ends these jobs alone
            jobs = dict.fromkeys(work.job for work in batch)
            if len(jobs) == 1:
                self._end(batch[0].job, always(exc))
                return
            for job in jobs:
                self._evaluate(embedder, [work for work in batch if work.job is job])
        else:
            self._counters.decoded(len(batch))
            for work, result in zip(batch, results, strict=True):
                work.receive(result)

    def _line_up(self, batch: Sequence[TextWork[Any]]) -> None:
        """Finish what is done; the rest of the jobs goes behind those that had no turn."""
        for job in dict.fromkeys(work.job for work in batch):
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)
                if job.waiting:
                    self._waiting.append(job)
            if job.finished and self._jobs.remove(job):
                deliver(job, job.complete)

    def _sleep(self) -> None:
        deadlines = [job.deadline for job in self._waiting if job.deadline is not None]
        wait = min(deadlines, default=float("inf")) - clock()
        with contextlib.suppress(Empty):
            self._inbox.get(timeout=min(max(wait, 0.0), threading.TIMEOUT_MAX))()

    def _expire(self) -> None:
        now = clock()
        for job in [job for job in self._waiting if job.deadline is not None]:
            if job.deadline is not None and job.deadline <= now:
                self._end(job, by_deadline)

    def _cancel(self, job: TextsJob[Any]) -> None:
        self._end(job, by_caller)

    def _end(self, job: TextsJob[Any], make: MakeError) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
        if self._jobs.remove(job):
            deliver(job, partial(job.end, make))

    def _end_all(self, make: MakeError) -> None:
        while not self._inbox.empty():
            self._inbox.get()()
        for job in self._jobs:
            self._end(cast("TextsJob[Any]", job), make)

    def _stop(self, reason: StopReason) -> None:
        self._stop_reason = reason


def _alike(one: TextsJob[Any], other: TextsJob[Any]) -> bool:
    return isinstance(one, RerankJob) == isinstance(other, RerankJob)


def _results(embedder: Embedder, batch: Sequence[TextWork[Any]]) -> list[Any]:
    texts = [work.prompt for work in batch]
    if isinstance(batch[0].job, RerankJob):
        return cast("list[Any]", embedder.rank(texts).tolist())
    return [tuple(vector) for vector in embedder.embed(texts).tolist()]


def _put_back(batch: Sequence[TextWork[Any]]) -> None:
    for work in reversed(batch):
        work.job.put_back(work)
