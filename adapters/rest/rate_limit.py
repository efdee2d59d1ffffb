"""RateLimit: how many requests a client may send to all routes together, as the operator says."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from .problem import Refused

if TYPE_CHECKING:
    from limits import RateLimitItem

__all__ = ["RateLimit", "address_of"]

MAX_CLIENTS = 50_000  # remembered; beyond that all are forgotten


class RateLimit:
    """Limits such as "5/second;60/minute", all of which hold, over a window that moves along. A
    request that is refused counts for none of them."""

    def __init__(self, text: str) -> None:
        from limits import parse_many
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._limits = parse_many(text)
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def take(self, client: str) -> None:
        """Count a request of *client*. Raises Refused with the seconds to wait."""
        with self._lock:
            self._remember(client)
            full = self._count(client)
            if not full:
                return
            free = max(self._limiter.get_window_stats(one, client).reset_time for one in full)
        wait = max(math.floor(free - time.time()) + 1, 1)
        raise Refused(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"too many requests: {' and '.join(map(str, full))} are allowed; try again in {wait} s",
            "rate_limit_exceeded",
            {"Retry-After": str(wait)},
        )

    def _count(self, client: str) -> list[RateLimitItem]:
        """The limits that have no room for a request; where all have, it is counted."""
        full = [one for one in self._limits if not self._limiter.test(one, client)]
        for one in () if full else self._limits:
            # In the very moment in which a window ends only `hit` knows that it is too early.
            if not self._limiter.hit(one, client):
                return [one]
        return full

    def _remember(self, client: str) -> None:
        """The storage keeps a list for every client that it has ever seen."""
        self._seen.add(client)
        if len(self._seen) > MAX_CLIENTS:
            self._storage.reset()
            self._seen = {client}


def address_of(remote: str | None) -> str:
    """Who an address is: of IPv6 the network, since one client has all the addresses in it."""
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return remote or "unknown"
    if address.version == 6 and not address.is_loopback:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
