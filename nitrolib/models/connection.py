"""The network of one download: every connection goes to an address that was checked, and all of
them can be ended at once from another thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from .policy import FetchPolicy

__all__ = ["Aborted", "Guard"]


class Aborted(Exception):
    """The download was ended by `Guard.abort`."""


class Guard(httpcore.NetworkBackend):
    """Connects for httpcore: resolves a name, checks every address that it has, and connects to one
    of those, so that nothing can change in between. Until `deadline` (of time.monotonic), when
    reads time out, or until `abort`."""

    def __init__(
        self,
        policy: FetchPolicy,
        deadline: float,
        *,
        resolve: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        self._policy = policy
        self._deadline = deadline
        self._resolve = resolve
        self._lock = threading.Lock()
        self._streams: set[_Stream] = set()
        self.aborted = False

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._deadline

    def abort(self) -> None:
        """End every connection, and make none any more."""
        with self._lock:
            self.aborted = True
            streams = [*self._streams]
        for stream in streams:
            stream.shut()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self._policy.check_host(host)  # as it is connected to, however the URL was understood
        addresses = self._addresses(host, port)
        connect = httpcore.SyncBackend().connect_tcp
        for index, address in enumerate(addresses):
            self.check()
            try:
                bare = connect(address, port, self.limit(timeout), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if index == len(addresses) - 1:
                    raise
                continue
            return self._kept(_Stream(bare, self))
        raise httpcore.ConnectError(f"{host} has no address")

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("sockets of this machine are not connected to")

    def check(self) -> None:
        """Raises Aborted after `abort`, httpcore.ReadTimeout after the deadline."""
        if self.aborted:
            raise Aborted
        if self.late:
            raise httpcore.ReadTimeout("the time is over")

    def limit(self, timeout: float | None) -> float:
        """A timeout that ends with the deadline."""
        left = max(0.001, self._deadline - time.monotonic())
        return left if timeout is None else min(timeout, left)

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        for address in addresses:
            self._policy.check_address(address, host)
        return addresses

    def _kept(self, stream: _Stream) -> _Stream:
        with self._lock:
            self._streams.add(stream)
            aborted = self.aborted
        if aborted:
            stream.close()
            raise Aborted
        return stream

    def _forget(self, stream: _Stream) -> None:
        with self._lock:
            self._streams.discard(stream)


class _Stream(httpcore.NetworkStream):
    """A connection that its guard can end."""

    def __init__(self, inner: httpcore.NetworkStream, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._guard.check()
        data = self._inner.read(max_bytes, self._guard.limit(timeout))
        self._guard.check()
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._guard.check()
        self._inner.write(buffer, self._guard.limit(timeout))

    def close(self) -> None:
        self._guard._forget(self)
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._guard.limit(timeout))
        self._guard._forget(self)
        return self._guard._kept(_Stream(inner, self._guard))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def shut(self) -> None:
        """Wake whoever reads. A TLS socket is shut below its TLS, which is not for two threads."""
        bare = self._inner.get_extra_info("socket")
        if bare is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(bare, socket.SHUT_RDWR)
