"""The terminal side of every command: what may be decorated, where errors go, how to stop."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = [
    "Style",
    "complain",
    "describe",
    "prepare",
    "print_json",
    "printable",
    "read_stdin",
    "release_stdout",
    "table",
    "terminable",
    "write_answer",
]

TERMINATED = 128 + 15  # what a shell reports for a program that SIGTERM ended
_CONTROLS = (*range(32), *range(127, 160))
_HARMLESS = {code: None for code in _CONTROLS if chr(code) not in "\t\n"}


class Style:
    """Colours for *stream*: none unless it is a terminal that knows them and NO_COLOR is unset
    (https://no-color.org)."""

    def __init__(self, stream: TextIO) -> None:
        dumb = os.environ.get("TERM") == "dumb" or os.name == "nt"
        self.active = stream.isatty() and not dumb and not os.environ.get("NO_COLOR")

    @classmethod
    def of_stdout(cls) -> Style:
        return cls(sys.stdout)

    def bold(self, text: str) -> str:
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        return self._wrap("2", text)

    def green(self, text: str) -> str:
        return self._wrap("32", text)

    def red(self, text: str) -> str:
        return self._wrap("31", text)

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.active else text


def prepare() -> None:
    """A character that the terminal's encoding lacks is shown as `?`; it must not end an answer.
    A stream that the caller closed (`nitro run x <&-`) is an empty one."""
    if sys.stdin is None:
        sys.stdin = _nowhere("r")
    if sys.stdout is None:
        sys.stdout = _nowhere("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def complain(message: str) -> None:
    """One line on standard error, whatever *message* holds; nothing if that is gone too."""
    with contextlib.suppress(OSError, ValueError):
        print(f"nitro: {printable(message)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """*text* with everything escaped that could move the cursor: names and texts from a file are
    not ours."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def write_answer(text: str) -> None:
    """Text of a model to standard output, at once: whoever reads a pipe waits as much as whoever
    looks at a terminal. A terminal gets no control characters but tabs and line ends."""
    sys.stdout.write(text.translate(_HARMLESS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def describe(error: Exception) -> str:
    """What went wrong, with the path of the file concerned as Unix tools print it."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename is not None else reason
    message = str(error)
    path: str | None = getattr(error, "path", None)
    if path is None or not message.startswith(f"{os.path.basename(path)}:"):
        return message
    return path + message.removeprefix(os.path.basename(path))


def _nowhere(mode: str) -> TextIO:
    return cast("TextIO", open(os.devnull, mode, encoding="utf-8"))


def release_stdout() -> None:
    """Flush standard output for the last time. Where that fails, because nobody reads or a disk is
    full, send the rest nowhere: the interpreter would complain about it when it ends, and end with
    a status of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_stdin() -> str:
    """All of standard input without its last line end; UTF-8 whatever the locale says."""
    from ..errors import InvalidRequest

    raw = sys.stdin.buffer.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"standard input is not UTF-8 at byte {error.start}",
            field="prompt",
            allowed="UTF-8 text",
        ) from error
    return text.replace("\r\n", "\n").removesuffix("\n")


def print_json(value: Any) -> None:
    """*value* as one JSON object on standard output, readable and with its last line end."""
    import json

    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=not unicode), flush=True)


def table(rows: list[tuple[str, str]], *, indent: str = "") -> str:
    """Two columns, the first as wide as it must be; further lines of a value stay in theirs."""
    width = max((len(name) for name, _ in rows), default=0)
    gap = "\n" + indent + " " * (width + 2)
    lines = (f"{indent}{name:<{width}}  {value}".rstrip() for name, value in rows)
    return "\n".join(line.replace("\n", gap) for line in lines)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM ends the program through its `finally` clauses, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; whoever called main() keeps theirs
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
