"""Limiter: how many requests a client may send, as a rate and as a burst."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Limiter"]

_ROUNDING_S = 1e-7  # what sums of times may be wrong by


@dataclass(slots=True)
class _Client:
    """What is remembered of one client: when its requests of the last period were accepted, and how
    many tokens its bucket held at `filled_at`."""

    tokens: float
    filled_at: float
    accepted: deque[float] = field(default_factory=deque)


class Limiter:
    """At most *rate* requests in any *period_s* seconds, and at most *burst* of them at once.

    Both conditions hold: a bucket of *burst* tokens that fills at the rate, and a log of the last
    period. A bucket alone would let rate + burst requests through in the first period, a log alone
    would let all of them come at once. A request that is refused costs nothing.

    clock: seconds, monotonic. Every method may be called from any thread.
    """

    def __init__(
        self,
        rate: int,
        burst: int,
        period_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._burst, self._period = rate, burst, period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: dict[str, _Client] = {}
        self._swept_at = clock()

    def take(self, key: str) -> float:
        """Accept a request of the client *key* and return 0, or refuse it and return the seconds
        after which it would be accepted."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            client = self._clients.setdefault(key, _Client(float(self._burst), now))
            self._refresh(client, now)
            wait = self._wait(client, now)
            if wait <= 0:
                client.tokens -= 1
                client.accepted.append(now)
                return 0.0
            return wait

    def _refresh(self, client: _Client, now: float) -> None:
        filled = client.tokens + (now - client.filled_at) * self._rate / self._period
        client.tokens, client.filled_at = min(filled, float(self._burst)), now
        while client.accepted and now - client.accepted[0] >= self._period - _ROUNDING_S:
            client.accepted.popleft()

    def _wait(self, client: _Client, now: float) -> float:
        """Seconds to wait; 0 for less than rounding makes of none: a client that waits as it was
        told to must not be refused again."""
        wait = (1 - client.tokens) * self._period / self._rate
        if len(client.accepted) >= self._rate:
            wait = max(wait, client.accepted[0] + self._period - now)
        return wait if wait > _ROUNDING_S else 0.0

    def _sweep(self, now: float) -> None:
        """Forget clients that have not sent anything for so long that nothing counts any more."""
        if now - self._swept_at < self._period:
            return
        self._swept_at = now
        idle = self._period * max(1.0, self._burst / self._rate)
        self._clients = {
            key: client for key, client in self._clients.items() if now - client.filled_at < idle
        }
