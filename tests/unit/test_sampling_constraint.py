"""A constraint says which token may come next, and when the answer is complete."""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.random_answers import VOCABULARY, RandomVocabulary, answer

from nitrolib.errors import BackendError, InvalidRequest, Unsupported
from nitrolib.sampling import SamplingParams, constraint
from nitrolib.sampling.constraint import (
    JSON_OBJECT,
    compile_constraint,
    compile_source,
    forget,
    json_rule,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nitrolib.sampling.constraint import Constraint

END, OTHER_END = sorted(VOCABULARY.eog)
YES_OR_NO = 'root ::= "yes" | "no"'


def begin(grammar: str = YES_OR_NO, vocabulary: Any = VOCABULARY) -> Constraint:
    return compile_source("grammar", grammar, vocabulary).start()


def feed(state: Constraint, text: str | bytes) -> Constraint:
    """Go on by the byte tokens of *text*, each of which must be allowed, one by one and by mask."""
    for byte in text.encode() if isinstance(text, str) else text:
        assert state.allows(byte), (text, chr(byte))
        assert state.mask()[byte]
        state.accept(byte)
    return state


def test_no_constraint_is_asked_for() -> None:
    assert compile_constraint(SamplingParams(), VOCABULARY) is None
    assert compile_constraint(SamplingParams(grammar=""), VOCABULARY) is None


@pytest.mark.parametrize(
    ("params", "allowed", "refused"),
    [
        (SamplingParams(grammar=YES_OR_NO), "y", "{"),
        (SamplingParams(json_schema='{"type": "boolean"}'), "t", "{"),
        (SamplingParams(json_schema="{}"), "{", "["),
    ],
)
def test_a_constraint_is_made_from_params(
    params: SamplingParams, allowed: str, refused: str
) -> None:
    compiled = compile_constraint(params, VOCABULARY)
    assert compiled is not None
    assert compiled.start().allows(ord(allowed))
    assert not compiled.start().allows(ord(refused))


def test_grammar_and_schema_together_are_refused() -> None:
    @dataclass
    class Both:
        grammar: str = YES_OR_NO
        json_schema: str = "{}"

    with pytest.raises(InvalidRequest) as caught:
        compile_constraint(Both(), VOCABULARY)  # type: ignore[arg-type]
    assert caught.value.field == "grammar"


def test_an_error_names_the_field_that_the_caller_gives() -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_source("json_schema", '{"not": {}}', VOCABULARY, field="response_format")
    assert caught.value.field == "response_format"
    assert caught.value.facts["pointer"] == "/not"
    assert "response_format" in caught.value.message


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(Unsupported, match=r"nitrolib\[constraints\]") as caught:
        compile_source("json_schema", "{}", RandomVocabulary())
    assert caught.value.field == "json_schema"


# -- the way of an answer --------------------------------------------------------------------


def test_an_end_is_legal_only_where_the_answer_is_complete() -> None:
    state = begin('root ::= "a"+')
    assert not state.may_end
    assert not state.allows(END)
    assert not state.mask()[END]
    feed(state, "a")
    assert state.may_end
    assert not state.finished
    assert state.allows(END)
    assert state.allows(OTHER_END)
    assert state.mask()[[END, OTHER_END]].all()
    assert state.allows(ord("a"))


def test_nothing_but_the_end_may_follow_a_finished_answer() -> None:
    state = feed(begin(), "yes")
    assert state.finished
    assert state.may_end
    assert set(np.flatnonzero(state.mask())) == set(VOCABULARY.eog)
    assert not any(state.allows(token) for token in range(256))


def test_after_its_end_an_answer_takes_no_token() -> None:
    state = feed(begin('root ::= "a"+'), "a")
    state.accept(END)
    assert state.finished
    assert not state.allows(ord("a"))
    assert set(np.flatnonzero(state.mask())) == set(VOCABULARY.eog)
    with pytest.raises(BackendError, match=r"not (legal|take)"):
        state.accept(ord("a"))


def test_an_early_end_is_an_error() -> None:
    with pytest.raises(BackendError, match="ended before"):
        begin().accept(END)


@pytest.mark.parametrize("token", [ord("x"), -1, 10**6, 2**31, 2**40, 0, 256 + 40])
def test_garbage_tokens_are_refused_and_leave_the_constraint_usable(token: int) -> None:
    state = begin()
    assert not state.allows(token)
    feed(state, "yes")
    assert state.finished


@pytest.mark.parametrize("token", [ord("x"), -1, 10**6, 2**40])
def test_accepting_garbage_is_a_backend_error_and_stays_one(token: int) -> None:
    state = begin()
    with pytest.raises(BackendError, match=r"not (legal|take)"):
        state.accept(token)
    if 0 <= token < 256:
        assert not state.allows(ord("y"))
        with pytest.raises(BackendError):
            state.mask()
        with pytest.raises(BackendError):
            state.accept(ord("y"))
    feed(begin(), "yes")  # others are not touched


def test_tokens_without_text_are_never_allowed() -> None:
    state = begin("root ::= .*")
    mask = state.mask()
    assert mask[ord("a")]
    assert not mask[0]  # NUL
    assert not mask[list(VOCABULARY.control - VOCABULARY.eog)].any()
    assert all(state.allows(token) == allowed for token, allowed in enumerate(mask.tolist()))


def test_a_token_may_end_inside_a_character_only_if_the_character_can_go_on() -> None:
    state = begin('root ::= "é" | "日"')
    first = "é".encode()[0]
    assert state.allows(first)
    assert not state.allows("ü".encode()[1])
    state.accept(first)
    assert not state.may_end
    assert np.flatnonzero(state.mask()).tolist() == ["é".encode()[1]]


def test_a_vocabulary_without_ends_still_knows_when_it_is_finished() -> None:
    @dataclass(frozen=True)
    class Endless:
        pieces: Sequence[bytes] = tuple(bytes((value,)) for value in range(256))
        control: frozenset[int] = frozenset()
        eog: frozenset[int] = frozenset()

    state = begin(vocabulary=Endless())
    assert state.mask().shape == (256,)
    assert feed(state, "no").finished
    assert not state.mask().any()


# -- compiled ones are kept and shared -------------------------------------------------------


def test_answers_of_one_grammar_are_independent() -> None:
    compiled = compile_source("grammar", YES_OR_NO, VOCABULARY)
    one, other = compiled.start(), compiled.start()
    feed(one, "ye")
    feed(other, "no")
    assert other.finished
    assert not one.finished
    assert feed(one, "s").finished


def test_the_same_source_is_compiled_once_for_a_vocabulary() -> None:
    first = compile_source("grammar", YES_OR_NO, VOCABULARY)
    assert compile_source("grammar", YES_OR_NO, VOCABULARY) is first
    assert compile_source("grammar", YES_OR_NO + " ", VOCABULARY) is not first
    assert compile_source("grammar", YES_OR_NO, RandomVocabulary()) is not first


def test_kinds_with_the_same_text_are_not_mixed_up() -> None:
    text = 'start: "a"'
    compile_source("lark", text, VOCABULARY)
    with pytest.raises(InvalidRequest):
        compile_source("grammar", text, VOCABULARY)


def test_only_the_last_used_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint, "MAX_COMPILED", 3)
    vocabulary = RandomVocabulary()
    first = compile_source("grammar", 'root ::= "a"', vocabulary)
    second = compile_source("grammar", 'root ::= "b"', vocabulary)
    assert compile_source("grammar", 'root ::= "a"', vocabulary) is first
    for letter in "cd":
        compile_source("grammar", f'root ::= "{letter}"', vocabulary)
    assert compile_source("grammar", 'root ::= "a"', vocabulary) is first
    assert compile_source("grammar", 'root ::= "b"', vocabulary) is not second


def test_vocabularies_are_few_and_can_be_forgotten() -> None:
    vocabularies = [RandomVocabulary() for _ in range(constraint.MAX_VOCABULARIES + 3)]
    for vocabulary in vocabularies:
        compile_source("grammar", YES_OR_NO, vocabulary)
    assert len(constraint._KEPT) == constraint.MAX_VOCABULARIES
    forget(vocabularies[-1])
    forget(vocabularies[-1])
    assert len(constraint._KEPT) == constraint.MAX_VOCABULARIES - 1


def test_after_an_answer_that_was_too_complex_the_next_one_starts_afresh() -> None:
    # An automaton that tells apart all that the last 31 letters may have been.
    schema = '{"type": "string", "pattern": "^[ab]*a[ab]{30}$"}'
    compiled = compile_source("json_schema", schema, VOCABULARY)
    letters = np.random.default_rng(1).choice([ord("a"), ord("b")], 70_000).tolist()
    state = feed(compiled.start(), '"')
    with pytest.raises(BackendError, match="too many"):
        deque(map(state.accept, letters), maxlen=0)
    assert feed(compiled.start(), '"' + "ba" * 16 + '"').finished


def test_threads_compile_and_answer_at_once() -> None:
    vocabulary = RandomVocabulary()
    schema = '{"type": "array", "items": {"type": "integer"}, "maxItems": 4}'
    expected = answer(compile_source("json_schema", schema, vocabulary), 3)
    forget(vocabulary)
    found: list[Any] = []

    def work() -> None:
        found.extend(
            answer(compile_source("json_schema", schema, vocabulary), 3) for _ in range(20)
        )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 80


# -- for callers inside ----------------------------------------------------------------------


def test_json_object_is_any_object() -> None:
    state = compile_source("json_schema", JSON_OBJECT, VOCABULARY, "response_format").start()
    assert feed(state, '{"a": [1, {"b": null}]}').finished


def test_a_schema_can_stand_in_a_lark_rule() -> None:
    rule = json_rule({"type": "object", "properties": {"a": {"type": "boolean"}}})
    compiled = compile_source("lark", f'start: "call " arguments\narguments: {rule}', VOCABULARY)
    assert feed(compiled.start(), 'call {"a": true}').finished
    state = feed(compiled.start(), 'call {"a": ')
    assert not state.allows(ord("1"))


def test_a_large_schema_works_alone_and_in_a_rule() -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(1000)}}
    for compiled in (
        compile_source("json_schema", json.dumps(schema), VOCABULARY),
        compile_source("lark", f"start: {json_rule(schema)}", VOCABULARY),
    ):
        assert feed(compiled.start(), '{"p0": null, "p999": null}').finished


def test_a_schema_in_a_rule_is_checked_as_any_other() -> None:
    with pytest.raises(InvalidRequest) as caught:
        json_rule({"properties": {"a": {"not": {}}}}, field="tools")
    assert caught.value.field == "tools"
    assert caught.value.facts["pointer"] == "/properties/a/not"


def test_a_wrong_lark_rule_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_source("lark", "start: missing", VOCABULARY, field="tools")
    assert caught.value.field == "tools"
    with pytest.raises(InvalidRequest, match="too large"):
        compile_source("lark", "x" * 2_000_000, VOCABULARY, field="tools")
