"""Counters: the sums that `EngineCounters` shows, kept while an engine runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .status import EngineCounters

if TYPE_CHECKING:
    from .request import Timings

__all__ = ["Counters"]


class Counters:
    """Added to by the threads of an engine, about once a step at most; read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decodes = self._busy_slots = self._set_back = 0
        self._requests = self._tokens_max = 0
        self._prompt = self._cached = self._predicted = self._steps = 0
        self._prompt_s = self._predicted_s = 0.0
        self._drafts = self._drafted = 0
        self._accepted: list[int] = []  # by position

    def decoded(self, slots: int, times: int = 1) -> None:
        """So many evaluations for so many slots each."""
        with self._lock:
            self._decodes += times
            self._busy_slots += slots * times

    def set_back(self) -> None:
        """A request lost its slot."""
        with self._lock:
            self._set_back += 1

    def drafted(self, tokens: int, accepted: int) -> None:
        """A guess of `tokens`, of which the first `accepted` came."""
        with self._lock:
            self._drafts += 1
            self._drafted += tokens
            self._accepted.extend([0] * (accepted - len(self._accepted)))
            for position in range(accepted):
                self._accepted[position] += 1

    def ended(self, timings: Timings) -> None:
        """A request has ended."""
        with self._lock:
            self._requests += 1
            self._prompt += timings.prompt_n
            self._cached += timings.cache_n
            self._prompt_s += timings.prefill_s
            self._predicted += timings.predicted_n
            self._steps += max(timings.predicted_n - 1, 0)
            self._predicted_s += timings.decode_s if timings.predicted_n else 0.0
            tokens = timings.cache_n + timings.prompt_n + timings.predicted_n
            self._tokens_max = max(self._tokens_max, tokens)

    def snapshot(self) -> EngineCounters:
        with self._lock:
            return EngineCounters(
                requests=self._requests,
                prompt_tokens=self._prompt,
                prompt_tokens_cached=self._cached,
                prompt_s=self._prompt_s,
                predicted_tokens=self._predicted,
                predicted_steps=self._steps,
                predicted_s=self._predicted_s,
                tokens_max=self._tokens_max,
                decodes=self._decodes,
                busy_slots=self._busy_slots,
                drafts=self._drafts,
                draft_tokens=self._drafted,
                draft_tokens_accepted=sum(self._accepted),
                accepted_by_position=tuple(self._accepted),
                set_back=self._set_back,
            )
