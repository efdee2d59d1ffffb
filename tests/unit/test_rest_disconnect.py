"""The watcher: a client that goes away is noticed while nothing is written to it."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from nitrolib.adapters.rest.disconnect import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection: the server's end and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client


@pytest.mark.parametrize("name", ["gunicorn.socket", "werkzeug.socket"])
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_the_end_of_a_connection_is_told_once(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket], name: str, how: str
) -> None:
    server, client = pair
    told: list[int] = []
    gone = threading.Event()
    watch = watcher.watch({name: server}, lambda: (told.append(1), gone.set()))
    assert not gone.wait(0.05)
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.shutdown(socket.SHUT_WR) if how == "half" else client.close()
    assert gone.wait(60)
    watch.close()
    assert told == [1]


def test_a_closed_watch_tells_nothing(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    server, client = pair
    told: list[int] = []
    with watcher.watch({"gunicorn.socket": server}, lambda: told.append(1)) as watch:
        pass
    watch.close()
    client.close()
    _settle(watcher)
    assert told == []


def test_watching_leaves_the_connection_as_it_was(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    server, client = pair
    for _ in range(50):
        watcher.watch({"gunicorn.socket": server}, lambda: None).close()
    _settle(watcher)
    client.sendall(b"next request")
    assert server.recv(100) == b"next request"
    server.sendall(b"answer")
    assert client.recv(100) == b"answer"


def test_pending_bytes_end_the_watch_without_spinning_or_eating_them(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    server, client = pair
    told: list[int] = []
    watch = watcher.watch({"gunicorn.socket": server}, lambda: told.append(1))
    client.sendall(b"pipelined")
    deadline = time.monotonic() + 60
    while watch.socket is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert watch.socket is None
    assert server.recv(100) == b"pipelined"
    assert told == []


def test_a_descriptor_used_again_is_not_mistaken(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The server closes the connection under a watch, and its number comes back as another one."""
    server, _ = pair
    number = server.fileno()
    told: list[int] = []
    watch = watcher.watch({"gunicorn.socket": server}, lambda: told.append(1))
    _settle(watcher)
    server.close()
    other, another = socket.socketpair()
    with other, another:
        assert number in (other.fileno(), another.fileno())
        another.close()
        _settle(watcher)
        assert told == []
    watch.close()


def test_a_failing_callback_does_not_blind_the_others(watcher: Watcher) -> None:
    one, other = socket.socketpair()
    two, another = socket.socketpair()
    gone = threading.Event()
    with one, two:
        watcher.watch({"gunicorn.socket": one}, lambda: 1 / 0)
        watcher.watch({"gunicorn.socket": two}, gone.set)
        other.close()
        _settle(watcher)
        another.close()
        assert gone.wait(60)


@pytest.mark.parametrize("environ", [{}, {"gunicorn.socket": None}, {"gunicorn.socket": "x"}])
def test_where_there_is_no_socket_there_is_nothing_to_watch(
    watcher: Watcher, environ: dict[str, object]
) -> None:
    with watcher.watch(environ, lambda: None):
        pass
    assert watcher._thread is None


def test_a_closed_socket_is_nothing_to_watch(watcher: Watcher) -> None:
    one, other = socket.socketpair()
    one.close()
    other.close()
    watcher.watch({"gunicorn.socket": one}, lambda: None).close()


def test_many_watches_from_many_threads_leave_nothing_behind(watcher: Watcher) -> None:
    one, other = socket.socketpair()

    def work() -> None:
        for _ in range(200):
            with watcher.watch({"gunicorn.socket": one}, lambda: None):
                pass

    with one, other:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = watcher.watch({"gunicorn.socket": one}, lambda: None)
        _settle(watcher)
        assert last.socket is not None
        last.close()
        _settle(watcher)
        assert last.socket is None
        assert not watcher._orders


def test_close_ends_the_thread_and_closes_what_was_watched() -> None:
    watcher = Watcher()
    one, other = socket.socketpair()
    with one, other:
        watch = watcher.watch({"gunicorn.socket": one}, lambda: None)
        thread = watcher._thread
        watcher.close()
        watcher.close()
        assert thread is not None
        assert not thread.is_alive()
        assert watch.socket is None
        late = watcher.watch({"gunicorn.socket": one}, lambda: None)
        assert late.socket is None
        late.close()


def _settle(watcher: Watcher) -> None:
    """Wait until the watcher has seen everything that was there before."""
    one, other = socket.socketpair()
    seen = threading.Event()
    with one:
        watcher.watch({"gunicorn.socket": one}, seen.set)
        other.close()
        assert seen.wait(60)
