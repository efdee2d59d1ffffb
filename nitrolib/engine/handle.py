"""The two ends of a running request: the Outbox that the scheduler fills, the Handle a caller has.

A Handle refers to its Outbox and never the other way round, so a Handle that nobody holds any more
is collected, and cancels what nobody waits for.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sys
import threading
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import BackendError, Cancelled, NitroError
from .job import refuse_in_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Event
    from collections.abc import Callable, Generator
    from types import TracebackType

    from typing_extensions import Self

    from .post import Post
    from .request import Chunk

__all__ = ["Handle", "Outbox"]

T = TypeVar("T")
log = logging.getLogger(__name__)


class Outbox(Generic[T]):
    """What a request has brought forth so far. Written by one thread alone.

    post: takes what is put until it is sent; without one it is there at once.
    chunks: pieces for one reader, then None as the end mark. A put wakes a reader that waits, and
        costs nothing when nobody does.
    outcome: the result or the error, None until the end.
    waker: called after every put, for a reader that must not block (an event loop).
    """

    __slots__ = ("_callbacks", "_finished", "_lock", "_post", "chunks", "outcome", "waker")

    def __init__(self, post: Post | None = None) -> None:
        self._post = post
        self.chunks: SimpleQueue[Chunk | None] = SimpleQueue()
        self.outcome: T | NitroError | None = None
        self.waker: Callable[[], object] | None = None
        self._finished = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []

    @property
    def done(self) -> bool:
        return self.outcome is not None

    def put(self, chunk: Chunk) -> None:
        self.later(self.put_now, chunk)

    def later(self, deliver: Callable[[Any], None], what: object) -> None:
        """Call `deliver(what)`, which must not raise, on delivery, in the order of the calls."""
        if self._post is None:
            deliver(what)
        else:
            self._post.add(deliver, what)

    def put_made(self, make: Callable[[], Chunk]) -> None:
        """Put what `make` returns. It is called on delivery, which costs the loop nothing then,
        and must not raise."""
        self.later(self._put_made, make)

    def finish(self, outcome: T | NitroError) -> None:
        """Set the outcome, once; later calls change nothing."""
        self.later(self.finish_now, outcome)

    def _put_made(self, make: Callable[[], Chunk]) -> None:
        self.put_now(make())

    def put_now(self, chunk: Chunk | None) -> None:
        """`put`, of who is called on delivery."""
        self.chunks.put(chunk)
        waker = self.waker
        if waker is not None:
            try:
                waker()
            except RuntimeError:  # the reader's event loop is closed: nobody reads any more
                self.waker = None

    def finish_now(self, outcome: T | NitroError) -> None:
        """`finish`, of who is called on delivery."""
        with self._lock:
            if self.outcome is not None:
                return
            self.outcome = outcome
            callbacks, self._callbacks = self._callbacks, []
        self._finished.set()
        self.put_now(None)
        for callback in callbacks:
            _call(callback)

    def when_done(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if self.outcome is None:
                self._callbacks.append(callback)
                return
        _call(callback)

    def wait(self, timeout: float | None) -> bool:
        return self._finished.wait(timeout)


def _wake(loop: AbstractEventLoop, event: Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(event.set)


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:  # a caller's own code must not end the loop for everybody
        log.exception("a done-callback failed")


class Handle(Generic[T]):
    """A request that was submitted. Every method may be called from any thread.

    A handle that is dropped before the end cancels its request.
    """

    def __init__(
        self, outbox: Outbox[T], cancel: Callable[[], None], keep_alive: object = None
    ) -> None:
        self._outbox = outbox
        self._cancel = cancel
        self._keep_alive = keep_alive  # `for chunk in Engine.open(path).stream(...)` must work
        self._pid = os.getpid()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end and return the whole result, however much of it was read before.

        Raises TimeoutError after `timeout` seconds (the request goes on), and what the request
        ended with: Cancelled, DeadlineExceeded, BackendError.
        """
        if not self._outbox.done:
            self._check_process()
            refuse_in_loop()
        if not self._outbox.wait(timeout):
            raise TimeoutError(f"not done within {timeout} s; it goes on")
        outcome = self._outbox.outcome
        if isinstance(outcome, NitroError):
            raise fresh(outcome)
        return outcome  # type: ignore[return-value]  # the outcome is set before wait() returns

    def cancel(self) -> None:
        """End the request at the next step. Does not wait; does nothing when it is done."""
        if not self._outbox.done:
            self._cancel()

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._outbox.done

    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Call `callback(handle)` at the end, at once if that is past.

        It runs in a thread of the engine's and must not block: it may submit, and must not wait for
        the engine. What it raises is logged. A handle with a callback is in use, so dropping it
        does not cancel the request.
        """
        self._outbox.when_done(partial(callback, self))

    def __await__(self) -> Generator[Any, None, T]:
        """`await handle` is `handle.result()` for a coroutine; no thread waits."""
        import asyncio

        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        self._outbox.when_done(partial(_wake, loop, ended))
        yield from ended.wait().__await__()
        return self.result(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        # May run in any thread, inside any lock: cancelling only sets down a message.
        if not sys.is_finalizing() and hasattr(self, "_cancel"):
            self.cancel()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise BackendError(
                f"this request runs in process {self._pid}; a forked child cannot wait for it"
            )


def fresh(error: NitroError) -> NitroError:
    """A copy to raise: several threads may raise one outcome, each needs its own traceback."""
    again: NitroError = copy.copy(error)
    again.__cause__ = error.__cause__
    return again


def ended_by_caller(outcome: object) -> bool:
    return isinstance(outcome, Cancelled) and outcome.reason == "caller"
