"""Post: brings what the loop has for its readers to them, while native code runs."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from .job import enter_loop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Post"]

Letter = tuple["Callable[[Any], None]", Any]


class Post:
    """Chunks and outcomes of one step, kept in order until it pays to wake their readers.

    A reader that is woken takes the processor from the loop and then waits for the interpreter's
    lock, which the loop holds: 40 microseconds for each reader, while the native library waits for
    the next batch. So the loop samples all slots and makes the next batch first, then sends: with
    one wake-up, however many readers there are, since a thread of the post's own wakes them while
    native code runs. A single letter needs no such thread.

    `letters`, `add`, `send` and `close` belong to the scheduler's thread.

    letters: what the next `send` takes, always this list.
    """

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self._bags: SimpleQueue[list[Letter] | None] = SimpleQueue()
        self._handed = self._delivered = 0  # bags
        self._thread: threading.Thread | None = None

    def add(self, deliver: Callable[[Any], None], what: object) -> None:
        """Call `deliver(what)`, which must not raise, after the next `send`."""
        self.letters.append((deliver, what))

    def send(self) -> None:
        """Let everything that was added be delivered, after what was sent before."""
        if not self.letters:
            return
        letters = self.letters.copy()
        self.letters.clear()
        if len(letters) == 1 and self._handed == self._delivered:
            _deliver(letters)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._carry, name="nitrolib-post", daemon=True)
            self._thread.start()
        self._handed += 1
        self._bags.put(letters)

    def close(self) -> None:
        """Deliver what is left and end; safe to call twice."""
        self.send()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._bags.put(None)
            thread.join()

    def _carry(self) -> None:
        enter_loop()  # what it calls must not wait for the loop, which may wait for this thread
        while (letters := self._bags.get()) is not None:
            _deliver(letters)
            self._delivered += 1


def _deliver(letters: list[Letter]) -> None:
    for deliver, what in letters:
        deliver(what)
