"""Seat: a loaded model in an engine of its own; Lease: the use of a seat, which keeps it there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from ..backends.base import LoadOptions
    from ..engine import Engine

__all__ = ["Lease", "Seat"]


class Seat:
    """A loaded model. Made by ModelPool; read from any thread.

    key: what the pool knows it by. path, options, backend: what it was loaded with.
    extra: the caller's own, never looked at here, and free to be replaced.
    loaded_at, last_used: seconds of the pool's clock.
    """

    def __init__(
        self, key: str, engine: Engine, path: str, options: LoadOptions, backend: str, extra: Any
    ) -> None:
        self.key = key
        self.engine = engine
        self.path = path
        self.options = options
        self.backend = backend
        self.extra = extra
        self.loaded_at = self.last_used = 0.0
        self.leases = 0  # changed by the pool alone, under its lock

    @property
    def busy(self) -> bool:
        """Whether it is leased, or its engine runs or queues a request. A busy seat is never
        evicted."""
        if self.leases:
            return True
        status = self.engine.status()
        return bool(status.loading or status.running or status.waiting)

    def __repr__(self) -> str:
        return f"Seat({self.key!r}, {self.path!r}, leases={self.leases})"


class Lease:
    """The right to use a seat's engine until `close`: a context manager. An explicit unload ends it
    all the same, and the engine then raises ModelNotLoaded."""

    def __init__(self, seat: Seat, give_back: Callable[[Seat], None]) -> None:
        self.seat = seat
        self._give_back = give_back
        self._once = threading.Lock()
        self._closed = False

    @property
    def engine(self) -> Engine:
        return self.seat.engine

    def close(self) -> None:
        """Give the seat back; safe to call twice."""
        with self._once:
            closed, self._closed = self._closed, True
        if not closed:
            self._give_back(self.seat)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
