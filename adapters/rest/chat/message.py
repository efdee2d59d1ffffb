"""The message of a choice: the text of an answer, and the calls of tools in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nitrolib.prompt import Event, ToolCallParser

__all__ = ["MessageReader"]

Delta = dict[str, Any]


class MessageReader:
    """Makes deltas of the text of one answer, fed in pieces; whole messages are their join.

    parser: tells calls from text; None is text and nothing else.
    called: whether there was a call.
    """

    def __init__(self, parser: ToolCallParser | None) -> None:
        self._parser = parser
        self.called = False

    @property
    def notes(self) -> list[str]:
        """What looked like a call and is none."""
        return [] if self._parser is None else list(self._parser.notes)

    def feed(self, text: str) -> list[Delta]:
        """The deltas of the next piece of text."""
        if self._parser is None:
            return [{"content": text}] if text else []
        return list(self._deltas(self._parser.feed(text)))

    def finish(self) -> list[Delta]:
        """The deltas of what was held back to the end."""
        return [] if self._parser is None else list(self._deltas(self._parser.finish()))

    def finish_reason(self, reason: str | None) -> str | None:
        """Why the answer ended: one that came to its own end with calls ended for them."""
        return "tool_calls" if reason == "stop" and self.called else reason

    def whole(self, text: str) -> dict[str, Any]:
        """The message of a whole answer."""
        content = ""
        calls: list[dict[str, Any]] = []
        for delta in [*self.feed(text), *self.finish()]:
            content += delta.get("content", "")
            for part in delta.get("tool_calls", ()):
                if "id" in part:
                    calls.append({key: part[key] for key in ("id", "type", "function")})
                else:
                    calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
        if not calls:
            return {"content": content, "role": "assistant"}
        return {"content": content or None, "role": "assistant", "tool_calls": calls}

    def _deltas(self, events: Iterable[Event]) -> Iterator[Delta]:
        from nitrolib.prompt import ArgumentsDelta, CallStarted, TextDelta

        for event in events:
            if isinstance(event, TextDelta):
                yield {"content": event.text}
            elif isinstance(event, CallStarted):
                self.called = True
                yield _call(
                    event.index,
                    {"name": event.name, "arguments": ""},
                    id=event.id,
                    type="function",
                )
            elif isinstance(event, ArgumentsDelta):
                yield _call(event.index, {"arguments": event.text})


def _call(index: int, function: dict[str, str], **named: str) -> Delta:
    return {"tool_calls": [{"index": index, **named, "function": function}]}
