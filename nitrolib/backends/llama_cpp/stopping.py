"""Ending a running decode from another thread: the flag that llama.cpp asks before every node of
its graph."""

from __future__ import annotations

import ctypes
import threading
from typing import Any


class Stopper:
    """The flag of one context. It is asked by C code alone: a callback in Python would be called a
    hundred times a step and wait each time for a busy thread to give up the GIL.

    The callback is `strlen`, which is a ready-made `bool f(void *)` for a text of none or one
    character.
    """

    def __init__(self, callback_type: Any) -> None:
        self._text = ctypes.create_string_buffer(2)
        self.callback = callback_type(_address_of_strlen())
        self.data = ctypes.cast(self._text, ctypes.c_void_p)
        self._lock = threading.RLock()  # a garbage collection inside `stop` may call it again
        self._running = False

    def begin(self) -> None:
        """A decode begins, which `stop` may end."""
        with self._lock:
            self._text[0] = b"\0"
            self._running = True

    def end(self) -> None:
        """The decode is over; what comes next starts with a lowered flag."""
        with self._lock:
            self._running = False
            self._text[0] = b"\0"

    def stop(self) -> None:
        """End the decode that runs, if one does."""
        with self._lock:
            if self._running:
                self._text[0] = b"\1"


def _address_of_strlen() -> int:
    """`strlen` of the C library that this process runs on; on Windows `CDLL(None)` is none."""
    for name in (None, "ucrtbase", "msvcrt"):
        try:
            function = ctypes.CDLL(name).strlen
        except (OSError, AttributeError, TypeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise OSError("no C library with strlen")
