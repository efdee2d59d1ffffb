"""The grammar of calls: an answer that follows it is nothing but calls, with arguments that obey
their tools' schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .call_syntax import CallSyntax
    from .tools import Tool

MAX_CALLS = 16  # in one answer, so that it comes to an end

# Beside these nothing in a schema speaks of names that it does not list.
_CLOSED_KEYS = frozenset((
    "$comment", "$defs", "$id", "$schema", "default", "definitions", "description", "examples",
    "properties", "required", "title", "type",
))  # fmt: skip

_SPACE = "SPACE?"


class JsonRule(Protocol):
    """Writes a schema as the right side of a Lark rule, or raises InvalidRequest naming `field`:
    `nitrolib.sampling.constraint.json_rule`."""

    def __call__(self, schema: Any, field: str) -> str: ...


def plain_json_rule(schema: Any, field: str) -> str:  # noqa: ARG001 - what llguidance checks itself
    """A schema as llguidance takes it, with one space after commas and colons: white space of any
    length would let a model write nothing else."""
    style = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return f"%json {json.dumps({**schema, 'x-guidance': style})}"


def call_grammar(
    syntax: CallSyntax,
    tools: Mapping[str, Tool],
    *,
    many: bool = True,
    control: Mapping[str, int] | None = None,
    spelled: bool = False,
    json_rule: JsonRule = plain_json_rule,
) -> str:
    """The grammar in llguidance's Lark dialect: 1 to MAX_CALLS calls of `tools`, one without
    `many`, then the end of the answer.

    tools: by the place that an error about their schema names (`tools[0].function.parameters`).
    control: texts that are single tokens without a text of their own; they are written as tokens,
        and with `spelled` also letter by letter.
    Between the parts of a call stands white space or none, 8 characters at most. Arguments have no
    names but those that a schema lists, where it lists some and says nothing of others.
    """
    grammar = _Grammar(control or {}, spelled)
    more = MAX_CALLS - 1 if many and syntax.many else 0
    start = [*grammar.texts(syntax.begin), "call"]
    if more:
        again = [*grammar.texts(syntax.separator, before=True), _SPACE, "call"]
        start.append(f"({' '.join(again)}){{0,{more}}}")
    start += grammar.texts(syntax.end, before=True)
    rules = [f"start: {' '.join(start)}"]
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(tools))))
    for number, (place, tool) in enumerate(tools.items()):
        rules.append(f"call_{number}: {' '.join(_call(grammar, syntax, tool, number))}")
        rules.append(f"args_{number}: {json_rule(_schema(tool), place)}")
    rules.append(r"SPACE: /[ \t\n\r]{1,8}/")
    return "\n".join(rules) + "\n"


class _Grammar:
    """Writes texts as literals, or as tokens where they are control tokens."""

    def __init__(self, control: Mapping[str, int], spelled: bool) -> None:
        self._spelled = spelled
        self._control = sorted(control.items(), key=lambda item: -len(item[0]))

    def texts(self, texts: Sequence[str], *, before: bool = False) -> Iterator[str]:
        """Texts with white space after each of them, or before."""
        for text in texts:
            if before:
                yield _SPACE
            yield from self.text(text)
            if not before:
                yield _SPACE

    def text(self, text: str) -> Iterator[str]:
        for name, token in self._control:
            before, found, after = text.partition(name) if name else (text, "", "")
            if found:
                yield from self.text(before)
                yield f"(<[{token}]> | {json.dumps(name)})" if self._spelled else f"<[{token}]>"
                yield from self.text(after)
                return
        if text:
            yield json.dumps(text)


def _call(grammar: _Grammar, syntax: CallSyntax, tool: Tool, number: int) -> Iterator[str]:
    yield from grammar.texts(syntax.call_begin)
    if syntax.between is not None:
        yield from grammar.text(tool.name)
        yield from grammar.texts(syntax.between, before=True)
        yield from (_SPACE, f"args_{number}")
    else:
        yield from grammar.texts(["{"])
        if syntax.index_key is not None:
            yield from grammar.texts([json.dumps(syntax.index_key), ":"])
            yield from (r'/"[0-9]{1,2}"/', _SPACE, '","', _SPACE)
        members = (json.dumps(syntax.name_key), ":", json.dumps(tool.name), ",")
        yield from grammar.texts([*members, json.dumps(syntax.arguments_key), ":"])
        yield f"args_{number}"
        yield from grammar.texts(["}"], before=True)
    yield from grammar.texts(syntax.call_end, before=True)


def _schema(tool: Tool) -> dict[str, Any]:
    """The tool's schema, of an object in any case."""
    schema = {"type": "object", **tool.parameters}
    if "properties" in schema and _CLOSED_KEYS.issuperset(schema):
        schema["additionalProperties"] = False
    return schema
