"""Every field of llama-server's requests, one row each: what it does to the request or the answer,
or that it is refused or ignored. The rows are held against the schemas, so that a field without a
row fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from support.llama_rest import LlamaServer, events_of
from support.rest_client import Answer

from nitrolib.engine.request import GenerationRequest
from nitrolib.engine.status import LoraStatus
from nitrolib.sampling import SamplingParams
from nitrolib.validation import schema

COMPLETION = schema("llama-server", "CompletionRequest")
INFILL = schema("llama-server", "InfillRequest")
FIM = {"<s>": 256, "<|fim_prefix|>": 257, "<|fim_suffix|>": 258, "<|fim_middle|>": 259}

Look = Callable[[GenerationRequest, Answer], Any]


class Row(NamedTuple):
    """`value` (with the fields `beside` it) makes `look` see `seen`, and without it does not;
    `wrong` values are refused."""

    value: Any
    look: Look
    seen: Any
    beside: dict[str, Any] = {}  # noqa: RUF012 - read only
    wrong: tuple[Any, ...] = ("x",)


def param(name: str) -> Look:
    return lambda request, _answer: getattr(request.params, name)


def field(name: str) -> Look:
    return lambda request, _answer: getattr(request, name)


def key(name: str) -> Look:
    return lambda _request, answer: answer.json.get(name)


def event(name: str) -> Look:
    return lambda _request, answer: [name in one for one in events_of(answer)]


def same(name: str, value: Any, *wrong: Any) -> Row:
    """A field that SamplingParams has too."""
    return Row(value, param(name), value, {}, ("x", *wrong))


STREAM = {"stream": True}
HONOURED: dict[str, Row] = {
    "cache_prompt": Row(False, field("cache_prompt"), False, wrong=(1,)),
    "context_policy": Row("shift", field("context_policy"), "shift", wrong=("drop", 5)),
    "dry_allowed_length": same("dry_allowed_length", 5, -1),
    "dry_base": same("dry_base", 2.5, 0.5),
    "dry_multiplier": same("dry_multiplier", 0.8),
    "dry_penalty_last_n": same("dry_penalty_last_n", 99, -2),
    "dry_sequence_breakers": Row(
        ["x", "\n"], param("dry_sequence_breakers"), ("x", "\n"), wrong=([], "x", [5])
    ),
    "dynatemp_exponent": same("dynatemp_exponent", 1.5, -1),
    "dynatemp_range": same("dynatemp_range", 0.5, -1),
    "frequency_penalty": same("frequency_penalty", 0.5),
    "grammar": Row('root ::= "a"', param("grammar"), 'root ::= "a"', wrong=(5,)),
    "id_slot": Row(0, field("id_slot"), 0, wrong=("x", -2)),
    "ignore_eos": same("ignore_eos", True, 1),
    "json_schema": Row({"type": "array"}, param("json_schema"), '{"type": "array"}'),
    "lora": Row([{"id": 0, "scale": 0.5}], field("lora"), ((0, 0.5),),
                wrong=("x", [5], [{"id": 0}])),
    "logit_bias": Row({"7": -3}, param("logit_bias"), ((7, -3.0),), wrong=(5, [[7]])),
    "logprobs": Row(3, param("n_probs"), 3, wrong=(True, -1)),
    "max_completion_tokens": Row(9, param("max_tokens"), 9, wrong=("x", -2)),
    "max_tokens": Row(9, param("max_tokens"), 9, wrong=("x", -2)),
    "min_keep": same("min_keep", 2, -1),
    "min_p": same("min_p", 0.2, 1.5),
    "mirostat": same("mirostat", 2, 3),
    "mirostat_eta": same("mirostat_eta", 0.2, -1),
    "mirostat_tau": same("mirostat_tau", 3.0, -1),
    "model": Row("fake.gguf", lambda _request, answer: answer.status, 200, wrong=(5,)),
    "n": Row(3, lambda _request, answer: isinstance(answer.json, list), True, wrong=(0, "x")),
    "n_cmpl": Row(3, lambda _request, answer: isinstance(answer.json, list), True,
                  wrong=(0, "x")),
    "n_indent": same("n_indent", 4, -1),
    "n_keep": Row(5, field("n_keep"), 5, wrong=(-2, "x")),
    "n_predict": Row(0, param("max_tokens"), 0, wrong=("x", -2)),
    "n_probs": Row(4, lambda _request, answer: len(answer.json.get("completion_probabilities", ())),
                   2, wrong=(-1, "x")),
    "post_sampling_probs": Row(
        True, lambda _request, answer: answer.json["completion_probabilities"][0].get("prob"),
        0.25, {"n_probs": 1}, wrong=(1,),
    ),
    "presence_penalty": same("presence_penalty", 0.5),
    "prompt": Row("Bye", lambda request, _answer: request.prompt.text, "Bye",  # type: ignore[union-attr]
                  wrong=(5, [], [[]], {}, {"prompt_string": 5}, [True], [None], [-1])),
    "repeat_last_n": same("repeat_last_n", -1, -2),
    "repeat_penalty": same("repeat_penalty", 1.3, 0),
    "response_fields": Row(["content"], lambda _request, answer: list(answer.json), ["content"],
                           wrong=("content", [5])),
    "return_progress": Row(True, event("prompt_progress"), [True, False, False, False], STREAM,
                           wrong=(1,)),
    "return_tokens": Row(True, key("tokens"), [0, 1], wrong=("yes",)),
    "samplers": Row(["top-k", "temp"], param("samplers"), ("top_k", "temperature"),
                    wrong=(["nothing"], [5], "kz")),
    "seed": same("seed", 42),
    "stop": Row("END", param("stop"), ("END",), wrong=(5, [5])),
    "stream": Row(
        True, lambda _request, answer: answer.headers["Content-Type"].split(";")[0],
        "text/event-stream", wrong=(1,),
    ),
    "t_max_predict_ms": same("t_max_predict_ms", 500, -2),
    "temperature": same("temperature", 0.3, -1),
    "timings_per_token": Row(True, event("timings"), [True, True, True], STREAM, wrong=(1,)),
    "top_k": same("top_k", 5, -2),
    "top_n_sigma": same("top_n_sigma", 1.5),
    "top_p": same("top_p", 0.5, 1.5),
    "typ_p": Row(0.5, param("typical_p"), 0.5, wrong=(1.5,)),
    "typical_p": same("typical_p", 0.5, 1.5),
    "xtc_probability": same("xtc_probability", 0.5, 1.5),
    "xtc_threshold": same("xtc_threshold", 0.2, -0.5),
}  # fmt: skip

REFUSED: dict[str, Any] = {
    "adaptive_target": 0.5,
    "grammar_lazy": True,
    "grammar_triggers": [{"type": 1, "value": "x"}],
    "n_discard": 5,
    "preserved_tokens": ["<x>"],
}
HARMLESS = {
    "adaptive_target": -1,
    "grammar_lazy": False,
    "grammar_triggers": [],
    "n_discard": 0,
    "preserved_tokens": [],
}
IGNORED = {
    "adaptive_decay": 0.5,
    "backend_sampling": True,
    "n_cache_reuse": 64,
    "stream_options": {},
    "verbose": True,
}
# What is seen of it is how long a stream is silent.
ELSEWHERE = {"sse_ping_interval"}
OF_INFILL = {"input_prefix", "input_suffix", "input_extra"}


@pytest.fixture
def rest() -> LlamaServer:
    """With one LoRA adapter beside the model."""
    made = LlamaServer()
    assert made.engine.model is not None
    adapter = LoraStatus(id=0, path="a.gguf", scale=1.0)
    made.engine.model = replace(made.engine.model, lora=(adapter,))
    return made


def test_every_field_has_one_row() -> None:
    rows = [*HONOURED, *REFUSED, *IGNORED, *ELSEWHERE]
    assert len(rows) == len(set(rows))
    assert set(rows) == COMPLETION.properties
    assert INFILL.properties - OF_INFILL == COMPLETION.properties
    assert REFUSED.keys() == HARMLESS.keys()


@pytest.mark.parametrize("name", [name for name in HONOURED if name != "model"])
def test_a_field_is_honoured(rest: LlamaServer, name: str) -> None:
    row = HONOURED[name]
    seen = []
    for fields in (row.beside, {**row.beside, name: row.value}):
        answer = rest.complete(**fields)
        assert answer.status == 200, answer.data
        assert "x-nitro-ignored" not in answer.headers
        seen.append(row.look(rest.engine.requests[-1], answer))
    assert seen[1] == row.seen
    assert seen[0] != row.seen


@pytest.mark.parametrize("name", HONOURED)
def test_a_wrong_value_is_400_and_names_the_field(rest: LlamaServer, name: str) -> None:
    row = HONOURED[name]
    for value in row.wrong:
        error = rest.error(**{**row.beside, name: value})
        assert (error["code"], error["type"]) == (400, "invalid_request_error"), value
        assert error["param"].split("/")[0] == name
    assert rest.engine.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sse_ping_interval", -2),
        ("sse_ping_interval", "x"),
        ("lora", "x"),
        ("lora", [5]),
        ("lora", [{"id": 0}]),
        ("lora", [{"id": "a", "scale": 1}]),
        ("adaptive_target", 1.5),
        ("adaptive_decay", 1),
        ("n_cache_reuse", -1),
    ],
)
def test_a_value_out_of_range_is_400(rest: LlamaServer, name: str, value: Any) -> None:
    error = rest.error(**{name: value})
    assert (error["code"], error["param"].split("/")[0]) == (400, name)


@pytest.mark.parametrize("name", [name for name in COMPLETION.properties if name != "prompt"])
def test_null_is_as_absent(rest: LlamaServer, name: str) -> None:
    assert rest.complete().status == rest.complete(**{name: None}).status == 200
    assert rest.engine.requests[0] == rest.engine.requests[1]


def test_a_prompt_is_required(rest: LlamaServer) -> None:
    for body in ({}, {"prompt": None}):
        answer = rest.post("/completion", body)
        assert (answer.status, answer.json["error"]["message"]) == (400, "prompt is required")


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_is_refused(rest: LlamaServer, name: str) -> None:
    error = rest.error(**{name: REFUSED[name]})
    assert (error["code"], error["param"]) == (400, name)
    assert rest.engine.requests == []
    answer = rest.complete(**{name: HARMLESS[name]})
    assert answer.status == 200
    assert "x-nitro-ignored" not in answer.headers


@pytest.mark.parametrize("name", IGNORED)
def test_a_field_without_effect_is_named_as_ignored(rest: LlamaServer, name: str) -> None:
    rest.complete()
    answer = rest.complete(**{name: IGNORED[name]})
    assert answer.headers["x-nitro-ignored"] == name
    assert rest.engine.requests[0] == rest.engine.requests[1]
    assert COMPLETION.fields[name]["description"].startswith("Ignored:")


def test_a_field_that_nobody_knows_is_named_as_ignored(rest: LlamaServer) -> None:
    assert rest.complete(nonsense=1).headers["x-nitro-ignored"] == "nonsense"


def test_the_defaults_are_those_of_the_sampler(rest: LlamaServer) -> None:
    rest.complete()
    assert rest.engine.requests[0].params == SamplingParams()
    defaults = {n: v for n, v in COMPLETION.defaults.items() if n != "stream"}
    rest.complete(**defaults)
    assert rest.engine.requests[1] == rest.engine.requests[0]


def test_the_first_of_the_names_of_a_limit_counts(rest: LlamaServer) -> None:
    limits = {"n_predict": 1, "max_completion_tokens": 2, "max_tokens": 3}
    while limits:
        answer = rest.complete(**limits).json
        first = next(iter(limits))
        assert rest.engine.requests[-1].params.max_tokens == limits.pop(first)
        assert ("warnings" in answer) == bool(limits)


def test_the_first_of_two_names_counts(rest: LlamaServer) -> None:
    assert len(rest.complete(n_cmpl=2, n=3).json) == 2
    rest.complete(n_probs=2, logprobs=3)
    assert rest.engine.requests[-1].params.n_probs == 2


def test_a_slot_beyond_the_last_counts_on_from_the_first(rest: LlamaServer) -> None:
    rest.complete(id_slot=7)
    assert rest.engine.requests[0].id_slot == 0


def test_a_template_gives_no_stop_words_and_the_load_does(rest: LlamaServer) -> None:
    rest.complete(stop=["", "END", ""])
    assert rest.engine.requests[0].params.stop == ("END",)


def test_a_ban_of_all_ends_is_shown(rest: LlamaServer) -> None:
    shown = rest.complete(ignore_eos=True).json["generation_settings"]["logit_bias"]
    assert shown == [{"bias": None, "token": 256}]
    assert rest.complete().json["generation_settings"]["logit_bias"] == []
    rest.complete(logit_bias=[[5, False]])
    assert rest.engine.requests[-1].params.logit_bias == ((5, -math.inf),)


def test_a_grammar_and_a_schema_rule_each_other_out(rest: LlamaServer) -> None:
    error = rest.error(grammar='root ::= "a"', json_schema={})
    assert error["code"] == 400


@pytest.mark.parametrize("name", sorted(OF_INFILL))
def test_the_fields_of_an_infill(rest: LlamaServer, name: str) -> None:
    rest.engine.special = FIM
    body: dict[str, Any] = {"input_prefix": "a", "input_suffix": "b"}
    wrong = {"input_extra": [5, "x", [{}], [{"text": 5}], [{"text": "x", "filename": 5}], [[]]]}
    for value in wrong.get(name, [5, ["x"], {}]):
        answer = rest.post("/infill", {**body, name: value})
        assert answer.status == 400, value
        assert answer.json["error"]["param"].split("/")[0] == name
    del_ = {key: value for key, value in body.items() if key != name}
    expected = 200 if name == "input_extra" else 400
    assert rest.post("/infill", del_).status == expected
