"""Every field of OpenAI's requests, one row each: what it does to the request or the answer, that
it is refused, or that it has no effect and says so. The rows are held against the schemas, so that
a field without a row fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from support.openai_rest import COMPLETE, RESPOND, OpenAIRest
from support.rest_client import CHAT, EMBED, Answer

from nitrolib.engine.request import GenerationRequest
from nitrolib.sampling import SamplingParams
from nitrolib.validation import schema

Look = Callable[[GenerationRequest, Answer], Any]

SCHEMAS = {
    COMPLETE: schema("openai", "CompletionRequest"),
    RESPOND: schema("openai", "ResponseRequest"),
}


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


def shown(*path: Any) -> Look:
    def look(_request: GenerationRequest, answer: Answer) -> Any:
        found = answer.json
        try:
            for name in path:
                found = found[name]
        except (KeyError, IndexError, TypeError):
            return None
        return found

    return look


def choice(*path: Any) -> Look:
    return shown("choices", 0, *path)


def event(name: str) -> Look:
    return lambda _request, answer: [name in one for one in answer.events]


def prompt_has(text: str) -> Look:
    return lambda request, _answer: text in request.prompt.text  # type: ignore[union-attr]


def content_type(_request: GenerationRequest, answer: Answer) -> str:
    kind: str = answer.headers["Content-Type"].split(";")[0]
    return kind


def same(name: str, value: Any) -> Row:
    """A field that SamplingParams has too."""
    return Row(value, param(name), value)


STREAM = {"stream": True}
SAMPLING: dict[str, Row] = {
    "dry_allowed_length": same("dry_allowed_length", 5),
    "dry_base": same("dry_base", 2.5),
    "dry_multiplier": same("dry_multiplier", 0.8),
    "dry_penalty_last_n": same("dry_penalty_last_n", 99),
    "dry_sequence_breakers": Row(["x", "\n"], param("dry_sequence_breakers"), ("x", "\n")),
    "dynatemp_exponent": same("dynatemp_exponent", 1.5),
    "dynatemp_range": same("dynatemp_range", 0.5),
    "frequency_penalty": same("frequency_penalty", 0.5),
    "ignore_eos": same("ignore_eos", True),
    "logit_bias": Row({"7": -3}, param("logit_bias"), ((7, -3.0),)),
    "min_keep": same("min_keep", 2),
    "min_p": same("min_p", 0.2),
    "mirostat": same("mirostat", 2),
    "mirostat_eta": same("mirostat_eta", 0.2),
    "mirostat_tau": same("mirostat_tau", 3.0),
    "n_indent": same("n_indent", 4),
    "presence_penalty": same("presence_penalty", 0.5),
    "repeat_last_n": same("repeat_last_n", -1),
    "repeat_penalty": same("repeat_penalty", 1.3),
    "samplers": Row(["top-k", "temp"], param("samplers"), ("top_k", "temperature")),
    "seed": same("seed", 42),
    "stop": Row(["END"], lambda request, _answer: "END" in request.params.stop, True),
    "t_max_predict_ms": same("t_max_predict_ms", 500),
    "temperature": same("temperature", 0.3),
    "top_k": same("top_k", 5),
    "top_n_sigma": same("top_n_sigma", 1.5),
    "top_p": same("top_p", 0.5),
    "typ_p": Row(0.5, param("typical_p"), 0.5),
    "typical_p": same("typical_p", 0.5),
    "xtc_probability": same("xtc_probability", 0.5),
    "xtc_threshold": same("xtc_threshold", 0.2),
}
COMPLETION: dict[str, Row] = {
    **SAMPLING,
    "best_of": Row(3, lambda request, _answer: request.params.n_probs, 1),
    "cache_prompt": Row(False, field("cache_prompt"), False),
    "context_policy": Row("shift", field("context_policy"), "shift"),
    "echo": Row(True, choice("text"), "HelloHello there"),
    "grammar": same("grammar", 'root ::= "a"'),
    "id_slot": Row(3, field("id_slot"), 3),
    "json_schema": Row({"type": "array"}, param("json_schema"), '{"type": "array"}'),
    "logprobs": Row(2, choice("logprobs", "token_logprobs"), [-0.25, -0.25]),
    "lora": Row([], field("lora"), ()),
    "max_tokens": Row(9, param("max_tokens"), 9),
    "model": Row("fake.gguf", lambda _request, answer: answer.json["model"], "fake.gguf"),
    "n": Row(3, lambda _request, answer: len(answer.json["choices"]), 3),
    "n_keep": Row(5, field("n_keep"), 5),
    "n_predict": Row(0, param("max_tokens"), 0),
    "n_probs": Row(4, param("n_probs"), 4),
    "post_sampling_probs": Row(True, param("post_sampling_probs"), True, {"logprobs": 1}),
    "prompt": Row("Bye", prompt_has("Bye"), True),
    "response_format": Row({"type": "json_object"}, param("json_schema"), '{"type": "object"}'),
    "return_tokens": Row(True, choice("tokens"), [0, 1]),
    "stream": Row(True, content_type, "text/event-stream"),
    "stream_options": Row(
        {"include_usage": True}, event("usage"), [False, False, False, True], STREAM
    ),
    "timings_per_token": Row(True, event("timings"), [True, True, True], STREAM),
    "verbose": Row(True, lambda _request, answer: "generation_settings" in answer.json, True),
}  # fmt: skip
TOOLS = [{"type": "function", "name": "clock"}]
RESPONSE: dict[str, Row] = {
    **SAMPLING,
    "include": Row(
        ["message.output_text.logprobs"],
        shown("output", 0, "content", 0, "logprobs", 0, "logprob"), -0.25,
    ),
    "input": Row("Bye", prompt_has("Bye"), True),
    "instructions": Row("Be brief.", prompt_has("Be brief."), True),
    "max_output_tokens": Row(9, param("max_tokens"), 9),
    "metadata": Row({"a": "b"}, shown("metadata"), {"a": "b"}),
    "model": Row("fake.gguf", shown("model"), "fake.gguf"),
    "parallel_tool_calls": Row(
        False, prompt_has("Make one call at most."), True, {"tools": TOOLS}
    ),
    "store": Row(False, shown("store"), False),
    "stream": Row(True, content_type, "text/event-stream"),
    "text": Row(
        {"format": {"type": "json_object"}}, param("json_schema"), '{"type": "object"}'
    ),
    "tool_choice": Row("none", prompt_has("clock"), False, {"tools": TOOLS}),
    "tools": Row(TOOLS, prompt_has('"name": "clock"'), True),
    "top_logprobs": Row(2, param("n_probs"), 2),
    "truncation": Row("auto", shown("truncation"), "auto"),
}  # fmt: skip
HONOURED = {COMPLETE: COMPLETION, RESPOND: RESPONSE}

REFUSED: dict[str, dict[str, Any]] = {
    COMPLETE: {
        "multimodal_data": ["aGk="],
        "suffix": "the end",
    },
    RESPOND: {
        "background": True,
        "context_management": [{"type": "compaction"}],
        "conversation": "conv_1",
        "moderation": {"model": "omni"},
        "prompt": {"id": "pmpt_1"},
        "prompt_cache_retention": "24h",
        "reasoning": {"effort": "low"},
        "service_tier": "priority",
        "stream_options": {"include_obfuscation": True},
    },
}
ASKS_FOR_NOTHING: dict[str, dict[str, Any]] = {
    COMPLETE: {"multimodal_data": [], "suffix": ""},
    RESPOND: {
        "background": False,
        "context_management": [],
        "prompt_cache_retention": "in_memory",
        "reasoning": {"effort": "none", "summary": None},
        "service_tier": "auto",
        "stream_options": {"include_obfuscation": False},
    },
}
WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    COMPLETE: {"user": "me"},
    RESPOND: {
        "max_tool_calls": 3,
        "prompt_cache_key": "key",
        "safety_identifier": "me",
        "user": "me",
    },
}
ELSEWHERE = {COMPLETE: set(), RESPOND: {"previous_response_id"}}  # see test_rest_openai_responses


def rows(table: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    return [(path, name) for path, fields in table.items() for name in fields]


@pytest.fixture
def rest() -> OpenAIRest:
    return OpenAIRest()


@pytest.mark.parametrize("path", SCHEMAS)
def test_every_field_has_one_row(path: str) -> None:
    found = [*HONOURED[path], *REFUSED[path], *WITHOUT_EFFECT[path], *ELSEWHERE[path]]
    assert len(found) == len(set(found))
    assert set(found) == SCHEMAS[path].properties


@pytest.mark.parametrize(("path", "name"), rows(HONOURED))
def test_a_field_is_honoured(rest: OpenAIRest, path: str, name: str) -> None:
    row = HONOURED[path][name]
    seen = []
    for fields in (row.beside, {**row.beside, name: row.value}):
        answer = rest.ask(path, **fields)
        assert answer.status == 200, answer.json
        assert "x-nitro-ignored" not in answer.headers
        seen.append(row.look(rest.engine.requests[-1], answer))
    assert seen[1] == row.seen
    assert name == "model" or seen[0] != row.seen


@pytest.mark.parametrize(("path", "name"), rows(REFUSED))
def test_a_field_is_refused(rest: OpenAIRest, path: str, name: str) -> None:
    answer = rest.ask(path, **{name: REFUSED[path][name]})
    assert answer.status == 400
    assert answer.json["error"]["code"] == "unsupported"
    assert answer.json["error"]["param"].split("/")[0] == name
    assert rest.engine.requests == []


@pytest.mark.parametrize(("path", "name"), rows(ASKS_FOR_NOTHING))
def test_a_value_that_asks_for_nothing_is_taken(rest: OpenAIRest, path: str, name: str) -> None:
    for fields in ({}, {name: ASKS_FOR_NOTHING[path][name]}, {name: None}):
        assert rest.ask(path, **fields).status == 200
    first, *others = rest.engine.requests
    assert others == [first, first]


@pytest.mark.parametrize(("path", "name"), rows(WITHOUT_EFFECT))
def test_a_field_without_effect_says_so(rest: OpenAIRest, path: str, name: str) -> None:
    description = SCHEMAS[path].fields[name]["description"]
    assert "no effect" in description
    rest.ask(path)
    answer = rest.ask(path, **{name: WITHOUT_EFFECT[path][name]})
    assert rest.engine.requests[0] == rest.engine.requests[1]
    if "Shown" in description:
        assert answer.json[name] == WITHOUT_EFFECT[path][name]


def test_what_a_request_does_not_say_is_openais_default(rest: OpenAIRest) -> None:
    """Samplers that OpenAI does not have are off, and stops of chats are not those of raw text."""
    off = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
    rest.complete()
    assert rest.engine.requests[-1].params == SamplingParams(**off, max_tokens=16)
    for path in (RESPOND, CHAT):
        rest.ask(path)
        params = rest.engine.requests[-1].params
        assert params.max_tokens is None
        assert {name: getattr(params, name) for name in off} == off
        assert params.stop == ("<|im_end|>", "USER:")


def test_a_chat_has_nitros_fields(rest: OpenAIRest) -> None:
    own = schema("openai", "ChatCompletionRequest").properties
    assert own == schema("nitro", "ChatCompletionRequest").properties | {"user"}
    answer = rest.ask(CHAT, user="me", top_k=7)
    assert rest.engine.requests[-1].params.top_k == 7
    assert "x-nitro-ignored" not in answer.headers
    assert answer.json["id"].startswith("chatcmpl-")


@pytest.mark.parametrize("path", [*SCHEMAS, CHAT, EMBED])
def test_what_nobody_knows_is_named(rest: OpenAIRest, path: str) -> None:
    answer = rest.ask(path, nonsense=1, more=None)
    assert answer.status == 200
    assert answer.headers["x-nitro-ignored"] == "nonsense"


@pytest.mark.parametrize("path", [*SCHEMAS, CHAT, EMBED])
def test_a_model_must_be_named_and_known(rest: OpenAIRest, path: str) -> None:
    for model, status, code in [(None, 400, "invalid_request"), ("gpt", 404, "model_not_found")]:
        answer = rest.ask(path, model=model)
        assert (answer.status, answer.json["error"]["code"]) == (status, code)
        assert answer.json["error"]["param"] == "model"
    assert rest.engine.requests == rest.engine.embeds == []


WRONG: dict[str, list[tuple[str, Any]]] = {
    COMPLETE: [
        ("model", 5), ("prompt", 5), ("prompt", []), ("prompt", [""] * 2049), ("prompt", ["a", 1]),
        ("prompt", [-1]), ("prompt", [[]]), ("max_tokens", -2), ("max_tokens", "x"), ("n", 0),
        ("n", 66), ("best_of", 0), ("echo", 1), ("suffix", 1), ("logprobs", 21), ("logprobs", True),
        ("n_probs", -1), ("stream", "yes"), ("stream_options", []), ("temperature", 2.5),
        ("temperature", -1), ("top_p", 1.5), ("seed", "x"), ("stop", 5), ("stop", ["a"] * 65),
        ("logit_bias", 5), ("grammar", {}), ("json_schema", "x"), ("response_format", "json"),
        ("context_policy", "drop_oldest_turns"), ("n_keep", -2), ("id_slot", -2),
        ("cache_prompt", 1), ("return_tokens", 1), ("timings_per_token", 1), ("verbose", 1),
        ("post_sampling_probs", 1), ("post_sampling_probs", True), ("lora", {}), ("user", 5),
        ("n_predict", -2),
    ],
    RESPOND: [
        ("model", 5), ("input", 5), ("input", []), ("input", [5]), ("input", [{}]),
        ("instructions", 5), ("max_output_tokens", 0), ("max_output_tokens", 1.5), ("store", 1),
        ("stream", 1), ("stream_options", 1), ("tools", {}), ("tools", [{}]),
        ("tools", [{"type": "function"}]), ("tools", [{"type": "function", "name": "a b"}]),
        ("tool_choice", 5), ("tool_choice", "required"), ("tool_choice", "some"),
        ("parallel_tool_calls", 1), ("text", []), ("text", {"format": 5}),
        ("text", {"format": {"type": "json_schema"}}), ("include", "x"), ("include", ["x"]),
        ("top_logprobs", 21), ("temperature", 3), ("top_p", 2), ("truncation", "some"),
        ("metadata", {"a": 5}), ("metadata", {"a" * 65: "b"}),
        ("metadata", {str(one): "" for one in range(17)}), ("background", "no"),
        ("previous_response_id", 5), ("seed", "x"), ("top_k", -2), ("max_tool_calls", 0),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name", "value"), [(path, *row) for path, table in WRONG.items() for row in table]
)
def test_a_value_out_of_range_is_400_and_names_the_field(
    rest: OpenAIRest, path: str, name: str, value: Any
) -> None:
    answer = rest.ask(path, **{name: value})
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
    assert answer.json["error"]["param"].split("/")[0] == name
    assert rest.engine.requests == []
