"""What one rendering of a chat template may use: characters made and processor time."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE_CHARS = 1 << 26  # what any rendering may make, in characters
CHARS_PER_INPUT_CHAR = 64  # and more for a long conversation: templates copy what they are given
CPU_S = 2.0  # of this thread alone, so that a busy machine changes nothing
ITEM_CHARS = 16  # what one list item, loop turn or call counts for


class BudgetSpent(Exception):
    """A template wanted more than its budget; the message says of what."""


class Budget:
    """Characters left and the processor time at which the rendering must be over."""

    __slots__ = ("_clock", "_deadline", "left")

    def __init__(self, input_chars: int) -> None:
        self.left = BASE_CHARS + CHARS_PER_INPUT_CHAR * input_chars
        self._deadline = time.thread_time() + CPU_S
        self._clock = 0

    def spend(self, chars: int) -> None:
        """Take `chars` from the budget, before they are made. Raises BudgetSpent."""
        self.left -= chars + ITEM_CHARS
        if self.left < 0:
            raise BudgetSpent("it makes too much text")
        self._clock += 1
        if self._clock & 15 == 0 and time.thread_time() > self._deadline:
            raise BudgetSpent(f"it takes more than {CPU_S:g} seconds")


_budget: ContextVar[Budget | None] = ContextVar("nitrolib_template_budget", default=None)


@contextmanager
def limited(input_chars: int) -> Iterator[None]:
    """Everything inside shares one budget, made for an input of `input_chars` characters."""
    token = _budget.set(Budget(input_chars))
    try:
        yield
    finally:
        _budget.reset(token)


def spend(chars: int = 0) -> None:
    """Take `chars` and one step from the budget of the rendering that runs, if one does."""
    budget = _budget.get()
    if budget is not None:
        budget.spend(chars)
