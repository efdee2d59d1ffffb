"""What llama.cpp says, in Python's logging: to the logger "nitrolib.native", line by line."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_logger = logging.getLogger("nitrolib.native")

# Levels of ggml: 1 info, 2 warning, 3 error, 4 debug, 5 goes on with the line before.
_LEVELS = {2: logging.WARNING, 3: logging.ERROR}
_CONTINUES = 5


class NativeLog:
    """Receives the library's log, for the life of the process.

    Warnings and errors keep their level, all else is debug. What is said while somebody
    listens is debug too: the errors among it are told by the exception that follows.
    """

    def __init__(self, callback_type: Callable[..., Any]) -> None:
        # ctypes keeps no reference: this one must live as long as the library may log.
        self.callback = callback_type(self._receive)
        self._here = threading.local()

    def _receive(self, level: int, text: bytes | None, _data: int | None) -> None:
        errors: list[str] | None = getattr(self._here, "errors", None)
        python_level = _LEVELS.get(level, logging.DEBUG)
        if level == _CONTINUES:
            python_level = getattr(self._here, "level", logging.DEBUG)
        elif errors is None and python_level == logging.DEBUG and not _logger.isEnabledFor(10):
            self._here.level, self._here.partial = python_level, ""
            return
        self._here.level = python_level
        told = getattr(self._here, "partial", "") + (text or b"").decode(errors="replace")
        *lines, self._here.partial = told.split("\n")
        for line in filter(None, map(str.strip, lines)):
            if errors is None:
                _logger.log(python_level, "%s", line)
                continue
            if python_level >= logging.ERROR:
                errors.append(line)
            _logger.debug("%s", line)

    def listen(self) -> list[str]:
        """From now on collect what is said as an error by calls of this thread."""
        errors: list[str] = []
        self._here.errors, self._here.partial = errors, ""
        return errors

    def rest(self) -> None:
        """Stop listening in this thread."""
        self._here.errors = None

    @contextlib.contextmanager
    def reported(self) -> Iterator[list[str]]:
        """Collect errors for whoever raises them; for calls that are not made once a token."""
        try:
            yield self.listen()
        finally:
            self.rest()


def reason(errors: list[str]) -> str:
    """The line that tells most about a failure, without the name of the C++ function before it;
    "" if the library gave none."""
    if not errors:
        return ""
    line = errors[0]
    _function, colon, rest = line.partition(": ")
    return rest if colon and " " not in _function else line
