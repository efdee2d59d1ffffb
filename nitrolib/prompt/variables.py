"""What a chat template is given: messages and tools as the plain data that transformers passes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidRequest
from .tools import shown
from .traced import written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .message import Message, ToolCall
    from .tools import Tool

# A template may build a control token from a role, as in '<|' + role + '|>'. These names are as
# good as the template's own text; any other role's name comes from outside and stays text.
ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))

# What only a renderer sets. transformers lets the caller put other texts for BOS and EOS; here
# those would be texts that cannot become tokens.
RESERVED = frozenset((
    "add_generation_prompt", "bos_token", "continue_final_message", "eos_token", "messages",
    "self", "tools",
))  # fmt: skip

MAX_KWARGS_CHARS = 1 << 20
_SHORT_ID = 9


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a template wants calls.

    arguments: "object" for parsed arguments, "text" for their JSON.
    short_ids: it takes no ids but those of nine letters and digits, as Mistral's do. Others are
        replaced by nine that are made from them, in calls and results alike.
    none_content: it asks whether the content of a call's message is None; else that is "".
    parts: it takes contents only as lists of typed parts.
    """

    arguments: Literal["object", "text"] = "object"
    short_ids: bool = False
    none_content: bool = False
    parts: bool = False


def message_data(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """Messages as dicts. Raises InvalidRequest for a call whose arguments are no JSON object; its
    `field` is, say, `messages[3].tool_calls[0].arguments`."""
    return [_message(index, message, dialect) for index, message in enumerate(messages)]


def tool_data(tools: Sequence[Tool] | None) -> list[dict[str, Any]] | None:
    """Tools as dicts; None for no tools, as transformers passes it."""
    return [tool.as_dict() for tool in tools] if tools else None


def template_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's variables for the template, checked and copied: plain data under names that only
    a caller may set. Raises InvalidRequest (field `chat_template_kwargs.<name>`)."""
    for name in kwargs:
        if not isinstance(name, str) or name in RESERVED:
            raise _bad_kwarg(name, kwargs[name], f"a name other than {', '.join(sorted(RESERVED))}")
    thinking = kwargs.get("enable_thinking")
    if thinking is not None and not isinstance(thinking, bool):  # the text "false" would be true
        raise _bad_kwarg("enable_thinking", thinking, "true or false")
    return {name: _kwarg(name, value) for name, value in kwargs.items()}


def _kwarg(name: str, value: Any) -> Any:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad_kwarg(name, value, f"plain JSON ({error})") from None
    if len(text) > MAX_KWARGS_CHARS:
        raise _bad_kwarg(name, value, f"at most {MAX_KWARGS_CHARS} characters of JSON")
    return json.loads(text)


def arguments_of(call: ToolCall, where: str) -> dict[str, Any]:
    """The arguments of a call, parsed. Raises InvalidRequest (field `where`.arguments)."""
    try:
        arguments = json.loads(call.arguments, parse_constant=_no_constant)
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad_arguments(call, where, str(error)) from None
    if not isinstance(arguments, dict):
        raise _bad_arguments(call, where, "it is something else")
    return arguments


def _message(index: int, message: Message, dialect: Dialect) -> dict[str, Any]:
    role = written(message.role) if message.role in ROLES else message.role
    data: dict[str, Any] = {"role": role, "content": message.content}
    if dialect.parts:
        data["content"] = [{"type": written("text"), "text": message.content}]
    if message.name is not None:
        data["name"] = message.name
    if message.tool_calls:
        if not message.content and dialect.none_content:
            data["content"] = None
        data["tool_calls"] = [
            _call(call, f"messages[{index}].tool_calls[{number}]", dialect)
            for number, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        data["tool_call_id"] = _call_id(message.tool_call_id, dialect)
    return data


def _call(call: ToolCall, where: str, dialect: Dialect) -> dict[str, Any]:
    parsed = arguments_of(call, where)  # also where the template gets the text: it must be JSON
    return {
        "id": _call_id(call.id, dialect),
        "type": written("function"),
        "function": {
            "name": call.name,
            "arguments": parsed if dialect.arguments == "object" else call.arguments,
        },
    }


def _call_id(given: str, dialect: Dialect) -> str:
    fits = len(given) == _SHORT_ID and given.isascii() and given.isalnum()
    if not dialect.short_ids or fits:
        return given
    return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:_SHORT_ID]


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _bad_arguments(call: ToolCall, where: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where}.arguments is not the text of a JSON object: {reason}",
        field=f"{where}.arguments",
        value=call.arguments,
        allowed="the text of a JSON object",
    )


def _bad_kwarg(name: object, value: Any, allowed: str) -> InvalidRequest:
    where = f"chat_template_kwargs.{name}"
    return InvalidRequest(
        f"{where} must be {allowed}, got {shown(value)}", field=where, value=value, allowed=allowed
    )
