"""Every field of a LocalLab request, one row each: what it does to the request or the answer. The
rows are held against the schemas, so that a field without a row fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from support.locallab_rest import ANYTHING, BATCH, CHAT, GENERATE, LocalLab
from support.rest_client import Answer

from nitrolib.engine.request import GenerationRequest
from nitrolib.validation import schema

SCHEMAS = {GENERATE: "GenerateRequest", CHAT: "ChatRequest", BATCH: "BatchRequest"}
EVERY = [(path, name) for path in SCHEMAS for name in schema("locallab", SCHEMAS[path]).properties]

Look = Callable[[GenerationRequest, Answer], Any]


class Row(NamedTuple):
    """`value` (with the fields `beside` it) makes `look` see `seen`, and without it does not; what
    is `wrong` is refused, and so is `kind`, which is of another type."""

    value: Any
    look: Look
    seen: Any
    kind: Any = "x"
    wrong: tuple[Any, ...] = ()
    beside: dict[str, Any] = {}  # noqa: RUF012 - read only


def param(name: str) -> Look:
    return lambda request, _answer: getattr(request.params, name)


def prompt_has(text: str) -> Look:
    return lambda request, _answer: text in request.prompt.text  # type: ignore[union-attr]


def ids_have(text: str) -> Look:
    """Of a batch: the fake engine's ids are characters."""
    return lambda request, _answer: text in "".join(map(chr, request.prompt))  # type: ignore[arg-type]


COMMON: dict[str, Row] = {
    "max_length": Row(9, param("max_tokens"), 9, wrong=(0, 32001, 1.5, True)),
    "max_tokens": Row(9, param("max_tokens"), 9, wrong=(0, 32001, False)),
    "temperature": Row(0.3, param("temperature"), 0.3, wrong=(-0.1, 2.1, True)),
    "top_p": Row(0.5, param("top_p"), 0.5, wrong=(-0.1, 1.1)),
    "top_k": Row(5, param("top_k"), 5, wrong=(0, 1001, 2.5)),
    "repetition_penalty": Row(1.5, param("repeat_penalty"), 1.5, wrong=(0.9, 2.1)),
    "seed": Row(42, param("seed"), 42, wrong=(1.5, True)),
    "do_sample": Row(False, param("temperature"), 0, kind=0),
    "max_time": Row(
        2.5, lambda request, _answer: request.timeout_s, 2.5, wrong=(-1, 86401, True)
    ),
    "model_id": Row(
        "fake.gguf", lambda _request, answer: answer.status, 200, kind=5, wrong=("",),
        beside={},
    ),
}  # fmt: skip
STREAM = Row(
    True, lambda _request, answer: answer.headers["Content-Type"],
    "text/event-stream; charset=utf-8", wrong=(1,),
)  # fmt: skip
ROWS: dict[tuple[str, str], Row] = {
    **{(path, name): row for path in SCHEMAS for name, row in COMMON.items()},
    (GENERATE, "prompt"): Row("Bye", prompt_has("Bye"), True, kind=5, wrong=("",)),
    (GENERATE, "stream"): STREAM,
    (GENERATE, "system_prompt"): Row("Be brief", prompt_has("Be brief"), True, kind=5),
    (CHAT, "messages"): Row(
        [{"role": "user", "content": "Bye"}], prompt_has("Bye"), True,
        wrong=([], [5], [{}], [{"role": "user"}], [{"role": 1, "content": "x"}],
               [{"role": "user", "content": None}]),
    ),
    (CHAT, "stream"): STREAM,
    (BATCH, "prompts"): Row(
        ["Bye"], lambda _request, answer: len(answer.json["responses"]), 1,
        wrong=([], [""], [5], "Bye"),
    ),
    (BATCH, "system_prompt"): Row("Be brief", ids_have("Be brief"), True, kind=5),
}  # fmt: skip
REQUIRED = {(GENERATE, "prompt"), (CHAT, "messages"), (BATCH, "prompts")}


@pytest.fixture
def rest() -> LocalLab:
    return LocalLab(locallab_prompt="chat")


def test_every_field_has_a_row() -> None:
    assert set(ROWS) == set(EVERY)


@pytest.mark.parametrize(("path", "name"), [one for one in EVERY if one[1] != "model_id"])
def test_a_field_is_honoured(rest: LocalLab, path: str, name: str) -> None:
    row = ROWS[path, name]
    seen = []
    for fields in (row.beside, {**row.beside, name: row.value}):
        answer = rest.ask(path, **fields)
        assert answer.status == 200, answer.data
        seen.append(row.look(rest.engine.requests[-1], answer))
    assert seen[1] == row.seen
    assert seen[0] != row.seen


@pytest.mark.parametrize("path", SCHEMAS)
def test_model_id_chooses_the_model(rest: LocalLab, path: str) -> None:
    assert rest.ask(path, model_id="fake.gguf").status == 200
    assert rest.ask(path, model_id=None).status == 200
    assert rest.detail(path, model_id="nope") == (404, "there is no model 'nope'")


@pytest.mark.parametrize(("path", "name"), EVERY)
def test_a_wrong_type_is_400_and_names_the_field(rest: LocalLab, path: str, name: str) -> None:
    row = ROWS[path, name]
    for value in (row.kind, {"a": 1}, *row.wrong):
        status, detail = rest.detail(path, **{name: value})
        assert status == 400, value
        assert name in detail
    assert rest.engine.requests == []


@pytest.mark.parametrize(("path", "name"), [one for one in EVERY if one not in REQUIRED])
def test_null_is_as_absent(rest: LocalLab, path: str, name: str) -> None:
    assert rest.ask(path).status == rest.ask(path, **{name: None}).status == 200
    half = len(rest.engine.requests) // 2
    assert rest.engine.requests[:half] == rest.engine.requests[half:]


@pytest.mark.parametrize(("path", "name"), sorted(REQUIRED))
def test_what_is_required_must_be_there(rest: LocalLab, path: str, name: str) -> None:
    for body in ({}, {name: None}):
        answer = rest.post(path, body)
        assert (answer.status, answer.json) == (400, {"detail": f"{name} is required"})


@pytest.mark.parametrize("path", SCHEMAS)
def test_an_unknown_field_is_ignored_and_named(rest: LocalLab, path: str) -> None:
    answer = rest.ask(path, nonsense=5, max_length=3)
    assert answer.status == 200
    assert answer.headers["x-nitro-ignored"] == "nonsense"


@pytest.mark.parametrize("path", SCHEMAS)
def test_the_defaults_are_the_documented_ones(rest: LocalLab, path: str) -> None:
    rest.ask(path)
    request = rest.engine.requests[0]
    params = request.params
    assert (params.temperature, params.top_p, params.top_k) == (0.7, 0.9, 80)
    assert (params.repeat_penalty, params.repeat_last_n) == (1.15, -1)
    assert (params.max_tokens, request.timeout_s) == (8192, 180)
    assert (params.min_p, params.typical_p, params.mirostat, params.seed) == (0, 1, 0, -1)
    assert params.order == ("penalties", "temperature", "top_k", "top_p")
    every = {
        name: value
        for name, value in schema("locallab", SCHEMAS[path]).defaults.items()
        if name != "stream"
    }
    rest.ask(path, **every)
    assert rest.engine.requests[-1].params == params


def test_max_length_goes_before_its_other_name(rest: LocalLab) -> None:
    rest.ask(GENERATE, max_tokens=3, max_length=4)
    assert rest.engine.requests[0].params.max_tokens == 4


def test_whole_numbers_may_be_written_as_floats_and_the_other_way_round(rest: LocalLab) -> None:
    assert rest.ask(GENERATE, top_k=5.0, temperature=1, max_length=7.0).status == 200
    assert rest.engine.requests[0].params.top_k == 5


def test_no_time_limit_is_asked_for_with_0(rest: LocalLab) -> None:
    rest.ask(GENERATE, max_time=0)
    assert rest.engine.requests[0].timeout_s is None


def test_greedy_answers_keep_the_penalty(rest: LocalLab) -> None:
    rest.ask(GENERATE, do_sample=False, temperature=1.5, repetition_penalty=1.3)
    params = rest.engine.requests[0].params
    assert (params.temperature, params.repeat_penalty) == (0, 1.3)


@pytest.mark.parametrize("path", ANYTHING)
def test_a_body_that_is_no_json_object_is_400(rest: LocalLab, path: str) -> None:
    for body in (b"", b"[1]", b'"x"', b"{", b"null", b"\xff"):
        answer = rest.post(path, body)
        assert answer.status == 400
        assert "the body" in answer.json["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_the_content_type_says_nothing(rest: LocalLab, kind: str | None) -> None:
    answer = rest.post(GENERATE, b'{"prompt": "Hello"}', content_type=kind)
    assert answer.status == 200
