"""However an answer is cut, its calls and its text are the same; and nothing a model writes is
lost, invented, or an error."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nitrolib.prompt import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    TextDelta,
    ToolCallParser,
    joined,
)
from nitrolib.prompt.call_parser import MAX_NOTES
from nitrolib.prompt.call_syntax import KNOWN, CallSyntax
from nitrolib.prompt.json_scan import ObjectScanner

NAMES = ("f", "get_weather", "get")
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=6),
        st.sampled_from(['"', "\\", "</tool_call>", "<tool_call>", "{", "}", "]", "\n", "\ud83d"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(max_size=4), json_values, max_size=3)
styles = st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " :\t")])
spaces = st.sampled_from(["", " ", "\n", "\n  "])
syntaxes = st.sampled_from(KNOWN)
words = st.sampled_from(
    ["", "Hm.", "Let me see.\n", " 1 < 2 [x] {y} ", "<tool", "[TOOL", "\n\n", "é"]
)


def ids() -> Any:
    return map("id{}".format, itertools.count()).__next__


@st.composite
def calls(draw: st.DrawFn, syntax: CallSyntax) -> tuple[str, str, str]:
    """Text of a call in a syntax, its name and its arguments."""
    name = draw(st.sampled_from(NAMES))
    separators = draw(styles)
    ascii_only = draw(st.booleans())
    arguments = json.dumps(draw(json_objects), separators=separators, ensure_ascii=ascii_only)
    comma, colon = separators
    if syntax.between is not None:
        body = name + draw(spaces) + draw(spaces).join(syntax.between) + draw(spaces) + arguments
    else:
        members = [
            f'"{syntax.name_key}"{colon}"{name}"',
            f'"{syntax.arguments_key}"{colon}{arguments}',
        ]
        if syntax.index_key:
            members.insert(0, f'"{syntax.index_key}"{colon}"0"')
        if syntax.marker and draw(st.booleans()):
            members.reverse()
        if syntax.marker and draw(st.booleans()):
            members.append(f'"id"{colon}[{{"x": "]}}"}}]')
        body = "{" + draw(spaces) + comma.join(members) + draw(spaces) + "}"
    parts = [*syntax.call_begin, body, *syntax.call_end]
    return draw(spaces).join(parts), name, arguments


@st.composite
def answers(draw: st.DrawFn) -> tuple[CallSyntax, str, str, list[tuple[str, str]]]:
    """A syntax, an answer in it, and the text and the calls that are in it."""
    syntax = draw(syntaxes)
    made = draw(st.lists(calls(syntax), min_size=1, max_size=3 if syntax.many else 1))
    before = draw(words) if syntax.marker else draw(spaces)
    after = draw(words)
    separator = draw(spaces).join(["", *syntax.separator, ""])
    block = [*syntax.begin, separator.join(text for text, _, _ in made), *syntax.end]
    text = before + draw(spaces) + draw(spaces).join(block) + draw(spaces) + after
    told = before.rstrip() + after.lstrip()
    return syntax, text, told, [(name, arguments) for _, name, arguments in made]


def parsed(parser: ToolCallParser, pieces: list[str]) -> Any:
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    well_formed(events)
    return joined(events, parser.notes)


def well_formed(events: list[Any]) -> None:
    """Calls begin, grow and end in order, one at a time; no delta is empty."""
    current, count = None, 0
    for event in events:
        if isinstance(event, CallStarted):
            assert (current, event.index) == (None, count)
            current, count = event.index, count + 1
        elif isinstance(event, ArgumentsDelta):
            assert event.text
            assert event.index == current
        elif isinstance(event, CallEnded):
            assert event.index == current
            current = None
        else:
            assert isinstance(event, TextDelta)
            assert event.text
            assert current is None
    assert current is None


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in itertools.pairwise(edges)]


cuts = st.one_of(st.lists(st.integers(0, 500), max_size=8), st.just(list(range(500))))


@settings(max_examples=2000, deadline=None)
@given(answer=answers(), places=cuts, constrained=st.booleans())
def test_calls_are_found_whole_however_the_answer_is_cut(answer, places, constrained):
    syntax, text, told, expected = answer
    parser = ToolCallParser(syntax, NAMES, constrained=constrained, new_id=ids())
    result = parsed(parser, cut(text, places))
    assert [(call.name, call.arguments) for call in result.calls] == expected
    assert [call.id for call in result.calls] == [f"id{n}" for n in range(len(expected))]
    assert result.text == told
    assert result.notes == ()
    assert all(isinstance(json.loads(call.arguments), dict) for call in result.calls)


def pieces_of(syntax: CallSyntax) -> st.SearchStrategy[str]:
    """Everything calls are made of, in any order."""
    texts = (
        *syntax.begin, *syntax.call_begin, *(syntax.between or ()), *syntax.call_end,
        *syntax.separator, *syntax.end, syntax.marker,
    )  # fmt: skip
    whole = "".join((*syntax.begin, *syntax.call_begin))
    return st.sampled_from([
        *filter(None, texts), *(text[:-1] for text in texts), whole, whole + '{"name": "f", ',
        f'{{"{syntax.name_key}": "f", "{syntax.arguments_key}": {{"a": 1}}}}',
        f'{{"{syntax.name_key}":"f","{syntax.arguments_key}":{{"a": [1, tru',
        f'{{"{syntax.arguments_key}": {{}}, "{syntax.name_key}": "get"}}',
        f'{{"{syntax.name_key}": "f", "{syntax.arguments_key}": [1]}}',
        f'{{"{syntax.arguments_key}": "{{}}", "{syntax.name_key}": "f"}}',
        "f", "get", "nobody", "{", "}", "[", "]", ",", ":", '"', '"name"', '"arguments"', "{}",
        '"f"', "1", "-", "true", " ", "\n", "\\", "\\u00", "text", "<", "é", "\x00",
    ])  # fmt: skip


@settings(max_examples=2000, deadline=None)
@given(data=st.data(), syntax=syntaxes, places=cuts, constrained=st.booleans(), many=st.booleans())
def test_garbage_is_text_and_the_same_text_however_it_is_cut(
    data, syntax, places, constrained, many
):
    text = "".join(data.draw(st.lists(pieces_of(syntax), max_size=12)))

    def parse(pieces: list[str]) -> Any:
        parser = ToolCallParser(syntax, NAMES, many=many, constrained=constrained, new_id=ids())
        return parsed(parser, pieces)

    whole = parse([text])
    assert parse(cut(text, places)) == whole
    assert parse(list(text)) == whole
    assert len(whole.notes) <= MAX_NOTES
    assert {call.name for call in whole.calls} <= set(NAMES)
    if not many:
        assert len(whole.calls) <= 1
    if not constrained:
        assert all(isinstance(json.loads(call.arguments), dict) for call in whole.calls)
    if not whole.calls:
        assert whole.text == text


@settings(max_examples=1000, deadline=None)
@given(value=json_objects, style=styles, places=cuts, tail=st.text(max_size=3))
def test_the_scanner_reads_one_object_and_its_members(value, style, places, tail):
    text = json.dumps(value, separators=style)
    scanner, members, used = ObjectScanner(), {}, 0
    for piece in cut(text + tail, places):
        count, found = scanner.feed(piece)
        used += count
        for one in found:
            members[one.key] = members.get(one.key, "") + one.text
    assert (scanner.done, scanner.fault, used) == (True, None, len(text))
    assert {key: json.loads(member) for key, member in members.items()} == value


@settings(max_examples=1000, deadline=None)
@given(
    text=st.one_of(
        st.text('{}[]:,"\\ \nabu0123-+.eEtrflsn', max_size=20).map("{".__add__),
        st.tuples(json_objects, st.integers(0, 99), st.text(max_size=1)).map(
            lambda drawn: (
                (text := json.dumps(drawn[0]))[: drawn[1] % (len(text) + 1)]
                + drawn[2]
                + text[drawn[1] % (len(text) + 1) + 1 :]
            )
        ),
    )
)
def test_the_scanner_takes_what_json_takes(text: str):
    scanner = ObjectScanner()
    used, _ = scanner.feed(text)
    if scanner.done:
        assert isinstance(json.loads(text[:used]), dict)
        return
    try:
        read = json.loads(text, object_pairs_hook=single)
    except ValueError:
        return
    assert not isinstance(read, dict), "the scanner refused what is JSON"


def single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a member stands twice")
    return dict(pairs)
