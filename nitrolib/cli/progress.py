"""How a download shows itself: a bar on a terminal, a line now and then elsewhere, or JSON."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from . import console

if TYPE_CHECKING:
    from ..models import DownloadStatus

__all__ = ["Bar", "Events", "Lines", "Progress", "size"]

_BETWEEN_LINES_S = 10.0


class Progress(Protocol):
    """What is told of a download while it runs, and at its end."""

    def show(self, status: DownloadStatus) -> None: ...

    def end(self, status: DownloadStatus) -> None: ...


class Bar:
    """One line of standard error, drawn over and over."""

    def show(self, status: DownloadStatus) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        sys.stderr.write(f"\r{bar(status, width):<{width}}")
        sys.stderr.flush()

    def end(self, status: DownloadStatus) -> None:
        if status.file:  # else nothing had to be fetched
            self.show(status)
            sys.stderr.write("\n")
            sys.stderr.flush()


class Lines:
    """A line of standard error at every tenth of the way, or when much time has passed."""

    def __init__(self) -> None:
        self._tenth = -1
        self._told = 0.0

    def show(self, status: DownloadStatus) -> None:
        tenth = int(10 * status.bytes / status.total) if status.total else 0
        late = time.monotonic() - self._told >= _BETWEEN_LINES_S
        if status.state == "downloading" and status.file and (tenth > self._tenth or late):
            self._tenth, self._told = tenth, time.monotonic()
            console.complain(_words(status))

    def end(self, status: DownloadStatus) -> None:
        if status.state == "downloaded" and status.file and self._tenth < 10:
            console.complain(_words(status))


class Events:
    """JSON on standard output, an object a line: "progress" now and then, and one at the end."""

    def __init__(self) -> None:
        self._last: tuple[Any, ...] = ()

    def show(self, status: DownloadStatus) -> None:
        now = (status.state, status.file, status.bytes)
        if now != self._last:
            self._last = now
            self._write("progress", status)

    def end(self, status: DownloadStatus) -> None:
        self._write(status.state, status)

    def _write(self, event: str, status: DownloadStatus) -> None:
        error = status.error
        told = {
            "event": event,
            "id": status.id,
            "state": status.state,
            "file": status.file,
            "bytes": status.bytes,
            "total": status.total,
            "bytes_per_s": round(status.rate),
        }
        if error is not None:
            told["error"] = {
                "code": error.code,
                "reason": getattr(error, "reason", None),
                "resumable": getattr(error, "resumable", False),
                "message": error.message,
            }
        print(json.dumps(told), flush=True)


def bar(status: DownloadStatus, width: int) -> str:
    """One line of at most *width* characters: name, percentage, bar, bytes, rate, time left."""
    numbers = _numbers(status)
    name = console.printable(status.file or status.id)
    room = width - len(numbers) - 2
    shown = name if len(name) <= room // 2 else name[: max(1, room // 2 - 3)] + "..."
    length = room - len(shown) - 7
    if status.total is None or length < 5:
        return f"{shown}  {numbers}"[:width]
    done = min(1.0, status.bytes / status.total) if status.total else 1.0
    filled = int(done * length)
    drawn = "#" * filled + "." * (length - filled)
    return f"{shown} {done:4.0%} {drawn}  {numbers}"[:width]


def size(count: int) -> str:
    """Bytes in words: 1.5 MiB."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _words(status: DownloadStatus) -> str:
    done = f"{status.bytes / status.total:4.0%} " if status.total else ""
    return f"{status.file} {done}{_numbers(status)}"


def _numbers(status: DownloadStatus) -> str:
    of = "" if status.total is None else f" of {size(status.total)}"
    rate = f"  {size(int(status.rate))}/s" if status.rate else ""
    left = status.seconds_left if status.state == "downloading" else None
    rest = "" if left is None or left > 359_999 else f"  {_clock(int(left))} left"
    return f"{size(status.bytes)}{of}{rate}{rest}"


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
