"""What one server of the LocalLab dialect remembers: its start, its requests, its instructions."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..limits import Limiter

if TYPE_CHECKING:
    from nitrolib.config import Settings

__all__ = ["State", "state"]

EXTENSION = "nitrolib.locallab"


def state() -> State:
    """The state of the application that answers the current request."""
    from flask import current_app

    found: State = current_app.extensions[EXTENSION]
    return found


class State:
    """Every method may be called from any thread.

    requests: how many came in; those that only ask whether the server is up are not counted.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._instructions: dict[str | None, str] = {}
        self._limiter: Limiter | None = None
        self.requests = 0

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def count(self) -> None:
        """One more request."""
        with self._lock:
            self.requests += 1

    def wait(self, client: str, settings: Settings) -> float:
        """Accept a request of *client* and return 0, or return the seconds that it has to wait."""
        if settings.locallab_rate == 0:
            return 0.0
        with self._lock:
            if self._limiter is None:
                self._limiter = Limiter(settings.locallab_rate, settings.locallab_burst)
        return self._limiter.take(client)

    def instructions(self, model: str | None) -> str:
        """Those of the model, else those of all; "" where there are none."""
        return self._instructions.get(model, self._instructions.get(None, ""))

    def instruct(self, model: str | None, text: str) -> None:
        """Set the instructions of a model, or of all that have none of their own."""
        with self._lock:
            self._instructions[model] = text

    def forget(self, model: str | None) -> None:
        """Take the instructions of a model back, or all of them."""
        with self._lock:
            if model is None:
                self._instructions.clear()
            else:
                self._instructions.pop(model, None)
