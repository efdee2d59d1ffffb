"""Alarm: calls a function at a moment, from a thread of its own."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from .job import clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """Rings once at the moment it was set to, unless it was unset before. The thread is made when
    the alarm is first set, and sleeps through settings that came to nothing."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._changed = threading.Condition()
        self._at = math.inf
        self._wakes_at = math.inf  # when the thread looks again by itself
        self._thread: threading.Thread | None = None
        self._closed = False

    def set(self, at: float) -> None:
        """Ring at `at` on the job clock, and not at the moment set before."""
        with self._changed:
            self._at = at
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._main, name="nitrolib-alarm", daemon=True
                )
                self._thread.start()
            elif at < self._wakes_at:
                self._changed.notify()

    def unset(self) -> None:
        """Do not ring. Once this has returned it does not, and is not ringing either."""
        with self._changed:
            self._at = math.inf

    def close(self) -> None:
        """End the thread; safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _main(self) -> None:
        with self._changed:
            while not self._closed:
                left = self._at - clock()
                if left <= 0:
                    self._at = math.inf
                    self._ring()
                    continue
                self._wakes_at = self._at
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
