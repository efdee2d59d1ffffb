"""AnswerText: sampled tokens in, the text that may be sent out, and whether the text ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..text import Detokenizer, StopMatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .request import FinishReason

__all__ = ["AnswerText", "IndentGuard"]


class AnswerText:
    """The text of one answer: whole characters, cut at the first stop string, without leading white
    space if `strip`, and ended by a line indented by less than `n_indent` (0 is off).

    ended: set once the text has come to its end: "stop" at a stop string, "length" at a line that
        is indented too little. What comes first in the text wins.
    """

    def __init__(
        self, pieces: Sequence[bytes], stops: Sequence[str], *, strip: bool, n_indent: int
    ) -> None:
        self._detokenizer = Detokenizer(pieces)
        self._matcher = StopMatcher(stops)
        self._strip = strip
        self._indent = IndentGuard(n_indent) if n_indent > 0 else None
        self.ended: FinishReason | None = None

    @property
    def stop(self) -> str | None:
        """The stop string that ended it."""
        return self._matcher.matched if self.ended == "stop" else None

    @property
    def inside_character(self) -> bool:
        """Whether the tokens so far end inside a character."""
        return bool(self._detokenizer.pending)

    def feed(self, token: int) -> str:
        """The text that this token lets out, perhaps ""."""
        text = self._matcher.feed(self._detokenizer.feed(token))
        if self._matcher.matched is not None:
            self.ended = "stop"
        return self._shaped(text) if text else text

    def flush(self) -> str:
        """At the end: the text held back by half characters and possible stop strings."""
        if self.ended is not None:
            return ""
        text = self._matcher.feed(self._detokenizer.finish())
        if self._matcher.matched is not None:  # the flushed rest completed it
            self.ended = "stop"
        else:
            text += self._matcher.finish()
        return self._shaped(text)

    def _shaped(self, text: str) -> str:
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        if self._indent is not None:
            text = self._indent.feed(text)
            if self._indent.broken:
                self.ended = "length"
        return text


class IndentGuard:
    """Passes text on until a line other than the first is indented by less than `least` spaces and
    tabs. The newline and the indentation still pass, the first other character does not: a newline
    counts as one, so that an empty line ends the text too. It looks before anything is sent, so
    that no reader has seen what is cut."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._indent: int | None = None  # of the line that has just begun; None inside a line
        self.broken = False

    def feed(self, text: str) -> str:
        """The part of `text` that passes; nothing does once `broken`."""
        if self.broken:
            return ""
        at, end = 0, len(text)
        while at < end:
            if self._indent is None:
                at = text.find("\n", at) + 1
                if not at:
                    break
                self._indent = 0
            elif text[at] in " \t":
                self._indent += 1
                at += 1
            elif self._indent < self._least:
                self.broken = True
                return text[:at]
            else:
                self._indent = None
        return text
