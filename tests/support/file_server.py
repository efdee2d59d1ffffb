"""A file server with faults: the real sockets and headers that downloads are tested against."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Served:
    """What a path answers with.

    cuts: after how many bytes of an answer's body the connection is cut, one for each answer; once
        they are used up, answers are whole. statuses: of the next answers instead of the file.
    piece: bytes sent at a time; before_piece: called before each, with the bytes sent so far.
    """

    data: bytes = b""
    ranges: bool = True
    etag: str | None = "auto"
    modified: str | None = None
    type: str = "application/octet-stream"
    length: bool = True  # whether Content-Length is told
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str | None = None
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    piece: int = 64 << 10
    before_piece: Callable[[int], object] = lambda _sent: None

    def validator(self) -> str | None:
        if self.etag == "auto":
            return f'"{hashlib.md5(self.data).hexdigest()}"'
        return self.etag


@dataclass
class FileServer:
    """`files` maps paths to what they answer with; `requests` is every request that came: method,
    path and headers."""

    url: str
    port: int
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def put(self, path: str, data: bytes = b"", **fields: Any) -> str:
        """Serve *data* at *path*; returns its URL."""
        self.files[path] = Served(data, **fields)
        return self.url + path

    def put_json(self, path: str, value: Any) -> str:
        return self.put(path, json.dumps(value).encode(), type="application/json")

    def of(self, path: str) -> list[dict[str, str]]:
        """The headers of every request for *path*."""
        return [headers for _, asked, headers in self.requests if asked == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        site = self.server.site
        path = unquote(urlsplit(self.path).path)
        sent = {name.lower(): value for name, value in self.headers.items()}
        site.requests.append((self.command, path, sent))
        served = site.files.get(path)
        if served is None:
            self._plain(404, b"nothing here")
        elif served.statuses:
            self._plain(served.statuses.pop(0), b"not now")
        elif served.redirect is not None:
            self._plain(302, b"", location=served.redirect)
        else:
            self._file(served, sent, body=body)

    def _plain(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, served: Served, sent: dict[str, str], *, body: bool) -> None:
        data, start = served.data, 0
        validator = served.validator()
        asked = sent.get("range") if served.ranges else None
        if asked and sent.get("if-range") not in (None, validator, served.modified):
            asked = None
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(data):
                return self._plain(416, b"", **{"content-range": f"bytes */{len(data)}"})
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        told = {"content-type": served.type, "etag": validator, "last-modified": served.modified}
        for name, value in {**told, **served.headers}.items():
            if value is not None:
                self.send_header(name, value)
        if served.length:
            self.send_header("content-length", str(len(data) - start))
        else:
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()
        if body:
            self._body(served, memoryview(data)[start:])
        return None

    def _body(self, served: Served, data: memoryview) -> None:
        cut = served.cuts.pop(0) if served.cuts else None
        sent = 0
        with contextlib.suppress(OSError):  # the client went away
            while sent < len(data):
                served.before_piece(sent)
                end = min(sent + served.piece, len(data) if cut is None else cut, len(data))
                if end > sent:
                    self.wfile.write(data[sent:end])
                sent = end
                if cut is not None and sent >= cut:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    break
        if cut is not None:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: FileServer

    def handle_error(self, *_: object) -> None:
        """Clients that go away are part of the tests."""


@contextlib.contextmanager
def file_server(host: str = "127.0.0.1") -> Iterator[FileServer]:
    """A server on a free port of this machine, until the block ends."""
    server = _Server((host, 0), _Handler)
    port = server.server_address[1]
    server.site = FileServer(url=f"http://{host}:{port}", port=port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
