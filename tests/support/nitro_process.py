"""The `nitro` command as a real child process, on pipes or on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
NITRO = [sys.executable, "-m", "nitrolib"]

# Makes the terminal on descriptor 0 the controlling one, so that a typed Ctrl-C is a signal.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


# All warnings are errors, but that llama-cpp-python opens the null device when it is imported and
# leaves it open.
WARNINGS = "error,ignore:unclosed file <_io.TextIOWrapper name='/dev/null':ResourceWarning"

_chosen: dict[str, str] = {}


@contextlib.contextmanager
def chosen(**settings: str) -> Iterator[None]:
    """The settings of all processes that are started meanwhile."""
    _chosen.update({f"NITRO_{name.upper()}": text for name, text in settings.items()})
    try:
        yield
    finally:
        _chosen.clear()


def environment(**more: str) -> dict[str, str]:
    """This process's environment without any setting of nitro in it but those chosen."""
    rest = {name: text for name, text in os.environ.items() if not name.startswith("NITRO_")}
    return rest | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": WARNINGS} | _chosen | more


def nitro(
    *words: str | Path, given: bytes = b"", timeout: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end with *given* on standard input."""
    child = subprocess.run(
        [*NITRO, *map(str, words)],
        input=given,
        capture_output=True,
        cwd=ROOT,
        env=environment(**env),
        timeout=timeout,
        check=False,
    )
    out, err = (text.decode("utf-8", "replace") for text in (child.stdout, child.stderr))
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


@contextlib.contextmanager
def running(*words: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process under way; killed at the end if it still runs."""
    child = subprocess.Popen(
        [*NITRO, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
        **options,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


class Terminal:
    """A pseudo-terminal with a nitro process on it. What it printed so far is `shown`."""

    def __init__(self, words: Sequence[str | Path]) -> None:
        self.master, slave = os.openpty()
        self.shown = ""
        command = [sys.executable, "-c", _TAKE_TERMINAL, *NITRO, *map(str, words)]
        self.child = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env=environment(TERM="xterm"),
            start_new_session=True,
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, text: str, timeout: float = 60) -> str:
        """Read until *text* shows; returns and forgets everything up to its end."""
        deadline = time.monotonic() + timeout
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not show; there is {self.shown!r}"
            self.shown += self._read()
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def wait_for_more(self, length: int, timeout: float = 60) -> str:
        """Read until at least *length* characters are there that nobody waited for yet."""
        deadline = time.monotonic() + timeout
        while len(self.shown) < length:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"nothing more shows; there is {self.shown!r}"
            self.shown += self._read()
        return self.shown

    def press(self, key: str, text: str) -> str:
        """Press a key until *text* shows. A signal that comes between Python's last look and its
        wait for a key is noticed at the next one only: a person presses again, and so does this."""
        for _ in range(9):
            self.type(key)
            with contextlib.suppress(AssertionError):
                return self.wait_for(text, 5)
        return self.wait_for(text, 5)

    def _read(self) -> str:
        try:
            data = os.read(self.master, 4096)
        except OSError:  # Linux: EIO once the other end is closed
            data = b""
        assert data, f"the terminal was closed after {self.shown!r}"
        return data.decode("utf-8", "replace")

    def status(self, timeout: float = 60) -> int:
        """Wait for the end. What is printed meanwhile must be read, or it would block."""
        with contextlib.suppress(AssertionError):
            self.wait_for("\0", timeout)
        return self.child.wait(timeout)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)
