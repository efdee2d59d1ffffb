"""Slots: the seats in the running batch, each with the record of what its KV cache holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .request import SlotStatus

if TYPE_CHECKING:
    from .job import Work

__all__ = ["Slot"]


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the runtime. Written by the scheduler thread alone.

    tokens: exactly what the runtime's sequence holds: `len(tokens) == runtime.length(number)`
        between any two steps. It is the key of the prefix cache.
    work: what runs here, None when idle.
    last_used: the turn in which it was last taken; 0 is never.
    since: when that was, on the job clock.
    """

    number: int
    tokens: list[int] = field(default_factory=list)
    work: Work | None = None
    last_used: int = 0
    since: float = 0.0

    @property
    def idle(self) -> bool:
        return self.work is None

    @property
    def decoding(self) -> bool:
        """Whether the prompt is evaluated in full and single tokens follow."""
        return self.work is not None and len(self.tokens) >= len(self.work.prompt)

    def status(self) -> SlotStatus:
        """May be called from any thread: `work` is read once."""
        work, held = self.work, len(self.tokens)
        if work is None:
            return SlotStatus(slot=self.number, state="idle", cached_tokens=held)
        state = "prefill" if held < len(work.prompt) else "decode"
        return SlotStatus(slot=self.number, state=state, cached_tokens=held)  # type: ignore[arg-type]
