"""What a chat template can do, found out by rendering small conversations with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, ModelFileError
from .message import Message, ToolCall
from .tools import Tool
from .variables import Dialect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .chat_template import ChatTemplate

# Words that stand in no template, so that finding one in a rendering says that it was put there.
PROBE_NAME = "nl_probe_tool"
PROBE_SECOND_NAME = "nl_probe_next"
PROBE_KEY = "nl_probe_key"
PROBE_VALUE = "nl_probe_value"
PROBE_ARGUMENTS = f'{{"{PROBE_KEY}": "{PROBE_VALUE}"}}'
_TEXT = "nl probe text"
_RESULT = "nl probe result"
_IDS = ("nlprobe01", "nlprobe02")  # nine characters: Mistral's templates take no other length

_ASKS_FOR_NONE = re.compile(r"""content['"]?\]?\s+is\s+(?:not\s+)?none""")
_ASKS_FOR_NINE = re.compile(r"length\s*[!=]=\s*9\b")

_TOOL = Tool(PROBE_NAME, "probe", {"type": "object", "properties": {PROBE_KEY: {"type": "string"}}})
_USER = Message("user", _TEXT)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a template can do.

    dialect: how it wants messages.
    system: it shows a system message.
    tools: it shows tools, calls and their results, all three.
    one_call, two_calls: what it makes of a conversation with one call and with two in one message;
        None where it refuses that, or has no tools.
    before_answer: what stands before the text of an answer.
    """

    dialect: Dialect
    system: bool
    tools: bool
    one_call: str | None
    two_calls: str | None
    before_answer: str


@lru_cache(maxsize=64)
def dialect_of(template: ChatTemplate) -> Dialect:
    """How a template wants messages. One that leaves its budget over a probe is not asked again:
    the probes of a hostile template would add up."""
    try:
        return _dialect(template)
    except ModelFileError:
        return Dialect()


@lru_cache(maxsize=64)
def traits_of(template: ChatTemplate) -> Traits:
    """Everything there is to know of a template; a few renderings, once for each template."""
    try:
        return _traits(template)
    except ModelFileError:
        return Traits(Dialect(), True, False, None, None, "")


def _dialect(template: ChatTemplate) -> Dialect:
    dialect = Dialect(
        short_ids=bool(_ASKS_FOR_NINE.search(template.source)),
        none_content=bool(_ASKS_FOR_NONE.search(template.source)),
    )
    if "type" in template.source and not _shows(template, [_USER], dialect, _TEXT):
        in_parts = replace(dialect, parts=True)
        if _shows(template, [_USER], in_parts, _TEXT):
            dialect = in_parts
    if "tool_calls" not in template.source:
        return dialect
    # A template that writes arguments out instead of turning them to JSON would write a mapping as
    # Python does, or fail.
    text = _tried(template, _conversation(1), dialect)
    if text is None or f"'{PROBE_KEY}'" in text or PROBE_KEY not in text:
        as_text = replace(dialect, arguments="text")
        if PROBE_ARGUMENTS in (_tried(template, _conversation(1), as_text) or ""):
            return as_text
    return dialect


def _traits(template: ChatTemplate) -> Traits:
    dialect = dialect_of(template)
    one_call = two_calls = None
    if "tools" in template.source and "tool_calls" in template.source:
        one_call = _tried(template, _conversation(1), dialect)
        two_calls = _tried(template, _conversation(2), dialect)
    shown = PROBE_NAME in (_tried(template, [_USER], dialect, tools=True) or "") or (
        PROBE_NAME in (_tried(template, [Message("system", "x"), _USER], dialect, tools=True) or "")
    )
    answered = _tried(template, [_USER, Message("assistant", _RESULT)], dialect) or ""
    heard = one_call is not None and all(
        word in one_call for word in (PROBE_NAME, PROBE_KEY, PROBE_VALUE, _RESULT)
    )
    return Traits(
        dialect=dialect,
        system=_shows(template, [Message("system", _RESULT), _USER], dialect, _RESULT),
        tools=shown and heard,
        one_call=one_call if heard else None,
        two_calls=two_calls if heard and PROBE_SECOND_NAME in (two_calls or "") else None,
        before_answer=answered.partition(_RESULT)[0],
    )


def _conversation(calls: int) -> list[Message]:
    names = (PROBE_NAME, PROBE_SECOND_NAME)[:calls]
    made = tuple(
        ToolCall(given, name, PROBE_ARGUMENTS) for given, name in zip(_IDS, names, strict=False)
    )
    results = [Message("tool", _RESULT, name=one.name, tool_call_id=one.id) for one in made]
    return [_USER, Message("assistant", "", tool_calls=made), *results]


def _shows(
    template: ChatTemplate, messages: Sequence[Message], dialect: Dialect, text: str
) -> bool:
    return text in (_tried(template, messages, dialect) or "")


def _tried(
    template: ChatTemplate, messages: Sequence[Message], dialect: Dialect, tools: bool = False
) -> str | None:
    """The rendered text, or None where the template does not take the messages. Raises
    ModelFileError where it leaves the sandbox."""
    try:
        return str.__str__(
            template.rendered(messages, tools=(_TOOL,) if tools else None, dialect=dialect)
        )
    except InvalidRequest:
        return None
