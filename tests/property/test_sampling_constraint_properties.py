"""Whatever a constraint lets through is what the schema, the pattern or the grammar means."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_answers import VOCABULARY, answer, problems

from nitrolib.errors import InvalidRequest
from nitrolib.sampling.constraint import compile_source, forget
from nitrolib.sampling.constraint_regex import PatternError, translate

if TYPE_CHECKING:
    from nitrolib.sampling.constraint import Kind


def answers(schema: Any, seed: int, n: int = 2, limit: int = 200) -> list[Any]:
    """Values of the finished ones of *n* random answers; none where the schema is refused."""
    try:
        compiled = compile_source("json_schema", json.dumps(schema), VOCABULARY)
    except InvalidRequest:
        return []
    found = [answer(compiled, seed + i, limit) for i in range(n)]
    return [json.loads(each.text) for each in found if each.finished]


def refusal(kind: Kind, source: str) -> InvalidRequest | None:
    try:
        compile_source(kind, source, VOCABULARY)
    except InvalidRequest as error:
        return error
    return None


# Pieces of patterns, most of them sound; put together they are everything a client may send.
_ATOMS = st.sampled_from([
    "a", "b", "é", "日", " ", ".", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\.", r"\\", r"\/",
    r"\n", r"\t", r"\x41", r"\u00e9", r"\-", "[abc]", "[^abc]", "[a-z]", r"[\d.]", r"[^\s]",
    r"[^\w]", r"[^\d\s]", r"[\]\\]", "[a-]", "(a|b)", "(?:xy)", "(ab){2}", "-", "/", "#", "&&", "~",
    r"\b", "^", "$", "(?=a)", r"[\S]", "{", "}", "]", "[", "(", ")", "|", "*", "\\", "[[a]", "(?i)",
])  # fmt: skip
_REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "*?", "{,2}"])
_BODIES = st.lists(st.tuples(_ATOMS, _REPEATS).map("".join), min_size=1, max_size=5).map("".join)
PATTERNS = st.tuples(st.sampled_from(["", "^"]), _BODIES, st.sampled_from(["", "$"])).map("".join)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, st.integers(0, 2**32 - 10))
def test_a_string_under_a_pattern_matches_it_in_python(pattern: str, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets that mean another thing some day
        try:
            expected = re.compile(pattern)
        except re.error:
            expected = None
    for text in answers({"type": "string", "pattern": pattern}, seed):
        assert expected is not None, "accepted what Python does not read"
        assert expected.search(text), text


@settings(max_examples=300, deadline=None)
@given(PATTERNS)
def test_any_pattern_is_translated_or_refused(pattern: str) -> None:
    with contextlib.suppress(PatternError):
        assert translate(pattern).pattern.isascii()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_any_text_as_a_pattern_is_translated_or_refused(text: str) -> None:
    for value in answers({"type": "string", "pattern": text}, 1, n=1, limit=60):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert re.search(text, value)


_NUMBERS = st.one_of(
    st.integers(-1000, 1000),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.decimals(-1000, 1000, places=3).map(float),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: float(f"{x:.6g}")),
)
_BOUNDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["number", "integer", ["integer", "null"]])},
    optional={
        "minimum": _NUMBERS,
        "maximum": _NUMBERS,
        "exclusiveMinimum": _NUMBERS,
        "exclusiveMaximum": _NUMBERS,
        "multipleOf": st.sampled_from([1, 2, 3, 10, 25]),
    },
)


@settings(max_examples=400, deadline=None)
@given(_BOUNDS, st.integers(0, 2**32 - 10))
def test_numbers_keep_their_bounds(schema: Any, seed: int) -> None:
    for value in answers(schema, seed, n=3, limit=60):
        assert problems(schema, value) == []


@settings(max_examples=200, deadline=None)
@given(_NUMBERS, st.floats(0, 1), st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]))
def test_numbers_close_to_a_bound_keep_it(bound: Any, part: float, edges: tuple[int, int]) -> None:
    """Texts with more digits than a double has, just beside the bound."""
    low = ("minimum", "exclusiveMinimum")[edges[0]]
    high = ("maximum", "exclusiveMaximum")[edges[1]]
    width = abs(bound) * 1e-12 + 1e-9
    schema = {"type": "number", low: bound, high: float(f"{bound + width * (1 + part):.14g}")}
    for value in answers(schema, int(part * 1000), n=3, limit=80):
        assert problems(schema, value) == []


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.floats(-1e9, 1e9).map(lambda x: float(f"{x:.9g}")).filter(lambda x: not 0 < abs(x) < 1e-9),
    st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=6),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text('abé"\\/\n', max_size=3), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(_VALUES, st.integers(0, 2**32 - 10))
def test_a_constant_is_written_as_itself(value: Any, seed: int) -> None:
    schema = {"const": value}
    compiled = compile_source("json_schema", json.dumps(schema), VOCABULARY)
    found = answer(compiled, seed, 2000)
    assert found.finished
    assert problems(schema, json.loads(found.text)) == []


def _schemas(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "c"])
    objects = st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(names, children, max_size=3),
            "required": st.lists(names, max_size=2, unique=True),
            "additionalProperties": st.one_of(st.booleans(), children),
            "minProperties": st.integers(0, 2),
            "maxProperties": st.integers(0, 3),
            "patternProperties": st.dictionaries(
                st.sampled_from(["^a", "^[b-d]+$", "x"]), children, max_size=1
            ),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array"), "maxItems": st.integers(0, 3)},
        optional={
            "items": children,
            "minItems": st.integers(0, 2),
            "prefixItems": st.lists(children, min_size=1, max_size=2),
        },
    )
    choices = st.one_of(
        *(
            st.fixed_dictionaries({key: st.lists(children, min_size=1, max_size=3)})
            for key in ("anyOf", "oneOf", "allOf")
        )
    )
    both = st.tuples(st.one_of(objects, arrays), choices).map(lambda two: {**two[0], **two[1]})
    return st.one_of(objects, arrays, choices, both)


_LEAVES = st.one_of(
    st.booleans(),
    st.just({}),
    st.sampled_from([
        {"type": "integer"}, {"type": "string", "maxLength": 3}, {"type": "null"},
        {"type": ["boolean", "integer"]}, {"type": "integer", "minimum": 3}, {"const": 1},
        {"enum": ["a", "b", 1, None]}, {"enum": [{"a": 1}, []]}, {"maxLength": 2}, {"minimum": 2},
        {"required": ["a"]}, {"properties": {"a": {"type": "integer"}}}, {"$ref": "#/$defs/d"},
        {"type": "string", "pattern": "^[ab]*$"}, {"maxItems": 1}, {"multipleOf": 2},
    ]),
)  # fmt: skip
SCHEMAS = st.recursive(_LEAVES, _schemas, max_leaves=6)


@settings(max_examples=600, deadline=None)
@given(SCHEMAS, _LEAVES, st.integers(0, 2**32 - 10))
def test_any_schema_is_enforced_or_refused(schema: Any, definition: Any, seed: int) -> None:
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"d": definition}}
    for value in answers(schema, seed):
        assert problems(schema, value) == []


@settings(max_examples=300, deadline=None)
@given(st.recursive(_VALUES, lambda inner: st.dictionaries(st.sampled_from([
    "type", "enum", "items", "properties", "required", "anyOf", "oneOf", "allOf", "$ref", "pattern",
    "minimum", "maxLength", "prefixItems", "patternProperties", "format", "$defs", "multipleOf",
]), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_any_json_is_a_schema_or_an_invalid_request(value: Any) -> None:
    error = refusal("json_schema", json.dumps(value))
    assert error is None or error.field == "json_schema"


_GBNF = st.text('root ::="ab[]-^()|*+?{}1,.#\n\\xé', max_size=60)


@settings(max_examples=500, deadline=None)
@given(_GBNF)
def test_any_text_is_a_grammar_or_an_invalid_request(text: str) -> None:
    for grammar in (text, f"root ::= {text}"):
        error = refusal("grammar", grammar)
        assert error is None or isinstance(error.facts["line"], int)


_EXPRESSIONS = st.recursive(
    st.sampled_from(['"a"', '"ab"', '"b"', "[ab]", "[^a]", ".", '""']),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" ".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} | {two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


def _as_regex(grammar: str) -> str:
    return re.sub(r'"(\w*)"', r"(?:\1)", grammar).replace(" ", "")


@settings(max_examples=400, deadline=None)
@given(_EXPRESSIONS, st.lists(st.text("abc", max_size=6), max_size=8))
def test_a_regular_grammar_accepts_what_its_regex_matches(body: str, texts: list[str]) -> None:
    compiled = compile_source("grammar", f"root ::= {body}", VOCABULARY)
    expected = re.compile(_as_regex(body), re.DOTALL)
    for text in texts:
        state = compiled.start()
        legal = True
        for byte in text.encode():
            legal = legal and state.allows(byte)
            if legal:
                state.accept(byte)
        assert (legal and state.may_end) == (expected.fullmatch(text) is not None), text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-5, len(VOCABULARY.pieces) + 5), max_size=40), st.integers(0, 3))
def test_the_mask_and_the_check_of_one_token_agree(tokens: list[int], which: int) -> None:
    sources = ("{}", '{"type": "string"}', '{"type": "number"}', '{"type": "array"}')
    state = compile_source("json_schema", sources[which], VOCABULARY).start()
    for token in tokens:
        mask = state.mask()
        for other in (*tokens, *np.flatnonzero(mask)[:5].tolist()):
            inside = 0 <= other < mask.size
            assert state.allows(other) == (inside and bool(mask[other]))
        if state.allows(token):
            state.accept(token)


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Any:
    yield
    forget(VOCABULARY)


def test_the_strategies_reach_the_interesting_cases() -> None:
    """Not everything that is generated is refused: the properties above say something."""
    reached = 0

    @settings(max_examples=200, deadline=None, database=None)
    @given(SCHEMAS)
    def count(schema: Any) -> None:
        nonlocal reached
        if isinstance(schema, dict):
            reached += bool(answers({**schema, "$defs": {"d": True}}, 5))

    count()
    assert reached > 60
