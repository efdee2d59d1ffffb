"""Answers with calls, as models write them, and what is told of them."""

from __future__ import annotations

import itertools
import re

import pytest

from nitrolib.prompt import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    ParsedAnswer,
    TextDelta,
    ToolCall,
    ToolCallParser,
    joined,
    new_call_id,
)
from nitrolib.prompt.call_parser import MAX_NOTES
from nitrolib.prompt.call_syntax import HERMES, KNOWN, CallSyntax, written

SYNTAX = {syntax.name: syntax for syntax in KNOWN}


def parse(text: str, syntax: str = "hermes", **options) -> ParsedAnswer:
    options = {"new_id": map(str, itertools.count()).__next__, **options}
    parser = ToolCallParser(SYNTAX[syntax], ("f", "g"), **options)
    events = [*parser.feed(text), *parser.finish()]
    return joined(events, parser.notes)


ONE = ToolCall("0", "f", '{"a": 1}')
TWO = ToolCall("1", "g", "{}")

ANSWERS = {
    "hermes": (
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    ),
    "mistral": '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name":"g","arguments":{}}]',
    "mistral-args": '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}',
    "granite": '<|tool_call|>[{"name": "f", "arguments": {"a": 1}},{"name":"g", "arguments": {}}]',
    "phi-4": (
        '<|tool_call|>{"name": "f", "arguments": {"a": 1}}<|/tool_call|>'
        '<|tool_call|>{"name": "g", "arguments": {}}<|/tool_call|>'
    ),
    "command-r": (
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}},\n'
        '    {"tool_call_id": "1", "tool_name": "g", "parameters": {}}\n]<|END_ACTION|>'
    ),
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        '{"a": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n'
        "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek-v3.1": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "functionary": '<function=f>{"a": 1}</function><function=g>{}</function>',
}


@pytest.mark.parametrize("syntax", ANSWERS)
@pytest.mark.parametrize("constrained", [True, False])
def test_calls_in_the_forms_of_models(syntax: str, constrained: bool):
    assert parse("Well.\n" + ANSWERS[syntax] + "\n", syntax, constrained=constrained) == (
        ParsedAnswer("Well.", (ONE, TWO))
    )


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        ("llama-3", ' {"name": "f", "parameters": {"a": 1}}'),
        ("json", '{ "name":"f", "arguments":{"a": 1} }\n'),
    ],
)
@pytest.mark.parametrize("constrained", [True, False])
def test_a_call_may_be_the_object_with_which_an_answer_begins(syntax, text, constrained):
    assert parse(text, syntax, constrained=constrained) == ParsedAnswer("", (ONE,))
    later = "Well: " + text
    assert parse(later, syntax, constrained=constrained) == ParsedAnswer(later)


def test_what_generic_history_shows_is_what_the_parser_reads():
    assert parse(written((ONE, TWO))).calls == (ONE, TWO)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("<tool_call>", "the answer ends inside it"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}', "the answer ends inside it"),
        ('<tool_call>{"name": "h", "arguments": {}}</tool_call>', "'h' is no tool"),
        ('<tool_call>{"name": 1, "arguments": {}}</tool_call>', "its 'name' is no text"),
        ('<tool_call>{"arguments": {}}</tool_call>', "it has no 'name'"),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "'arguments' is no object"),
        ('<tool_call>{"name": "f", "arguments": "{}"}</tool_call>', "'arguments' is no object"),
        ("<tool_call>{'name': 'f'}</tool_call>", 'no JSON: "\'" stands where it cannot'),
        ('<tool_call>{"name": "f",}</tool_call>', "no JSON"),
        ('<tool_call>{"name": "f", "name": "g"}</tool_call>', "no JSON: the member 'name' stands"),
        ('<tool_call>{"name": "f", "arguments": {"a": 01}}</tool_call>', "no JSON: '01'"),
        ("<tool_call>f(a=1)</tool_call>", "no JSON: it begins with 'f'"),
        ('<tool_call>{"name": "f", "arguments": ' + '{"a":' * 200, "nested too deep"),
        ('<tool_call>{"name": "f", "arguments": {"a": ' + "1" * 5000 + "}}", "too long"),
        ('<tool_call>{"name": "f", "arguments": {"a": "\n"}}</tool_call>', "control character"),
    ],
)
def test_garbage_stays_text_with_a_note(text: str, note: str):
    result = parse("Well.\n" + text)
    assert (result.text, result.calls) == ("Well.\n" + text, ())
    assert note in result.notes[0]
    assert len(result.notes[0]) < 300


def test_a_call_after_garbage_is_found():
    result = parse('<tool_call>oops <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> x')
    assert (result.text, result.calls) == ("<tool_call>oopsx", (ONE,))
    assert len(result.notes) == 1


def test_notes_are_bounded():
    assert len(parse("<tool_call>x" * 1000).notes) == MAX_NOTES


def test_a_call_without_arguments_has_an_empty_object():
    assert parse('<tool_call>{"name": "g"}</tool_call>').calls == (ToolCall("0", "g", "{}"),)


def test_an_end_tag_may_be_missing_or_cut_off():
    call = '<tool_call>{"name": "f", "arguments": {"a": 1}}'
    for end in ("", "\n", "</tool", "\n</tool_call", "</tool_call>"):
        assert parse(call + end) == ParsedAnswer("", (ONE,))
    assert parse(call + "</b>") == ParsedAnswer("</b>", (ONE,))
    half = ANSWERS["deepseek"][: ANSWERS["deepseek"].index("\n```<")]
    assert parse(half + "\n``` and more", "deepseek") == ParsedAnswer("``` and more", (ONE,))
    assert parse(half + "\n```", "deepseek") == ParsedAnswer("", (ONE,))


@pytest.mark.parametrize("syntax", ANSWERS)
def test_one_call_is_told_where_one_is_allowed(syntax: str):
    result = parse(ANSWERS[syntax], syntax, many=False)
    assert result.calls == (ONE,)
    assert "g" in result.text
    assert any("one call is allowed" in note for note in result.notes)


def test_arguments_are_told_while_a_grammar_makes_them():
    parser = ToolCallParser(HERMES, ("f",), constrained=True, new_id=lambda: "id")
    assert parser.feed('Hm <tool_call>{"name": "f", "arguments": ') == [TextDelta("Hm")]
    assert parser.feed('{"a') == [CallStarted(0, "id", "f"), ArgumentsDelta(0, '{"a')]
    assert parser.feed('": 1') == [ArgumentsDelta(0, '": 1')]
    assert parser.feed("}}") == [ArgumentsDelta(0, "}"), CallEnded(0)]
    assert parser.feed("</tool_call>") == parser.finish() == []
    assert parser.notes == []


def test_without_a_grammar_a_call_is_told_when_it_is_whole():
    parser = ToolCallParser(HERMES, ("f",), new_id=lambda: "id")
    assert parser.feed('<tool_call>{"name": "f", "arguments": {"a": 1}') == []
    assert parser.feed("}") == [
        CallStarted(0, "id", "f"), ArgumentsDelta(0, '{"a": 1}'), CallEnded(0),
    ]  # fmt: skip


def test_a_call_that_is_cut_off_while_it_is_told_is_marked_incomplete():
    parser = ToolCallParser(HERMES, ("f",), constrained=True, new_id=lambda: "id")
    parser.feed('<tool_call>{"name": "f", "arguments": {"a": ')
    assert parser.finish() == [CallEnded(0, complete=False)]
    assert parser.notes == ["call 0 broke off: the answer ends inside it"]


def test_without_its_trigger_a_bare_call_is_not_told_early():
    """The grammar has not begun, so that what comes may be anything."""
    parser = ToolCallParser(SYNTAX["llama-3"], ("f",), constrained=True, new_id=lambda: "id")
    assert parser.feed('{ "name": "f", "parameters": {"a": 1') == []
    assert parser.finish()[0] == TextDelta("{")


def test_text_is_held_back_only_while_it_may_begin_a_call():
    parser = ToolCallParser(HERMES, ("f",))
    assert parser.feed("a <b") == [TextDelta("a <b")]
    assert parser.feed(" <tool") == []
    assert parser.feed("s> ") == [TextDelta(" <tools>")]
    assert parser.finish() == [TextDelta(" ")]


def test_a_long_answer_takes_time_in_proportion():
    """Twice as much text is about twice as many steps: 400,000 characters pass in pieces of 4."""
    text = '<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 400_000 + '"}}</tool_call>'
    parser = ToolCallParser(HERMES, ("f",))
    for start in range(0, len(text), 4):
        parser.feed(text[start : start + 4])
    parser.finish()
    assert parser.notes == []


def test_ids_are_new_each_time():
    ids = {new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"call_[a-zA-Z0-9]{24}", one) for one in ids)


def test_every_known_syntax_is_tried():
    assert {*ANSWERS, "llama-3", "json"} == set(SYNTAX)
    assert all(isinstance(one, CallSyntax) for one in KNOWN)
