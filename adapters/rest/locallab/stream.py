"""Streams of the LocalLab dialect: the text of an answer becomes events of plain text.

An event is `data: `, a piece of the text as it is, and a blank line. The dialect's own client reads
lines, strips white space from both ends of each, and knows a few texts as signals; so a piece never
ends in white space, is never one of the signals, and holds no line break. What SSE knows besides
(comments, names, heartbeats) would reach that client as text, and is not sent.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EventWriter", "Form", "error_line"]

Form = Literal["sse", "dual", "lines"]
"""How events are written.

sse: one line an event, its line breaks written as backslash and n (or r), as LocalLab does.
dual: the same, and a second line of bare JSON with the piece as it is, which the client's chat
    stream reads and everybody else passes over.
lines: as the standard of server-sent events has it: one `data:` line for every line of the piece.
"""

DONE = "[DONE]"
_ERROR = "Error:"
_BREAK = re.compile(r"\r\n|\r|\n")


class EventWriter:
    """Writes the events of one answer; what it returns may be b"": there is nothing to send yet."""

    def __init__(self, form: Form = "sse") -> None:
        self._form = form
        self._held = ""  # white space that goes in front of the next piece

    def text(self, chunk: str) -> bytes:
        """The events of the next *chunk* of the answer."""
        text = self._held + chunk
        end = _sendable(text) if self._form != "lines" else _before_return(text)
        self._held = text[end:]
        return b"".join(map(self._piece, _split(text[:end])))

    def end(self) -> bytes:
        """The last event. White space at the end of the answer is not sent: no reader that strips
        lines could be told of it."""
        rest, self._held = self._held, ""
        last = self._piece(rest) if rest.endswith("\r") or (rest and self._form == "lines") else b""
        return last + self._event(DONE, DONE)

    def error(self, message: str) -> bytes:
        """The events that end a stream which failed: the error, then the end mark."""
        self._held = ""
        line = error_line(message)
        return self._event(f"{_ERROR} {line}", {"error": line}) + self._event(DONE, DONE)

    def _piece(self, text: str) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return self._event(text, {"choices": [choice], "content": text})

    def _event(self, text: str, document: Any) -> bytes:
        if self._form == "lines":
            lines = _BREAK.split(text)
        else:
            lines = [_BREAK.sub(lambda found: r"\r" if found[0] == "\r" else r"\n", text)]
        event = "".join(f"data: {line}\n" for line in lines)
        if self._form == "dual":
            event += json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
        return (event + "\n").encode()


def error_line(message: str) -> str:
    """*message* on one line, and never with the word by which the client knows that it should send
    its request again (up to four times, every answer printed in full)."""
    line = " ".join(message.split())
    return re.sub("timeout", "time limit", line, flags=re.IGNORECASE) or "the generation failed"


def _sendable(text: str) -> int:
    """How much of *text* may be sent now: all but the white space at its end. Line feeds are
    escaped, so they are none; a carriage return waits for the line feed that may follow."""
    end = _before_return(text)
    while end and text[end - 1].isspace() and text[end - 1] not in "\r\n":
        end -= 1
    return end


def _before_return(text: str) -> int:
    return len(text) - text.endswith("\r")


def _split(text: str) -> Iterator[str]:
    """*text* in pieces that no reader takes for a signal."""
    if text == DONE:
        yield from ("[", "DONE]")
    elif text.startswith(_ERROR):
        yield from ("Error", text.removeprefix("Error"))
    elif text:
        yield text
