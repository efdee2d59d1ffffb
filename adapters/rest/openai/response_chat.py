"""A request of the Responses API as the chat that it is, and errors of the chat as its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .items import Dialogue

__all__ = ["chat_body", "own_field", "refuse_unsupported"]

# Fields that ask for something that is not done here, and the values that ask for nothing.
_REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "background": lambda value: value is False,
    "context_management": lambda value: value == [],
    "conversation": lambda _value: False,
    "moderation": lambda _value: False,
    "prompt": lambda _value: False,
    "prompt_cache_retention": lambda value: value == "in_memory",
    "reasoning": lambda value: all(
        one is None or (name == "effort" and one == "none") for name, one in value.items()
    ),
    "service_tier": lambda value: value in ("auto", "default"),
    "stream_options": lambda value: not value.get("include_obfuscation"),
    "text": lambda value: value.get("verbosity") in (None, "medium"),
}
_INSIDE = {"stream_options": "stream_options/include_obfuscation", "text": "text/verbosity"}

LOGPROBS = "message.output_text.logprobs"

# Fields of the chat that this API has under another name or in another form.
_NAMES = {
    "json_schema": "text/format",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "n_probs": "top_logprobs",
    "prompt": "input",
    "response_format": "text/format",
}


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    """Raise Unsupported naming the first field that asks for what is not done here."""
    for name, harmless in _REFUSED.items():
        if name in body and not harmless(body[name]):
            field = _INSIDE.get(name, name)
            raise Unsupported(
                f"{field} {shorten(body[name])} is not supported",
                field=field,
                value=shorten(body[name]),
            )


def chat_body(
    body: Mapping[str, Any], dialogue: Dialogue, sampling: Sequence[str]
) -> dict[str, Any]:
    """The body of a chat that asks for what *body* does. *sampling* names the fields that both
    have alike. Raises InvalidRequest and Unsupported for tools, choices and forms of text."""
    tools, choice = _tools(body)
    asked = {name: body[name] for name in sampling if name in body}
    asked |= {
        "messages": dialogue.messages,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "max_tokens": body.get("max_output_tokens", -1),
        "context_policy": "drop_oldest_turns" if body.get("truncation") == "auto" else "error",
    }
    if tools:
        asked |= {"tools": tools, "tool_choice": choice}
    elif choice not in ("auto", "none"):
        asked["tool_choice"] = choice  # refused, in the words that a chat has for it
    form = _format(body)
    if form is not None:
        asked["response_format"] = form
    if _wants_logprobs(body):
        if tools and choice != "none":
            field = "top_logprobs" if body.get("top_logprobs") else "include"
            raise Unsupported(
                f"{field} is not supported with tools that may be called: a call has no place for "
                "log probabilities",
                field=field,
                value=shorten(body[field]),
                allowed="no log probabilities, no tools, or tool_choice none",
            )
        asked |= {"logprobs": True, "top_logprobs": body.get("top_logprobs", 0)}
    return asked


def own_field(error: InvalidRequest, dialogue: Dialogue) -> None:
    """Make an *error* of the chat call its field as the client called it."""
    if error.field is None:
        return
    given = error.field
    error.field = _own(re.sub(r"[.\[]", "/", given).replace("]", ""), dialogue)
    if given in error.message:
        error.message = error.message.replace(given, error.field, 1)


def _own(field: str, dialogue: Dialogue) -> str:
    """*field* of the chat, as a path, as a path of this API."""
    for depth in (4, 2):  # a call inside a message, a message
        start = "/".join(field.split("/")[:depth])
        if start in dialogue.places:
            rest = field[len(start) :].replace("/tool_call_id", "/call_id")
            return dialogue.places[start] + rest
    if field.startswith("tools/"):
        return field.replace("/function", "", 1)
    start, _, rest = field.partition("/")
    return "/".join(filter(None, (_NAMES.get(start, start), rest)))


def _wants_logprobs(body: Mapping[str, Any]) -> bool:
    return bool(body.get("top_logprobs")) or LOGPROBS in body.get("include", ())


def _tools(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    """The tools and the choice among them as a chat has them."""
    given = body.get("tools") or ()
    tools = [_tool(f"tools/{index}", one) for index, one in enumerate(given)]
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, str):
        return tools, choice
    kind = choice.get("type")
    if kind == "function":
        return tools, {"type": "function", "function": {"name": choice.get("name")}}
    if kind != "allowed_tools":
        raise Unsupported(
            f"tool_choice/type {shorten(kind)} is not supported",
            field="tool_choice/type",
            value=shorten(kind),
            allowed="function or allowed_tools",
        )
    return _allowed(tools, choice), _mode(choice)


def _tool(where: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        kind = shorten(tool["type"])
        raise Unsupported(
            f"{where} has type {kind}, and only functions are supported",
            field=f"{where}/type",
            value=kind,
            allowed="function",
        )
    if tool.get("name") is None:
        raise InvalidRequest(f"{where}/name is required", field=f"{where}/name", allowed="a name")
    known = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in known if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _allowed(tools: list[dict[str, Any]], choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools that the *choice* allows: the model is shown no others."""
    given = choice.get("tools")
    listed = given if isinstance(given, list) else []
    named = [one.get("name") for one in listed if isinstance(one, dict)]
    known = [tool["function"]["name"] for tool in tools]
    if not named or not all(name in known for name in named):
        raise InvalidRequest(
            "tool_choice/tools must name tools of this request",
            field="tool_choice/tools",
            value=shorten(given),
            allowed="an array of objects with the type function and the name of a tool",
        )
    return [tool for tool in tools if tool["function"]["name"] in named]


def _mode(choice: Mapping[str, Any]) -> str:
    mode = choice.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise InvalidRequest(
            f"tool_choice/mode must be auto or required, got {shorten(mode)}",
            field="tool_choice/mode",
            value=shorten(mode),
            allowed="auto or required",
        )
    return str(mode)


def _format(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The form of the text as a chat's response_format."""
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") != "json_schema":
        return dict(form) or None
    if form.get("schema") is None:
        field = "text/format/schema"
        raise InvalidRequest(f"{field} is required", field=field, allowed="a JSON schema")
    return {"type": "json_schema", "json_schema": {"schema": form["schema"]}}
