"""Post: what the loop has for its readers, kept until it pays to wake them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Post"]


class Post:
    """Chunks and outcomes of one step, in order. Used by the scheduler's thread alone.

    A reader that is woken wants the interpreter's lock, which the loop holds until it enters native
    code. So the loop samples all slots and makes the next batch first, and sends then: readers run
    while the native library does, and never between two slots.
    """

    def __init__(self) -> None:
        self._letters: list[tuple[Callable[[Any], None], Any]] = []

    def add(self, deliver: Callable[[Any], None], what: object) -> None:
        """Call `deliver(what)` at the next `send`."""
        self._letters.append((deliver, what))

    def send(self) -> None:
        """Deliver everything. Nothing that it calls raises."""
        if self._letters:
            letters, self._letters = self._letters, []
            for deliver, what in letters:
                deliver(what)
