"""The lenient JSON reader: what sloppy clients send is read, what would mislead is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nitrolib.adapters.rest.jsonbody import MAX_DEPTH, parse
from nitrolib.errors import InvalidRequest

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


def _with_commas(value: Any) -> str:
    """JSON of *value* with a comma behind the last item of everything that has items."""
    if isinstance(value, dict):
        inner = ",".join(f"{json.dumps(k)} : {_with_commas(v)}" for k, v in value.items())
        return "{" + inner + (", \n" if value else "") + "}"
    if isinstance(value, list):
        inner = ",".join(map(_with_commas, value))
        return "[" + inner + (" ,\t" if value else "") + "]"
    return json.dumps(value, ensure_ascii=False)


@given(st.dictionaries(st.text(max_size=5), values))
def test_json_and_json_with_trailing_commas_are_the_same(value: dict[str, Any]) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(_with_commas(value).encode("utf-8", "surrogatepass")) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ('{"a": ",]",}', {"a": ",]"}),
        ('{"a": "\\",}",}', {"a": '",}'}),
        ('// first\n{"a": 1, /* of\n two */ "b": 2}', {"a": 1, "b": 2}),
        ('{"a": "// no comment", "b": "/* nor */",}', {"a": "// no comment", "b": "/* nor */"}),
        ('{"a": [1, /* last */ ], // end\n}', {"a": [1]}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ],
)
def test_what_the_dialects_examples_need_is_read(text: str, value: Any) -> None:
    assert parse(text.encode()) == value


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"[1]", "object"),
        (b'"x"', "object"),
        (b"null", "object"),
        (b"{", "line 1"),
        (b'{"a": 1,, }', "line 1"),
        (b'{"a": [,]}', "line 1"),
        (b"{,}", "line 1"),
        (b'{"a":,}', "line 1"),
        (b'{\n"a": \n x}', "line 3 column 2"),
        (b'{"a": 1} {"b": 2}', "Extra data"),
        (b'{"a": /* open', "line 1"),
        (b'{"a": "open', "Unterminated"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "too large"),
        (b'{"a": "\xff"}', "UTF-8 at byte 7"),
        ("{}".encode("utf-16"), "UTF-8"),
    ],
)
def test_what_is_not_a_json_object_is_refused_with_the_reason(body: bytes, word: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read") as caught:
        parse(body)
    assert word in caught.value.message


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(b'{"n": 1, "max_tokens": 5, "max_tokens": 500}')
    assert caught.value.field == "max_tokens"


@pytest.mark.parametrize("body", [r'{"a": ["x", "\ud800"]}', r'{"a": {"\udfff": 1}}'])
def test_half_a_surrogate_pair_is_refused_with_its_place(body: str) -> None:
    with pytest.raises(InvalidRequest, match="surrogate") as caught:
        parse(body.encode())
    assert caught.value.field.startswith("a/")


def test_nesting_is_allowed_up_to_its_limit() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * (depth - 1) + b"[]" + b"}" * (depth - 1)

    parse(nested(MAX_DEPTH))
    with pytest.raises(InvalidRequest, match="nested"):
        parse(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 300_000,
        b"[" * 1_000_000,
        b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'// "\n' + b"[" * 500_000,
        b'/* " */ {"a": ' + b"[" * 500_000 + b"]" * 500_000 + b",}",
    ],
)
def test_hostile_nesting_is_refused_and_harms_nothing(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"' + b'\\"' * 500_000,
        b"{" + b"/*" * 500_000,
        b"{" + b"," * 1_000_000 + b"}",
        b"{" + b", " * 500_000 + b"}",
        b'{"a": [1' + b" " * 1_000_000 + b",]",
    ],
)
def test_a_hostile_megabyte_takes_no_quadratic_time(body: bytes) -> None:
    """Quadratic scanning of these would take hours; the bound only tells the two apart."""
    begin = time.process_time()
    with pytest.raises(InvalidRequest):
        parse(body)
    assert time.process_time() - begin < 20
