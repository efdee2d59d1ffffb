"""What llama.cpp says, in Python's logging: to the logger "nitrolib.native", line by line."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_logger = logging.getLogger("nitrolib.native")
# For who set up logging: elsewhere Python would print the library's warnings on standard error.
_logger.addHandler(logging.NullHandler())

# Levels of ggml.h: 1 debug, 2 info, 3 warning, 4 error, 5 goes on with the line before. (The
# comments of the bindings still number them as they were long ago.)
_LEVELS = {3: logging.WARNING, 4: logging.ERROR}
_CONTINUES = 5


class NativeLog:
    """Receives the library's log, for the life of the process.

    Warnings and errors keep their level, all else is debug. Errors that somebody listens for are
    debug too: the exception that follows tells them.
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
            if errors is not None and python_level >= self._here.told:
                if python_level >= logging.ERROR:
                    errors.append(line)
                _logger.debug("%s", line)
            else:
                _logger.log(python_level, "%s", line)

    def listen(self, told: int = logging.WARNING) -> list[str]:
        """From now on collect what is said as an error by calls of this thread. What is of the
        level `told` or above will be told by who listens, so it is debug here."""
        errors: list[str] = []
        here = self._here
        here.errors, here.partial, here.told = errors, "", told
        return errors

    def rest(self) -> None:
        """Stop listening in this thread."""
        self._here.errors = None

    @contextlib.contextmanager
    def reported(self) -> Iterator[list[str]]:
        """Collect errors for whoever raises them; warnings remain what they are."""
        try:
            yield self.listen(logging.ERROR)
        finally:
            self.rest()


def reason(errors: list[str]) -> str:
    """The line that tells why a load failed, without the C++ function's name before it; "" if the
    library gave none."""
    if not errors:
        return ""
    function, _, rest = errors[0].partition(": ")
    line = rest if rest and " " not in function else errors[0]
    return line.removeprefix("error loading model: ")
