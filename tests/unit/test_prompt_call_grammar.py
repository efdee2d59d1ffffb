"""The grammar of calls: what it lets through is what the parser reads, and obeys the schemas."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

import pytest
from support.chat_templates import cases

from nitrolib.errors import InvalidRequest
from nitrolib.prompt import Message, Tool, ToolCallParser, joined, prepare_chat
from nitrolib.prompt.call_grammar import MAX_CALLS, call_grammar
from nitrolib.prompt.call_syntax import HERMES, KNOWN, CallSyntax
from nitrolib.prompt.chat_template import ChatTemplate

pytest.importorskip("llguidance", reason="needs the extra constraints")
constraint = pytest.importorskip("nitrolib.sampling.constraint")

TOOLS = {
    "tools[0]": Tool(
        "get",
        "",
        {
            "type": "object",
            "properties": {"a": {"type": "string", "maxLength": 5}, "n": {"enum": [1, 2]}},
            "required": ["a"],
        },
    ),
    "tools[1]": Tool("get_weather"),
}
SYNTAX = {syntax.name: syntax for syntax in KNOWN}


@dataclass(frozen=True)
class Bytes:
    """A vocabulary of the 256 bytes, the control tokens of a syntax, and an end token."""

    texts: tuple[str, ...] = ()
    special: dict[str, int] = field(init=False)
    pieces: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        special = {text: 257 + number for number, text in enumerate(self.texts)}
        object.__setattr__(self, "special", special)
        pieces = (*(bytes((byte,)) for byte in range(256)), *[b""] * (1 + len(self.texts)))
        object.__setattr__(self, "pieces", pieces)

    @property
    def control(self) -> frozenset[int]:
        return frozenset(range(256, len(self.pieces)))

    @property
    def eog(self) -> frozenset[int]:
        return frozenset((256,))

    def __hash__(self) -> int:
        return id(self)

    def ids(self, text: str) -> list[int]:
        for name, token in self.special.items():
            before, found, after = text.partition(name)
            if found:
                return [*self.ids(before), token, *self.ids(after)]
        return list(text.encode())

    def text(self, ids: list[int]) -> str:
        names = {token: text.encode() for text, token in self.special.items()}
        return b"".join(names.get(one, self.pieces[one]) for one in ids).decode()


PLAIN = Bytes()


def taken(grammar: str, text: str, vocabulary: Bytes = PLAIN) -> bool:
    """Whether the grammar takes a text as a whole answer."""
    state = constraint.compile_source("lark", grammar, vocabulary, "tools").start()
    for token in vocabulary.ids(text):
        if not state.allows(token):
            return False
        state.accept(token)
    return state.may_end


def grammar(syntax: CallSyntax = HERMES, **options) -> str:
    return call_grammar(syntax, TOOLS, json_rule=constraint.json_rule, **options)


CALL = '<tool_call>\n{"name": "get", "arguments": {"a": "x"}}\n</tool_call>'
OTHER = '<tool_call>{"name":"get_weather","arguments":{}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (CALL, True),
        (OTHER, True),
        (CALL + "\n" + OTHER, True),
        (CALL + OTHER * (MAX_CALLS - 1), True),
        (CALL + OTHER * MAX_CALLS, False),
        ("", False),
        ("Hm " + CALL, False),
        (CALL + " Hm", False),
        (CALL.replace("get", "gets"), False),
        (CALL.replace('"a": "x"', ""), False),
        (CALL.replace('"x"', "1"), False),
        (CALL.replace('"x"', '"too long"'), False),
        (CALL.replace('"x"', '"x", "n": 2'), True),
        (CALL.replace('"x"', '"x", "n": 3'), False),
        (CALL.replace('"x"', '"x", "other": 3'), False),
        (CALL.removesuffix("</tool_call>"), False),
        (CALL.replace("\n{", "\n" * 9 + "{"), False),
    ],
)
def test_an_answer_is_nothing_but_calls_that_obey_their_schemas(text: str, whole: bool):
    assert taken(grammar(), text) == whole


def test_one_call_where_one_is_allowed():
    assert taken(grammar(many=False), CALL)
    assert not taken(grammar(many=False), CALL + OTHER)


def test_a_schema_without_properties_takes_any_object():
    source = call_grammar(
        HERMES, {"tools[0]": Tool("get", "", {"type": "object"})}, json_rule=constraint.json_rule
    )
    assert taken(source, CALL)
    assert not taken(source, CALL.replace('{"a": "x"}', "[]"))


def test_a_schema_that_is_not_enforced_is_refused_where_it_stands():
    tool = Tool("f", "", {"properties": {"a": {"contentEncoding": "base64"}}})
    with pytest.raises(InvalidRequest) as error:
        prepare_chat(
            ChatTemplate(cases.source("chatml")),
            [Message("user", "x")],
            [Tool("g"), tool],
            json_rule=constraint.json_rule,
        )
    assert error.value.field == "tools[1].function.parameters"
    assert error.value.pointer == "/properties/a/contentEncoding"


def spoken(source: str, vocabulary: Bytes, seed: int) -> str:
    """What a model without any sense says under a grammar: a random walk through what may come."""
    rng = random.Random(seed)
    state = constraint.compile_source("lark", source, vocabulary, "tools").start()
    ids: list[int] = []
    while not (state.finished or (state.may_end and rng.random() < 0.3)):
        allowed = [token for token, legal in enumerate(state.mask()) if legal and token != 256]
        printable = [one for one in allowed if one in range(32, 127) or one > 256]
        ids.append(rng.choice(printable if printable and rng.random() < 0.95 else allowed))
        state.accept(ids[-1])
        assert len(ids) < 20_000
    return vocabulary.text(ids)


@pytest.mark.parametrize("name", SYNTAX)
def test_whatever_a_grammar_lets_through_the_parser_reads(name: str):
    syntax = SYNTAX[name]
    texts = (*syntax.begin, *syntax.call_begin, *(syntax.between or ()), *syntax.end)
    marks = tuple(text for text in dict.fromkeys(texts) if text[0] in "[<" and len(text) > 1)
    vocabulary = Bytes(marks)
    names = [tool.name for tool in TOOLS.values()]
    called = set()
    for seed in range(12):
        for options in ({}, {"control": vocabulary.special}):
            text = spoken(grammar(syntax, **options), vocabulary if options else PLAIN, seed)
            parser = ToolCallParser(syntax, names, constrained=True)
            answer = joined([*parser.feed(text), *parser.finish()], parser.notes)
            assert answer.text == ""
            assert answer.notes == ()
            assert answer.calls
            for call in answer.calls:
                called.add(call.name)
                arguments = json.loads(call.arguments)
                assert isinstance(arguments, dict)
                assert set(arguments) <= {"a", "n"}
                assert ("a" in arguments) == (call.name == "get")
    assert called == set(names)


@pytest.mark.parametrize("name", SYNTAX)
def test_a_grammar_that_begins_late_begins_with_its_trigger(name: str):
    syntax = SYNTAX[name]
    marked = Bytes((syntax.marker,)) if syntax.marker else PLAIN
    for vocabulary, control in ((PLAIN, {}), (marked, marked.special)):
        source = grammar(syntax, control=control)
        state = constraint.compile_source("lark", source, vocabulary, "tools").start()
        for token in vocabulary.ids(syntax.trigger):
            assert state.allows(token)
            state.accept(token)


def test_control_tokens_are_written_as_tokens():
    vocabulary = Bytes(("<tool_call>", "</tool_call>"))
    source = grammar(control=vocabulary.special)
    assert taken(source, CALL, vocabulary)
    assert not taken(source, CALL, Bytes(("<x>", "<y>")))
    either = grammar(control=vocabulary.special, spelled=True)
    assert taken(either, CALL, vocabulary)
    assert taken(either, CALL, Bytes(("<x>", "<y>")))
