"""CallSyntax: how the calls of a model look, among the ways that are well known."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .traits import PROBE_KEY, PROBE_NAME, PROBE_SECOND_NAME, PROBE_VALUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .message import ToolCall
    from .traits import Traits

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSyntax:
    """How calls are written: runs of texts with white space between them or none.

    A block is `begin`, calls with `separator` between them, `end`. A call is `call_begin`, its
    name and its arguments, `call_end`. Name and arguments are the members `name_key` and
    `arguments_key` of a JSON object, with `index_key` in front where that is set (the call's
    number, as a string). Or, where `between` is set, they are the bare name, the texts of
    `between`, and the JSON object of the arguments.

    name: what this syntax is called.
    many: whether a block may hold more than one call.
    """

    name: str
    begin: Tokens = ()
    call_begin: Tokens = ()
    name_key: str = "name"
    arguments_key: str = "arguments"
    index_key: str | None = None
    between: Tokens | None = None
    call_end: Tokens = ()
    separator: Tokens = ()
    end: Tokens = ()
    many: bool = True

    @property
    def marker(self) -> str:
        """The text by which a call is told from other text; "" where that is a JSON object which
        begins the answer."""
        return next(iter((*self.begin, *self.call_begin)), "")

    @property
    def trigger(self) -> str:
        """The text from which on a grammar for calls holds; without a marker it does so only at
        the beginning of the answer."""
        return self.marker or f'{{"{self.name_key}":'


HERMES = CallSyntax(name="hermes", call_begin=("<tool_call>",), call_end=("</tool_call>",))
"""Calls in tags, one each: Hermes, Qwen; and every model whose template knows no tools."""

# Those that cannot be mistaken for another come first.
KNOWN = (
    CallSyntax(
        name="deepseek",
        begin=("<｜tool▁calls▁begin｜>",),
        call_begin=("<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>"),
        between=("```json",),
        call_end=("```", "<｜tool▁call▁end｜>"),
        end=("<｜tool▁calls▁end｜>",),
    ),
    CallSyntax(
        name="deepseek-v3.1",
        begin=("<｜tool▁calls▁begin｜>",),
        call_begin=("<｜tool▁call▁begin｜>",),
        between=("<｜tool▁sep｜>",),
        call_end=("<｜tool▁call▁end｜>",),
        end=("<｜tool▁calls▁end｜>",),
    ),
    CallSyntax(
        name="command-r",
        begin=("<|START_ACTION|>", "["),
        name_key="tool_name",
        arguments_key="parameters",
        index_key="tool_call_id",
        separator=(",",),
        end=("]", "<|END_ACTION|>"),
    ),
    CallSyntax(name="mistral", begin=("[TOOL_CALLS]", "["), separator=(",",), end=("]",)),
    CallSyntax(name="mistral-args", call_begin=("[TOOL_CALLS]",), between=("[ARGS]",)),
    CallSyntax(name="granite", begin=("<|tool_call|>", "["), separator=(",",), end=("]",)),
    CallSyntax(name="phi-4", call_begin=("<|tool_call|>",), call_end=("<|/tool_call|>",)),
    HERMES,
    CallSyntax(
        name="functionary", call_begin=("<function=",), between=(">",), call_end=("</function>",)
    ),
    CallSyntax(name="llama-3", arguments_key="parameters", many=False),
    CallSyntax(name="json", many=False),
)


def recognise(traits: Traits) -> CallSyntax | None:
    """The syntax in which a template writes calls, or None: none of the known ones, or the
    template knows no tools."""
    if not traits.tools or traits.one_call is None:
        return None
    for syntax in KNOWN:
        found = _pattern(syntax, [PROBE_NAME]).search(traits.one_call)
        if found is None or not (syntax.marker or _begins_an_answer(traits, found.start())):
            continue
        several = traits.two_calls is not None and _pattern(
            syntax, [PROBE_NAME, PROBE_SECOND_NAME]
        ).search(traits.two_calls)
        return replace(syntax, many=syntax.many and bool(several))
    return None


def _begins_an_answer(traits: Traits, start: int) -> bool:
    """Whether what stands before `start` is what stands before the text of any answer."""
    assert traits.one_call is not None
    before = traits.one_call[:start].rstrip()
    return bool(before) and traits.before_answer.rstrip() == before


def _pattern(syntax: CallSyntax, names: Sequence[str]) -> re.Pattern[str]:
    """Finds the probes' calls. Members that a call may have besides (its id) are passed over."""
    arguments = _spaced(("{", f'"{PROBE_KEY}"', ":", f'"{PROBE_VALUE}"', "}"))
    other = r'"\w+"\s*:\s*"[^"]*"'
    calls = []
    for name in names:
        if syntax.between is not None:
            call = r"\s*".join((re.escape(name), _spaced(syntax.between), arguments))
        else:
            named = _spaced((f'"{syntax.name_key}"', ":", f'"{name}"', ","))
            key = _spaced((f'"{syntax.arguments_key}"', ":"))
            parts = r"\{", rf"(?:{other}\s*,)?", named, key, arguments, rf"(?:,\s*{other})?", r"\}"
            call = r"\s*".join(parts)
        calls.append(
            r"\s*".join(filter(None, (_spaced(syntax.call_begin), call, _spaced(syntax.call_end))))
        )
    between = r"\s*" + _spaced(syntax.separator) + r"\s*"
    block = (_spaced(syntax.begin), between.join(calls), _spaced(syntax.end))
    return re.compile(r"\s*".join(filter(None, block)))


def _spaced(tokens: Sequence[str]) -> str:
    return r"\s*".join(map(re.escape, tokens))


def written(calls: Sequence[ToolCall]) -> str:
    """Calls as HERMES writes them. Their arguments are JSON."""
    return "\n".join(
        f'<tool_call>\n{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": '
        f"{call.arguments}}}\n</tool_call>"
        for call in calls
    )
