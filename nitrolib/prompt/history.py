"""Conversations as clients send them: read into messages, and checked where calls and results must
fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest, Unsupported
from .message import Message, ToolCall
from .tools import shown
from .variables import arguments_of

_KNOWN = frozenset(("role", "content", "name", "tool_calls", "tool_call_id"))
# What answers carry besides; clients send them back as part of the history, and no prompt has them.
_OF_ANSWERS = frozenset(("annotations", "audio", "function_call", "reasoning_content", "refusal"))


def read_messages(value: Any) -> tuple[Message, ...]:
    """Messages from the list that OpenAI's clients send, checked as `check_history` does.

    Content is a text, a list of parts of type "text" (joined by line breaks), or null where an
    assistant's message has calls. What an earlier answer carried besides (refusal, reasoning) is
    left out. Raises InvalidRequest naming the place (`messages[3].content`), and Unsupported for
    parts that are no text.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise _bad("messages", value, "a list of messages")
    messages = tuple(_read(f"messages[{index}]", one) for index, one in enumerate(value))
    check_history(messages)
    return messages


def check_history(messages: Sequence[Message]) -> None:
    """Raise InvalidRequest where a conversation is malformed; `field` says where.

    There is at least one message. Only an assistant's message has calls, with ids of their own
    and JSON objects as arguments. After it come the results, one for each call, as messages of
    role "tool" with the call's id; anything else comes when all of them are there.
    """
    if not messages:
        raise _bad("messages", [], "at least one message")
    waiting: list[str] = []  # ids of calls without a result
    caller = 0
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == "tool":
            _check_result(where, message, waiting)
            waiting.remove(message.tool_call_id or "")
            continue
        if message.tool_call_id is not None:
            raise _bad(
                f"{where}.tool_call_id", message.tool_call_id, 'absent: its role is not "tool"'
            )
        if waiting:
            raise _unanswered(caller, waiting)
        if message.tool_calls:
            waiting, caller = _checked_calls(where, message), index
    if waiting:
        raise _unanswered(caller, waiting)


def check_final(messages: Sequence[Message], add_generation_prompt: bool) -> None:
    """Raise InvalidRequest where the last message cannot be continued."""
    if add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt rule each other out",
            field="continue_final_message",
            value=True,
            allowed="one of the two",
        )
    if not messages:
        raise _bad("messages", [], "at least one message, the last of which is continued")


def _check_result(where: str, message: Message, waiting: Sequence[str]) -> None:
    if not message.tool_call_id:
        raise _bad(f"{where}.tool_call_id", message.tool_call_id, "the id of the call it answers")
    if message.tool_calls:
        raise _bad(f"{where}.tool_calls", message.tool_calls, 'absent: its role is "tool"')
    if message.tool_call_id not in waiting:
        raise _bad(
            f"{where}.tool_call_id",
            message.tool_call_id,
            "the id of a call in the assistant's message before it, answered once",
        )


def _checked_calls(where: str, message: Message) -> list[str]:
    if message.role != "assistant":
        raise _bad(f"{where}.tool_calls", message.tool_calls, 'absent: its role is not "assistant"')
    ids: list[str] = []
    for number, call in enumerate(message.tool_calls):
        place = f"{where}.tool_calls[{number}]"
        if not isinstance(call.id, str) or not call.id or call.id in ids:
            raise _bad(f"{place}.id", call.id, "a text that no other call has")
        if not isinstance(call.name, str) or not call.name:
            raise _bad(f"{place}.function.name", call.name, "the name of a tool")
        arguments_of(call, place)
        ids.append(call.id)
    return ids


def _read(where: str, value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise _bad(where, value, "an object with role and content")
    for key, one in value.items():
        if key not in _KNOWN and key not in _OF_ANSWERS and one not in (None, [], {}):
            raise _bad(f"{where}.{key}", one, f"one of the keys {', '.join(sorted(_KNOWN))}")
    role, name, answers = value.get("role"), value.get("name"), value.get("tool_call_id")
    if not isinstance(role, str) or not role:
        raise _bad(f"{where}.role", role, 'a text such as "user"')
    for key, one in (("name", name), ("tool_call_id", answers)):
        if one is not None and not isinstance(one, str):
            raise _bad(f"{where}.{key}", one, "a text")
    calls = _read_calls(f"{where}.tool_calls", value.get("tool_calls"))
    content = _read_content(f"{where}.content", value.get("content"), may_be_null=bool(calls))
    return Message(role, content, name, calls, answers)


def _read_content(where: str, value: Any, *, may_be_null: bool) -> str:
    if isinstance(value, str):
        return value
    if value is None and may_be_null:
        return ""
    if not isinstance(value, Sequence) or isinstance(value, bytes) or not value:
        raise _bad(where, value, "a text, or a list of parts")
    return "\n".join(_read_part(f"{where}[{index}]", part) for index, part in enumerate(value))


def _read_part(where: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str) and kind != "text":
        raise Unsupported(
            f"{where} is a part of type {shown(kind)}, and only text is taken",
            field=f"{where}.type",
            value=kind,
            allowed='"text"',
        )
    text = part.get("text") if kind else None
    if not isinstance(text, str):
        raise _bad(where, part, '{"type": "text", "text": a text}')
    return text


def _read_calls(where: str, value: Any) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise _bad(where, value, "a list of calls")
    return tuple(_read_call(f"{where}[{number}]", one) for number, one in enumerate(value))


def _read_call(where: str, value: Any) -> ToolCall:
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or value.get("type", "function") != "function":
        raise _bad(where, value, 'a call: {"id", "type": "function", "function": {...}}')
    for place, one in (
        (f"{where}.id", value.get("id")),
        (f"{where}.function.name", function.get("name")),
        (f"{where}.function.arguments", function.get("arguments")),
    ):
        if not isinstance(one, str):
            raise _bad(place, one, "a text")
    return ToolCall(value["id"], function["name"], function["arguments"])


def _unanswered(index: int, waiting: Sequence[str]) -> InvalidRequest:
    return _bad(
        f"messages[{index}].tool_calls",
        list(waiting),
        'followed by a message of role "tool" for each call',
    )


def _bad(where: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where} must be {allowed}, got {shown(value)}", field=where, value=value, allowed=allowed
    )
