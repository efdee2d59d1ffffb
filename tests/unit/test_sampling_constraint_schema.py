"""Finished answers validate; what cannot be enforced is refused where it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.json_schemas import ENFORCED, REFUSED
from support.random_answers import VOCABULARY, answer, problems

from nitrolib.errors import InvalidRequest
from nitrolib.sampling.constraint import compile_source
from nitrolib.sampling.constraint_schema import MAX_SCHEMA_BYTES, check_schema

SEEDS = range(6)


def compiled(schema: Any) -> Any:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return compile_source("json_schema", text, VOCABULARY)


def accepts(schema: Any, text: str) -> bool:
    state = compiled(schema).start()
    for byte in text.encode():
        if not state.allows(byte):
            return False
        state.accept(byte)
    return bool(state.may_end)


def refusal(schema: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        compiled(schema)
    assert caught.value.field == "json_schema"
    return caught.value


@pytest.mark.parametrize("name", ENFORCED)
def test_a_finished_answer_of_a_random_model_validates(name: str) -> None:
    schema = ENFORCED[name]
    grammar = compiled(schema)
    answers = [answer(grammar, seed) for seed in SEEDS]
    finished = [json.loads(each.text) for each in answers if each.finished]
    assert finished
    for value in finished:
        assert problems(schema, value) == []
        if schema == {}:
            assert isinstance(value, dict)


def test_two_hundred_schemas_are_tried() -> None:
    assert len(ENFORCED) >= 200
    assert len({json.dumps(schema, sort_keys=True) for schema in ENFORCED.values()}) >= 200


@pytest.mark.parametrize(
    ("schema", "pointer"), REFUSED, ids=[f"{at}-{i}" for i, (_, at) in enumerate(REFUSED)]
)
def test_what_is_not_enforced_is_refused_with_its_pointer(schema: Any, pointer: str) -> None:
    assert refusal(schema).facts["pointer"] == pointer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1 column 1"),
        ("{", "line 1 column 2"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"minimum": NaN}', "NaN"),
        ('{"minimum": -Infinity}', "Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ('{"const": ' + "9" * 5000 + "}", "digits"),
        (f'{{"title": "{"x" * MAX_SCHEMA_BYTES}"}}', "longer than"),
    ],
)
def test_text_that_is_no_usable_json_is_refused(text: str, reason: str) -> None:
    assert reason in refusal(text).message


def test_the_message_names_the_place_and_what_is_allowed() -> None:
    error = refusal({"properties": {"a b": {"format": "iban"}}})
    assert "/properties/a b/format" in error.message
    assert error.value == "iban"
    assert "date-time" in str(error.allowed)


# -- what the standard says, where a reader could doubt it ------------------------------------


def test_other_properties_are_allowed_unless_they_are_forbidden() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert accepts(schema, '{"a": 1, "other": "x"}')
    assert accepts(schema, '{"other": [1]}')
    assert not accepts({**schema, "additionalProperties": False}, '{"other": [1]}')


def test_a_listed_name_cannot_pass_for_another_one() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert not accepts(schema, '{"a": 1, "a": "x"}')
    assert not accepts(schema, '{"\\u0061": "x"}')


def test_properties_come_in_the_order_of_the_schema() -> None:
    schema = {"type": "object", "properties": {"b": {"const": 1}, "a": {"const": 2}}}
    assert accepts(schema, '{"b": 1, "a": 2}')
    assert not accepts(schema, '{"a": 2, "b": 1}')


def test_without_a_type_keywords_hold_for_their_type_only() -> None:
    assert accepts({"minimum": 3}, '"text"')
    assert accepts({"minimum": 3}, "3")
    assert not accepts({"minimum": 3}, "2")


def test_a_root_without_keywords_is_any_object_and_true_is_anything() -> None:
    assert accepts({}, '{"a": 1}')
    assert not accepts({}, "1")
    assert accepts({"title": "T", "$defs": {"unused": {"not": {}}}}, "{}")
    assert not accepts({"title": "T"}, "[]")
    assert accepts(True, "1")
    assert accepts({"properties": {"a": {}}}, '{"a": 1}')


@pytest.mark.parametrize(
    ("text", "legal"),
    [
        ('{"a":1,"b":[2,3]}', True),
        ('{"a": 1, "b": [2, 3]}', True),
        ('{\n    "a": 1,\n    "b": [\n        2,\n        3\n    ]\n}', True),
        ('{\n\t"a": 1\n}', True),
        (' {"a": 1}', False),
        ('{"a": 1} ', False),
        ('{"a":  1}', False),
        ('{"a": 1,\n\n"b": []}', False),
        ('{"a": 1,\n' + " " * 40 + '"b": []}', True),
        ('{"a": 1,\n' + " " * 41 + '"b": []}', False),
    ],
)
def test_white_space_is_what_writers_use_and_no_more(text: str, legal: bool) -> None:
    assert accepts({"type": "object"}, text) is legal


@pytest.mark.parametrize(
    ("schema", "text", "legal"),
    [
        ({"exclusiveMaximum": 1}, "0.99999999999999", True),
        ({"exclusiveMaximum": 1}, "0.99999999999999999999", False),
        ({"exclusiveMinimum": 0}, "0.000000000001", True),
        ({"exclusiveMinimum": 0}, "0." + "0" * 400 + "1", False),
        ({"exclusiveMinimum": 0, "minimum": 5}, "4", False),
        ({"type": "integer", "exclusiveMinimum": 0}, "1", True),
        ({"type": "integer", "exclusiveMinimum": 0}, "0", False),
        ({"minimum": 0.1}, "0.1", True),
        ({"minimum": 0.1}, "0.09999", False),
    ],
)
def test_bounds_hold_after_rounding(schema: Any, text: str, legal: bool) -> None:
    assert accepts({"type": "number", **schema}, text) is legal


@pytest.mark.parametrize(
    ("format_", "good", "bad"),
    [
        ("date", "2024-02-29", "2023-02-29"),
        ("date", "2000-02-29", "1900-02-29"),
        ("date", "0001-01-01", "0000-01-01"),
        ("date", "1999-12-31", "1999-06-31"),
        ("time", "23:59:59Z", "24:00:00Z"),
        ("time", "00:00:00.5+02:30", "00:00:00"),
        ("date-time", "2024-02-29T12:00:00Z", "2024-02-30T12:00:00Z"),
        ("duration", "P1Y2M3DT4H5M6S", "P"),
        ("duration", "P2W", "P1YT"),
        ("email", "a.b+c@example.com", "a@b"),
        ("hostname", "a-b.example", "a-.example"),
        ("ipv4", "192.168.0.1", "192.168.0.256"),
        ("ipv6", "2001:db8::1", "2001:db8::1::2"),
        ("ipv6", "::", "1:2:3:4:5:6:7:8:9"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000"),
        ("uri", "https://example.com/a?b=c#d", "/relative"),
        ("uri", "mailto:a@example.com", "https://exa mple"),
    ],
)
def test_formats_tell_good_from_bad(format_: str, good: str, bad: str) -> None:
    schema = {"type": "string", "format": format_}
    assert accepts(schema, json.dumps(good))
    assert not accepts(schema, json.dumps(bad))


# -- size and time ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"p{i}": {"type": "null"} for i in range(1001)}},
        {"allOf": [{"items": {"maxItems": i}} for i in range(2001)]},
        {"enum": list(range(10_001))},
        {"required": [f"p{i}" for i in range(1001)]},
        {"type": "object", "properties": {f"p{i}": True for i in range(65)}, "minProperties": 1},
        {"allOf": [{"anyOf": [{"required": [f"{i}{j}"]} for j in "abc"]} for i in range(6)]},
        {"type": "integer", "multipleOf": 65_536},
        {"allOf": [{"multipleOf": 65_521}, {"multipleOf": 65_519}]},
    ],
)
def test_a_schema_that_would_grow_too_large_is_refused(schema: Any) -> None:
    refusal(schema)


def deep(levels: int, how: str) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(levels):
        schema = {
            "items": {"type": "array", "items": schema},
            "allOf": {"allOf": [{"anyOf": [schema, {"type": "integer"}]}]},
            "const": {"const": schema},
        }[how]
    return schema


@pytest.mark.parametrize("how", ["items", "allOf", "const"])
def test_nesting_is_bounded(how: str) -> None:
    assert "nested too deeply" in refusal(deep(60, how)).message
    assert check_schema(deep(10, how))


def test_references_are_counted_as_nesting() -> None:
    def chain(length: int) -> Any:
        links = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(length)}
        return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "null"}}}

    assert "nested too deeply" in refusal(chain(300)).message
    assert check_schema(chain(15))


def test_many_small_definitions_are_no_nesting() -> None:
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"$ref": f"#/$defs/d{i}"} for i in range(200)},
        "$defs": {f"d{i}": {"type": "array", "items": {"enum": [i]}} for i in range(200)},
    }
    assert accepts(schema, '{"p0": [0], "p199": [199, 199]}')
    assert not accepts(schema, '{"p0": [1]}')
