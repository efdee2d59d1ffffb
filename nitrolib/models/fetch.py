"""Fetching one file: ranges that go on after cuts, its head judged first, its sum checked last."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import DownloadError
from .client import NETWORK_ERRORS
from .connection import Aborted
from .judge import judge
from .policy import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from .client import Client
    from .connection import Guard
    from .part import Part
    from .policy import FetchPolicy

__all__ = ["Fetch", "free_bytes"]

_LONGEST_WAIT_S = 30.0
_UNKNOWN = 1 << 62  # a size that no header contradicts; what comes is counted all the same
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")


class _Changed(Exception):
    """What the server has is not what the part is a beginning of: start over."""


class _Later(Exception):
    """The server cannot answer now; after `wait_s` it may."""

    def __init__(self, status: int, wait_s: float) -> None:
        super().__init__(f"the server answers {status}")
        self.wait_s = wait_s


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written to the disk of *folder*."""
    return shutil.disk_usage(folder).free


@dataclass
class Fetch:
    """One file on its way into a part.

    first: the file of the model that is loaded. size: bytes that it must have, None if unknown.
    progress: called with the bytes that are here, and those of the whole or None.
    wait: sleeps for so many seconds, less when the download is ended.
    """

    part: Part
    client: Client
    guard: Guard
    policy: FetchPolicy
    first: bool = True
    size: int | None = None
    progress: Callable[[int, int | None], None] = lambda _done, _total: None
    free: Callable[[Path], int] = free_bytes
    wait: Callable[[float], object] = time.sleep
    _mark: int = field(default=0, init=False)  # most bytes that were ever here
    _answered: bool = field(default=False, init=False)  # a name that is wrong is not tried long

    def run(self) -> None:
        """Fetch the whole file, check it, and give it its name.

        Raises DownloadError with its reason, StorageError, and Aborted. A DownloadError whose
        `resumable` is True leaves a part that a later fetch can go on with.
        """
        failures = 0
        while True:
            self._mark = max(self._mark, self.part.length)
            before = self._mark
            try:
                self._attempt()
                break
            except NETWORK_ERRORS as error:
                cause: Exception = error
            except (_Later, _Changed) as error:
                cause = error
            if self.guard.aborted:
                raise Aborted
            if self.guard.late:
                raise DownloadError(
                    "the time for this download is over", reason="time", resumable=True
                )
            failures = 1 if self.part.length > before else failures + 1
            if failures > (self.policy.retries if self._answered else min(2, self.policy.retries)):
                raise _gave_up(self.part.origin.url, cause) from cause
            self.wait(self._pause(failures, cause))
        self._check()
        self.part.finish()

    def _pause(self, failures: int, cause: Exception) -> float:
        if isinstance(cause, _Changed):
            self.part.restart()
            return 0.0
        pause = self.policy.backoff_s * 2.0 ** (failures - 1)
        if isinstance(cause, _Later):
            pause = max(pause, cause.wait_s)
        return min(pause, _LONGEST_WAIT_S)

    def _attempt(self) -> None:
        part = self.part
        if part.origin.total is not None and part.length >= part.origin.total:
            if part.length > part.origin.total:
                raise _Changed
            self._judge(iter(()), part.length)
            return
        with self.client.get(part.origin.url, self._range()) as response:
            self._accept(response)
            total = part.origin.total
            self._check_size(total)
            self.progress(part.length, total)
            chunks = self._chunks(response)
            self._judge(chunks, _UNKNOWN if total is None else total)
            for chunk in chunks:
                self._take(chunk)
        if total is None:
            part.note(total=part.length)
        elif part.length < total:
            raise ConnectionError("the connection ended early")

    def _range(self) -> dict[str, str]:
        """Headers that ask for the rest. Bytes that nothing could tell to be of another state of
        the file are fetched again."""
        part = self.part
        if part.length == 0:
            return {}
        if part.origin.validator:
            return {"range": f"bytes={part.length}-", "if-range": part.origin.validator}
        if part.origin.sha256:
            return {"range": f"bytes={part.length}-"}
        part.restart()
        return {}

    def _accept(self, response: httpx.Response) -> None:
        """Take what the head of an answer says; raises for one that brings nothing."""
        self._answered = True
        status, headers = response.status_code, response.headers
        if status in _AGAIN:
            raise _Later(status, _seconds(headers.get("retry-after", "")))
        if status == 416:
            raise _Changed
        if status not in (200, 206):
            raise refusal(f"the server answers {status}", status=status)
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml", "application/json"):
            raise refusal(f"the server sends {kind}, not a model file")
        if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise refusal("the server sends the file in an encoding that was not asked for")
        if status == 206:
            total = self._accept_range(headers.get("content-range", ""))
        else:
            if self.part.length:
                self.part.restart()  # it knows no ranges, or has something else now
            total = _length(headers.get("content-length", ""))
        told = {"etag": headers.get("etag", ""), "modified": headers.get("last-modified", "")}
        self.part.note(total=total, **told)

    def _accept_range(self, content_range: str) -> int | None:
        found = _CONTENT_RANGE.match(content_range.strip())
        known = self.part.origin.total
        if found is None or int(found[1]) != self.part.length:
            raise _Changed
        total = known if found[3] == "*" else int(found[3])
        if known is not None and total != known:
            raise _Changed
        return total

    def _check_size(self, total: int | None) -> None:
        """Refuse what is too large, not as large as was told, or finds no room."""
        if total is None:
            return
        if self.size is not None and total != self.size:
            raise DownloadError(
                f"the file has {total} bytes, and {self.size} were told", reason="size"
            )
        if total > self.policy.max_bytes:
            raise DownloadError(
                f"the file has {total} bytes, and {self.policy.max_bytes} are allowed",
                reason="size",
            )
        needed = total - self.part.length + self.policy.keep_free_bytes
        free = self.free(self.part.path.parent)
        if needed > free:
            raise DownloadError(
                f"{total - self.part.length} bytes are to come, {free} are free on the disk, and "
                f"{self.policy.keep_free_bytes} must stay free",
                reason="space",
                needed_bytes=needed,
                free_bytes=free,
            )

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        for chunk in response.iter_raw():  # as they come: a cut loses none
            self.guard.check()
            yield chunk

    def _take(self, chunk: bytes) -> None:
        total = self.part.origin.total
        most = self.policy.max_bytes if total is None else total
        if self.part.length + len(chunk) > most:
            raise DownloadError(f"the server sends more than {most} bytes", reason="size")
        self.part.append(chunk)
        self.progress(self.part.length, total)

    def _judge(self, chunks: Iterator[bytes], size: int) -> None:
        """Read the head of the file, from the part and then from the server."""
        position = 0

        def more(n: int) -> bytes:
            nonlocal position
            while self.part.length <= position:
                chunk = next(chunks, None)
                if chunk is None:
                    return b""
                self._take(chunk)
            data = self.part.read(position, n)
            position += len(data)
            return data

        name = self.part.target.name
        judge(name, size, more, backend=self.policy.backend, first=self.first)

    def _check(self) -> None:
        """The whole file: its size, its sum, and its head once more, now that the size is known."""
        part = self.part
        if self.size is not None and part.length != self.size:
            raise DownloadError(
                f"the file has {part.length} bytes, and {self.size} were told", reason="size"
            )
        self._judge(iter(()), part.length)
        wanted = part.origin.sha256
        if wanted is not None:
            found = part.digest()
            if found != wanted:
                raise DownloadError(
                    f"the SHA-256 of {part.target.name} is {found}, and {wanted} was told",
                    reason="checksum",
                    expected=wanted,
                    found=found,
                )


def _gave_up(url: str, cause: Exception) -> DownloadError:
    why = str(cause) or type(cause).__name__
    return DownloadError(
        f"{urlsplit(url).hostname} cannot be read from: {why}", reason="network", resumable=True
    )


def _seconds(retry_after: str) -> float:
    """Seconds of a Retry-After header; its other form, a date, counts as none."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0


def _length(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
