"""The REST server as a real process: gunicorn, its settings file, a real port."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """A running server. `log` is what it has written to stderr."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and parsed JSON body of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            kind = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, {**kind, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        return self.request("POST", path, body)

    def get(self, path: str) -> tuple[int, Any]:
        return self.request("GET", path)

    def status(self) -> dict[str, Any]:
        """model_data of modelstatus."""
        code, answer = self.get("/inferences/llamacpp/modelstatus")
        assert code == 200
        data: dict[str, Any] = answer["model_data"]
        return data

    def send(self, path: str, body: Any) -> socket.socket:
        """Send a request and return its connection, nothing read: to be closed at will."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        connection.sendall(head.encode() + data)
        return connection

    @staticmethod
    def read_to_end(connection: socket.socket) -> bytes:
        """Head and body of the answer on *connection*, its chunk framing removed."""
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return str(answer.headers).encode() + answer.read()

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], timeout: float = 60) -> None:
        """Poll modelstatus until *holds* of its model_data."""
        deadline = time.monotonic() + timeout
        while not holds(data := self.status()):
            assert time.monotonic() < deadline, f"did not come true: {data}"
            time.sleep(0.005)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serve(config: str = "python:nitrolib.adapters.gunicorn", **settings: Any) -> Iterator[Server]:
    """A server with *settings* (as NITRO_* variables; one native thread unless they say so), ready
    to answer; stopped at the end."""
    port = free_port()
    rest = {name: text for name, text in os.environ.items() if not name.startswith("NITRO_")}
    with tempfile.TemporaryDirectory() as folder:
        given = {"port": port, "threads": 1, "data_dir": folder, **settings}
        variables = {f"NITRO_{name.upper()}": str(value) for name, value in given.items()}
        log_path = Path(folder) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", config],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**rest, **variables, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
                start_new_session=True,
            )
        server = Server(port, process, log_path)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            _stop(server)


def _wait_until_ready(server: Server, timeout: float = 240) -> None:
    deadline = time.monotonic() + timeout
    while True:
        assert server.process.poll() is None, f"the server ended:\n{server.log}"
        assert time.monotonic() < deadline, f"the server does not answer:\n{server.log}"
        try:
            code, _ = server.get("/healthz")
        except OSError:
            time.sleep(0.02)
        else:
            assert code == 200
            return


def _stop(server: Server) -> None:
    """End the master and its worker; if they do not obey, say what each of their threads does."""
    process = server.process
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGFPE)  # the fault handler prints every stack
        process.wait(60)
        raise AssertionError(f"the server did not stop:\n{server.log}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
