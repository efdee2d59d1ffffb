"""Tools for templates that know none: a conversation with calls as one of plain messages.

The form is described in docs/tools.md; what a model answers is read as `call_syntax.HERMES`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .call_syntax import written
from .message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tools import Tool, ToolChoice

_MAY_CALL = "If none of them helps, answer in plain words."
_MUST_CALL = "Answer with a call of a tool."
_MUST_CALL_ONE = "Answer with a call of the tool {name}."
_SEVERAL = "Several calls are written one after the other, in a block each."
_ONE = "Make one call at most."


def instructions(tools: Sequence[Tool], choice: ToolChoice, *, many: bool) -> str:
    """What a model is told of its tools."""
    if choice.mode == "named":
        must = _MUST_CALL_ONE.format(name=choice.name)
    else:
        must = _MUST_CALL if choice.must_call else _MAY_CALL
    return "\n".join((
        "You can call tools. Each line here describes one, with a JSON schema of its arguments:",
        "<tools>",
        *(tool.json for tool in tools),
        "</tools>",
        "To call a tool, write a block of exactly this form, with the tool's name and arguments:",
        "<tool_call>",
        '{"name": "a name", "arguments": {"an argument": "its value"}}',
        "</tool_call>",
        _SEVERAL if many else _ONE,
        "What a tool answers comes back as <tool_response>. " + must,
    ))  # fmt: skip


def plain_messages(
    messages: Sequence[Message], told: str = "", *, system: bool = True
) -> list[Message]:
    """The conversation without tool calls and results: calls stand in the assistant's text, results
    in a message of the user's, together with what the user says next.

    told: the instructions; they end the first system message, or are one where there is none.
    Without `system` (the template shows no such message) they begin the user's first message.
    """
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    plain: list[Message] = []
    results: list[str] = []
    for message in messages:
        if message.role == "tool":
            results.append(_result(message, names))
        elif message.role == "user" and results:
            plain.append(Message("user", "\n".join([*results, "", message.content]), message.name))
            results = []
        else:
            plain += [Message("user", "\n".join(results))] if results else []
            results = []
            plain.append(_without_calls(message))
    if results:
        plain.append(Message("user", "\n".join(results)))
    return _told(plain, told, "system" if system else "user") if told else plain


def _told(messages: list[Message], told: str, role: str) -> list[Message]:
    for index, message in enumerate(messages):
        if message.role != role:
            continue
        texts = (told, message.content) if role == "user" else (message.content, told)
        changed = Message(role, "\n\n".join(filter(None, texts)), message.name)
        return [*messages[:index], changed, *messages[index + 1 :]]
    return [Message(role, told), *messages]


def _without_calls(message: Message) -> Message:
    if not message.tool_calls:
        return message
    texts = (message.content, written(message.tool_calls))
    return Message(message.role, "\n".join(filter(None, texts)), message.name)


def _result(message: Message, names: dict[str, str]) -> str:
    name = names.get(message.tool_call_id or "", message.name or "")
    content = json.dumps({"name": name, "content": message.content}, ensure_ascii=False)
    return f"<tool_response>\n{content}\n</tool_response>"
