"""What the Jan dialect of one server keeps in memory: which models ran, and the runs under way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..service import Service

__all__ = ["EXTENSION", "State", "state"]

EXTENSION = "nitrolib.jan"


class State:
    """Used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ran: set[str] = set()
        self._runs: dict[str, Callable[[], object]] = {}

    def note_models(self, here: Service) -> None:
        """Remember the models that are loaded now."""
        keys = [seat.key for seat in here.pool.seats()]
        with self._lock:
            self._ran.update(keys)

    def has_run(self, model_id: str) -> bool:
        """Whether the model was loaded at some time."""
        with self._lock:
            return model_id in self._ran

    def forget_model(self, model_id: str) -> None:
        """The model is deleted: one that is added under its id has not run."""
        with self._lock:
            self._ran.discard(model_id)

    def add_run(self, run_id: str, cancel: Callable[[], object]) -> None:
        """A run has begun, which *cancel* ends."""
        with self._lock:
            self._runs[run_id] = cancel

    def drop_run(self, run_id: str) -> None:
        """A run is over."""
        with self._lock:
            self._runs.pop(run_id, None)

    def cancel_run(self, run_id: str) -> bool:
        """End a run; False for one that is not under way here."""
        with self._lock:
            cancel = self._runs.get(run_id)
        if cancel is None:
            return False
        cancel()
        return True


def state() -> State:
    """That of the application that answers the current request."""
    from flask import current_app

    found: State = current_app.extensions[EXTENSION]
    return found
