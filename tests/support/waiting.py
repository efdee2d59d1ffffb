"""Waiting for what must become true, however slow or busy the machine is."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["until", "when"]


def until(holds: Callable[[], object], timeout: float = 60) -> None:
    """Poll until `holds()` is true; fails when it is not within `timeout` seconds."""
    give_up = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < give_up, "it did not come true"
        time.sleep(0.002)


def when(holds: Callable[[], object], act: Callable[[], object]) -> None:
    """Call `act()` as soon as `holds()` is true, from a thread: for a test whose own thread waits
    in the call that makes it true."""

    def work() -> None:
        until(holds)
        act()

    threading.Thread(target=work, daemon=True).start()
