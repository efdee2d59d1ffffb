"""Notices that a client has gone away, even while nothing is being written to it.

A request that waits in the queue, evaluates its prompt or gathers a whole answer writes nothing, so
a closed connection would go unseen. One thread watches the sockets of all such requests for their
end. Where the server does not hand out the socket, or the connection is encrypted, there is nothing
to watch, and a failing write tells as before.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["Watch", "Watcher"]

log = logging.getLogger(__name__)

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")  # where servers put it in the WSGI environ
_PEEK = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)


class Watch:
    """One watched connection; a context manager. `close` may be called from any thread, twice."""

    def __init__(self, watcher: Watcher | None, sock: socket.socket | None) -> None:
        self._watcher = watcher
        self.socket = sock
        self.on_gone: Callable[[], object] | None = None

    def close(self) -> None:
        """Stop watching."""
        self.on_gone = None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher._drop(self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Watcher:
    """Watches connections in one thread, which starts with the first of them.

    Every watch has a descriptor of its own (a duplicate), so that the server may close the
    connection, and the number be used again, without the watcher looking at a stranger.
    """

    def __init__(self) -> None:
        self._orders: deque[tuple[bool, Watch]] = deque()  # (begin or end, watch)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell: socket.socket | None = None
        self._closed = False

    def watch(self, environ: Mapping[str, Any], on_gone: Callable[[], object]) -> Watch:
        """Call *on_gone* once, in the watcher's thread, if the client of this request closes the
        connection. A client that only ends its sending side counts as gone too.

        To be called when the body has been read: bytes that arrive later (a pipelined request) end
        the watch, because the end behind them cannot be seen without reading them.
        """
        connection = next((environ[name] for name in _SOCKETS if environ.get(name)), None)
        if not isinstance(connection, socket.socket) or isinstance(connection, ssl.SSLSocket):
            return Watch(None, None)
        try:
            watch = Watch(self, connection.dup())
        except OSError:  # closed already: the write will tell
            return Watch(None, None)
        watch.on_gone = on_gone
        self._order(True, watch)
        return watch

    def close(self) -> None:
        """End the thread; what is watched now is not watched any more."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            self._ring()
        if thread is not None:
            thread.join()
        if self._bell is not None:
            self._bell.close()

    def _drop(self, watch: Watch) -> None:
        self._order(False, watch)

    def _order(self, begin: bool, watch: Watch) -> None:
        with self._lock:
            if self._closed:
                _close(watch)
                return
            self._orders.append((begin, watch))
            if self._thread is None:
                self._start()
            self._ring()

    def _start(self) -> None:
        ear, self._bell = socket.socketpair()
        ear.setblocking(False)
        self._bell.setblocking(False)
        self._thread = threading.Thread(
            target=self._run, args=(ear,), name="nitro-disconnect", daemon=True
        )
        self._thread.start()

    def _ring(self) -> None:
        if self._bell is not None:
            # Full of unheard rings, so that one more says nothing; or nobody is there any more.
            with contextlib.suppress(OSError):
                self._bell.send(b"!")

    def _run(self, ear: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, ear:
            selector.register(ear, selectors.EVENT_READ)
            try:
                while not self._closed:
                    for key, _ in selector.select():
                        if key.fileobj is ear:
                            _drain(ear)
                        else:
                            _look(selector, key.data)
                    self._obey(selector)
            finally:
                watched = [key.data for key in selector.get_map().values() if key.data is not None]
                for watch in [*watched, *(watch for _, watch in self._orders)]:
                    _close(watch)

    def _obey(self, selector: selectors.BaseSelector) -> None:
        while self._orders:
            begin, watch = self._orders.popleft()
            if begin:
                _begin(selector, watch)
            else:
                _end(selector, watch)


def _begin(selector: selectors.BaseSelector, watch: Watch) -> None:
    assert watch.socket is not None
    try:
        selector.register(watch.socket, selectors.EVENT_READ, watch)
    except (OSError, ValueError) as error:  # more descriptors than the system can watch
        log.warning("a connection cannot be watched: %s", error)
        _close(watch)


def _end(selector: selectors.BaseSelector, watch: Watch) -> None:
    if watch.socket is not None:
        with contextlib.suppress(KeyError, ValueError):  # was never registered
            selector.unregister(watch.socket)
        _close(watch)


def _look(selector: selectors.BaseSelector, watch: Watch) -> None:
    """The socket is readable: the end of the connection, or more bytes."""
    if watch.socket is None:
        return
    try:
        gone = not watch.socket.recv(1, _PEEK)
    except (BlockingIOError, InterruptedError):
        return
    except OSError:  # reset by the client
        gone = True
    on_gone = watch.on_gone
    _end(selector, watch)
    if gone and on_gone is not None:
        try:
            on_gone()
        except Exception:  # one request's failure must not blind the others
            log.exception("a client has gone, and its request could not be cancelled")


def _close(watch: Watch) -> None:
    sock, watch.socket = watch.socket, None
    if sock is not None:
        sock.close()


def _drain(ear: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while ear.recv(4096):
            continue
