"""A gate to something that will be freed: waits for who is inside, refuses who comes later."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ModelNotLoaded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Gate"]


class Gate:
    """Any number of threads may be inside; `close` shuts it and waits until the last has left."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._open = True

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside for the length of a `with`; raises ModelNotLoaded once the gate is closed."""
        with self._changed:
            if not self._open:
                raise ModelNotLoaded()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, and wait for those inside."""
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: self._inside == 0)
