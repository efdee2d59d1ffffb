"""Every field that a chat may have, one row each: what it does to the request or the answer, or
that it is refused. The rows are held against the schema and against the CreateChatCompletionDto, so
that a field without a row fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.rest_client import Answer, Rest

from nitrolib.engine.request import GenerationRequest
from nitrolib.engine.status import LoraStatus
from nitrolib.sampling import SamplingParams
from nitrolib.validation import schema

CHAT = schema("nitro", "ChatCompletionRequest")
DTO: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "support" / "create_chat_completion_dto.json").read_text()
)

Look = Callable[[GenerationRequest, Answer], Any]


class Row(NamedTuple):
    """`value` (with the fields `beside` it) makes `look` see `seen`, and without it does not."""

    value: Any
    look: Look
    seen: Any
    beside: dict[str, Any] = {}  # noqa: RUF012 - read only


def param(name: str) -> Look:
    return lambda request, _answer: getattr(request.params, name)


def field(name: str) -> Look:
    return lambda request, _answer: getattr(request, name)


def choice(*path: Any) -> Look:
    def look(_request: GenerationRequest, answer: Answer) -> Any:
        found = answer.json["choices"][0]
        try:
            for name in path:
                found = found[name]
        except (KeyError, IndexError):
            return None
        return found

    return look


def event(name: str) -> Look:
    return lambda _request, answer: [name in one for one in answer.events]


def prompt_has(text: str) -> Look:
    return lambda request, _answer: text in request.prompt.text  # type: ignore[union-attr]


def same(name: str, value: Any) -> Row:
    """A field that SamplingParams has too."""
    return Row(value, param(name), value)


STREAM = {"stream": True}
TOOLS = [{"type": "function", "function": {"name": "clock"}}]
HONOURED: dict[str, Row] = {
    "cache_prompt": Row(False, field("cache_prompt"), False),
    "context_policy": Row("shift", field("context_policy"), "shift"),
    "dry_allowed_length": same("dry_allowed_length", 5),
    "dry_base": same("dry_base", 2.5),
    "dry_multiplier": same("dry_multiplier", 0.8),
    "dry_penalty_last_n": same("dry_penalty_last_n", 99),
    "dry_sequence_breakers": Row(["x", "\n"], param("dry_sequence_breakers"), ("x", "\n")),
    "dynatemp_exponent": same("dynatemp_exponent", 1.5),
    "dynatemp_range": same("dynatemp_range", 0.5),
    "frequency_penalty": same("frequency_penalty", 0.5),
    "grammar": same("grammar", 'root ::= "a"'),
    "id_slot": Row(3, field("id_slot"), 3),
    "ignore_eos": same("ignore_eos", True),
    "json_schema": Row({"type": "array"}, param("json_schema"), '{"type": "array"}'),
    "logit_bias": Row({"7": -3}, param("logit_bias"), ((7, -3.0),)),
    "logprobs": Row(True, choice("logprobs", "content", 0, "logprob"), -0.25),
    "max_completion_tokens": Row(9, param("max_tokens"), 9),
    "max_tokens": Row(9, param("max_tokens"), 9),
    "messages": Row([{"role": "user", "content": "Bye"}], prompt_has("Bye"), True),
    "min_keep": same("min_keep", 2),
    "min_p": same("min_p", 0.2),
    "mirostat": same("mirostat", 2),
    "mirostat_eta": same("mirostat_eta", 0.2),
    "mirostat_tau": same("mirostat_tau", 3.0),
    "n": Row(3, lambda _request, answer: len(answer.json["choices"]), 3),
    "n_indent": same("n_indent", 4),
    "n_keep": Row(5, field("n_keep"), 5),
    "n_predict": Row(0, param("max_tokens"), 0),
    "n_probs": Row(4, param("n_probs"), 4),
    "parallel_tool_calls": Row(
        False, prompt_has("Make one call at most."), True, {"tools": TOOLS}
    ),
    "post_sampling_probs": Row(
        True, choice("logprobs", "content", 0, "prob"), 0.25, {"n_probs": 1}
    ),
    "presence_penalty": same("presence_penalty", 0.5),
    "repeat_last_n": same("repeat_last_n", -1),
    "repeat_penalty": same("repeat_penalty", 1.3),
    "response_fields": Row(["usage"], lambda _request, answer: list(answer.json), ["usage"]),
    "response_format": Row({"type": "json_object"}, param("json_schema"), '{"type": "object"}'),
    "return_progress": Row(True, event("prompt_progress"), [True, False, False, False], STREAM),
    "return_tokens": Row(True, choice("tokens"), [0, 1]),
    "samplers": Row(["top-k", "temp"], param("samplers"), ("top_k", "temperature")),
    "seed": same("seed", 42),
    "stop": Row("END", lambda request, _answer: request.params.stop[0], "END"),
    "stream": Row(
        True, lambda _request, answer: answer.headers["Content-Type"].split(";")[0],
        "text/event-stream",
    ),
    "stream_options": Row(
        {"include_usage": True}, event("usage"), [False, False, False, True], STREAM
    ),
    "t_max_predict_ms": same("t_max_predict_ms", 500),
    "temperature": same("temperature", 0.3),
    "timings_per_token": Row(True, event("timings"), [True, True, True], STREAM),
    "tool_choice": Row("none", prompt_has("clock"), False, {"tools": TOOLS}),
    "tools": Row(TOOLS, prompt_has('"name": "clock"'), True),
    "top_k": same("top_k", 5),
    "top_logprobs": Row(
        2, choice("logprobs", "content", 0, "top_logprobs", 1, "id"), 254,
        {"logprobs": True},
    ),
    "top_n_sigma": same("top_n_sigma", 1.5),
    "top_p": same("top_p", 0.5),
    "typ_p": Row(0.5, param("typical_p"), 0.5),
    "typical_p": same("typical_p", 0.5),
    "verbose": Row(True, lambda _request, answer: "generation_settings" in answer.json, True),
    "xtc_probability": same("xtc_probability", 0.5),
    "xtc_threshold": same("xtc_threshold", 0.2),
}  # fmt: skip

REFUSED: dict[str, Any] = {
    "audio": {"voice": "x"},
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "grammar_file": "x.gbnf",
    "lora": [{"id": 0, "scale": 1.0}],
    "modalities": ["audio"],
    "multimodal_data": ["aGk="],
    "prediction": {"type": "content"},
    "prompt": "instead",
}

# One model is loaded, and its answers name it "_".
WITHOUT_EFFECT = {"model": "gpt-3.5-turbo"}


@pytest.fixture
def rest() -> Rest:
    return Rest()


def test_every_field_has_one_row() -> None:
    rows = [*HONOURED, *REFUSED, *WITHOUT_EFFECT]
    assert len(rows) == len(set(rows))
    assert set(rows) == CHAT.properties
    assert DTO.keys() <= CHAT.properties


@pytest.mark.parametrize("name", HONOURED)
def test_a_field_is_honoured(rest: Rest, name: str) -> None:
    row = HONOURED[name]
    seen = []
    for fields in (row.beside, {**row.beside, name: row.value}):
        answer = rest.chat(**fields)
        assert answer.status == 200, answer.json
        seen.append(row.look(rest.engine.requests[-1], answer))
    assert seen[1] == row.seen
    assert seen[0] != row.seen


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_is_refused(rest: Rest, name: str) -> None:
    answer = rest.chat(**{name: REFUSED[name]})
    assert answer.status == 400
    assert answer.json["error"]["code"] == "unsupported"
    assert answer.json["error"]["param"].split("/")[0] == name
    assert rest.engine.requests == []


def test_adapters_act_as_a_chat_says_where_they_are_loaded(rest: Rest) -> None:
    assert rest.engine.model is not None
    adapter = LoraStatus(id=0, path="a.gguf", scale=1.0)
    rest.engine.model = replace(rest.engine.model, lora=(adapter,))
    answer = rest.chat(lora=[{"id": 0, "scale": 0.5}], verbose=True)
    assert rest.engine.requests[-1].lora == ((0, 0.5),)
    assert answer.json["generation_settings"]["lora"] == [{"id": 0, "scale": 0.5}]
    rest.chat()
    assert rest.engine.requests[-1].lora is None
    for wrong in ("x", [5], [{"id": 0}], [{"id": -1, "scale": 1}], [{"id": 0, "scale": "x"}]):
        assert rest.chat(lora=wrong).status == 400


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_field_without_effect_says_so(rest: Rest, name: str) -> None:
    document = rest.get("/openapi.json").json["components"]["schemas"]["ChatCompletionRequest"]
    rest.chat()
    answer = rest.chat(**{name: WITHOUT_EFFECT[name]})
    if name == "model":  # a name that nobody knows
        assert answer.headers["x-nitro-ignored"] == "model"
    else:
        assert document["properties"][name]["description"].startswith("Ignored:")
    assert rest.engine.requests[0] == rest.engine.requests[1]


def test_the_defaults_of_the_dto_may_be_written_out(rest: Rest) -> None:
    """They are those of SamplingParams, where the DTO's own list of samplers is not given."""
    defaults = {name: each["default"] for name, each in DTO.items() if "default" in each}
    named = defaults.pop("samplers")
    assert rest.chat(**defaults).status == 200
    request = rest.engine.requests[0]
    own = ("<|im_end|>", "USER:")
    assert request.params == SamplingParams(stop=own)
    assert rest.chat(**defaults, samplers=named).status == 200
    assert rest.engine.requests[1].params.samplers == tuple(named)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("typical_p", 1.5),
        ("n_predict", -2),
        ("n_indent", -1),
        ("n_keep", -2),
        ("dry_base", 0.5),
        ("dry_allowed_length", -1),
        ("dry_penalty_last_n", -2),
        ("dry_sequence_breakers", []),
        ("dry_sequence_breakers", "x"),
        ("dry_sequence_breakers", [5]),
        ("xtc_probability", 1.5),
        ("xtc_threshold", -0.5),
        ("mirostat", 3),
        ("json_schema", "x"),
        ("logit_bias", 5),
        ("n_probs", -1),
        ("min_keep", -1),
        ("t_max_predict_ms", -2),
        ("id_slot", -2),
        ("cache_prompt", 1),
        ("return_tokens", "yes"),
        ("samplers", ["nothing"]),
        ("samplers", [5]),
        ("samplers", "kz"),
        ("timings_per_token", 1),
        ("return_progress", 1),
        ("post_sampling_probs", 1),
        ("response_fields", "usage"),
        ("response_fields", [5]),
        ("verbose", 1),
        ("top_n_sigma", "x"),
        ("top_logprobs", 21),
        ("n", 65),
    ],
)
def test_a_value_out_of_range_is_400_and_names_the_field(rest: Rest, name: str, value: Any) -> None:
    answer = rest.chat(**{name: value})
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
    assert answer.json["error"]["param"].split("/")[0] == name
    assert rest.engine.requests == []
