"""Items of the Responses API: those of a request become whole items with ids, and items become the
messages of a chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

from ..ids import random_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Dialogue", "Item", "read_items"]

Item = dict[str, Any]

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_SYSTEM = ("system", "developer")


def read_items(given: str | Sequence[Mapping[str, Any]]) -> list[Item]:
    """Whole items, as they are kept: each with type, id and status, texts as parts.

    *given* is checked against the schema. Raises InvalidRequest for what an item of its type lacks
    and Unsupported for types that are not known here, both naming the place (`input/2/content`).
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_read(f"input/{index}", one) for index, one in enumerate(given)]


def _read(where: str, given: Mapping[str, Any]) -> Item:
    item = {name: value for name, value in given.items() if value is not None}
    kind = item.get("type", "message")
    if kind not in _PREFIXES:
        raise Unsupported(
            f"{where} has type {shorten(kind)}, which is not supported",
            field=f"{where}/type",
            value=shorten(kind),
            allowed=", ".join(_PREFIXES),
        )
    whole = {
        "type": kind,
        "id": item.get("id") or f"{_PREFIXES[kind]}_{random_id(24)}",
        "status": "completed",
    }
    if kind == "function_call":
        names = ("call_id", "name", "arguments")
        return whole | {name: _required(where, item, name) for name in names}
    if kind == "function_call_output":
        output = _required(where, item, "output")
        if not isinstance(output, str):
            output = [_part(f"{where}/output/{n}", one, "input_text") for n, one in _each(output)]
        return whole | {"call_id": _required(where, item, "call_id"), "output": output}
    role = _required(where, item, "role")
    form = "output_text" if role == "assistant" else "input_text"
    content = _required(where, item, "content")
    parts = [{"type": form, "text": content}] if isinstance(content, str) else content
    return whole | {
        "role": role,
        "content": [_part(f"{where}/content/{n}", one, form) for n, one in _each(parts)],
    }


def _each(parts: Iterable[Any]) -> Iterable[tuple[int, Any]]:
    return enumerate(parts)


def _required(where: str, item: Mapping[str, Any], name: str) -> Any:
    if name not in item:
        raise InvalidRequest(f"{where}/{name} is required", field=f"{where}/{name}", allowed="it")
    return item[name]


def _part(where: str, part: Mapping[str, Any], form: str) -> Item:
    """A part of text in the form of its place; an assistant's may come in either."""
    kind = part["type"]
    if kind != form and not (form == "output_text" and kind == "input_text"):
        raise Unsupported(
            f"{where} has type {shorten(kind)}, and only {form} is supported there",
            field=f"{where}/type",
            value=shorten(kind),
            allowed=form,
        )
    if part.get("text") is None:
        raise InvalidRequest(f"{where}/text is required", field=f"{where}/text", allowed="a text")
    if form == "input_text":
        return {"type": form, "text": part["text"]}
    return {"type": form, "text": part["text"], "annotations": [], "logprobs": []}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The messages that a response answers, as a chat has them.

    messages: a call joins the assistant's message or call before it, as the answer that it was.
    places: where every message (`messages/3`) and every call (`messages/3/tool_calls/0`) came from,
        as an error names it: a place of the input, "instructions", or "previous_response_id".
    """

    messages: list[dict[str, Any]]
    places: dict[str, str]

    @classmethod
    def of(
        cls, instructions: str | None, before: Sequence[Item], items: Sequence[Item]
    ) -> Dialogue:
        """What is asked: the *instructions*, what came *before*, and the *items* of the request."""
        made = cls([], {})
        if instructions is not None:
            made._add("instructions", {"role": "system", "content": instructions})
        for item in before:
            made._take("previous_response_id", item)
        for index, item in enumerate(items):
            made._take(f"input/{index}", item)
        return made

    def _take(self, place: str, item: Item) -> None:
        if item["type"] == "function_call":
            self._call(place, item)
        elif item["type"] == "function_call_output":
            message = {"role": "tool", "content": _text(item["output"])}
            self._add(place, {**message, "tool_call_id": item["call_id"]})
        else:
            role = "system" if item["role"] in _SYSTEM else item["role"]
            self._add(place, {"role": role, "content": _text(item["content"])})

    def _call(self, place: str, item: Item) -> None:
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self._add(place, {"role": "assistant", "content": ""})
        calls = self.messages[-1].setdefault("tool_calls", [])
        self.places[f"messages/{len(self.messages) - 1}/tool_calls/{len(calls)}"] = place
        calls.append(call)

    def _add(self, place: str, message: dict[str, Any]) -> None:
        self.places[f"messages/{len(self.messages)}"] = place
        self.messages.append(message)


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
