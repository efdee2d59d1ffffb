"""The output of a response: deltas of an answer become items, and the events that tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..chat.probs import logprobs
from ..ids import random_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nitrolib.engine.request import TokenProbs

__all__ = ["Output"]

Event = dict[str, Any]


class Output:
    """Grows as the answer does. Whole responses and streamed ones are made by it alike, so that
    they cannot differ.

    items: those so far; the last one may be under way, see `finish`.
    listed: tokens in each list of the log probabilities; None is no log probabilities.
    """

    def __init__(self, listed: int | None) -> None:
        self.items: list[dict[str, Any]] = []
        self._listed = listed
        self._probs: list[TokenProbs] = []  # of text that is still held back
        self._open = False

    def feed(self, delta: Mapping[str, Any], probs: Sequence[TokenProbs] = ()) -> Iterator[Event]:
        """The events of a *delta*, in the form of a chat's, whose text took the steps *probs*."""
        self._probs += probs
        if delta.get("content"):
            yield from self._text(delta["content"])
        for part in delta.get("tool_calls", ()):
            yield from self._call(part)

    def finish(self, *, whole: bool) -> Iterator[Event]:
        """The events of the end; not *whole*: the answer was cut. An answer without anything is an
        empty message."""
        if not self.items:
            yield from self._begin_message()
        if self._open:
            yield from self._end("completed" if whole else "incomplete")

    def _text(self, text: str) -> Iterator[Event]:
        if not self._open or self.items[-1]["type"] != "message":
            yield from self._begin_message()
        fresh, self._probs = self._logprobs(), []
        part = self.items[-1]["content"][0]
        part["text"] += text
        part["logprobs"] += fresh
        yield self._event("response.output_text.delta", delta=text, logprobs=fresh)

    def _logprobs(self) -> list[dict[str, Any]]:
        if self._listed is None:
            return []
        found: list[dict[str, Any]] = logprobs(self._probs, self._listed)["content"]
        return found

    def _call(self, part: Mapping[str, Any]) -> Iterator[Event]:
        if "id" in part:
            yield from self._begin(
                {
                    "type": "function_call",
                    "id": f"fc_{random_id(24)}",
                    "call_id": part["id"],
                    "name": part["function"]["name"],
                    "arguments": "",
                    "status": "in_progress",
                }
            )
        more = part["function"]["arguments"]
        if more:
            self.items[-1]["arguments"] += more
            yield self._event("response.function_call_arguments.delta", delta=more)

    def _begin_message(self) -> Iterator[Event]:
        item = {"type": "message", "id": f"msg_{random_id(24)}", "role": "assistant"}
        yield from self._begin({**item, "content": [], "status": "in_progress"})
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.items[-1]["content"].append(part)
        yield self._event("response.content_part.added", part=_copy(part))

    def _begin(self, item: dict[str, Any]) -> Iterator[Event]:
        if self._open:
            yield from self._end("completed")
        self.items.append(item)
        self._open = True
        yield self._item_event("response.output_item.added")

    def _end(self, status: str) -> Iterator[Event]:
        item = self.items[-1]
        if item["type"] == "message":
            (part,) = item["content"]
            found = {"text": part["text"], "logprobs": list(part["logprobs"])}
            yield self._event("response.output_text.done", **found)
            yield self._event("response.content_part.done", part=_copy(part))
        else:
            found = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **found)
        item["status"] = status
        self._open = False
        yield self._item_event("response.output_item.done")

    def _event(self, kind: str, **more: Any) -> Event:
        """An event inside the last item."""
        item = self.items[-1]
        where = {"item_id": item["id"], "output_index": len(self.items) - 1}
        if item["type"] == "message":
            where["content_index"] = 0
        return {"type": kind, **where, **more}

    def _item_event(self, kind: str) -> Event:
        item = self.items[-1]
        if item["type"] == "message":
            item = {**item, "content": [_copy(part) for part in item["content"]]}
        return {"type": kind, "output_index": len(self.items) - 1, "item": dict(item)}


def _copy(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part as it is now: events are not to change after they were made."""
    return {**part, "logprobs": list(part["logprobs"])}
