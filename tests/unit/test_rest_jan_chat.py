"""The chat of the Jan dialect over a fake engine: its fields, defaults, answers and errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.jan_rest import HELLO, MODEL, Jan

from nitrolib.errors import BackendError, ModelLoadError, Overloaded
from nitrolib.validation import schema

if TYPE_CHECKING:
    from pathlib import Path

CHAT = "/chat/completions"
NAME = "ChatCompletionResponseDto"
# Seed 1.0: what a chat gets that says nothing, and generation_settings tells.
DEFAULTS = {
    "temperature": 0.8, "dynatemp_range": 0, "dynatemp_exponent": 1, "top_k": 40, "top_p": 0.95,
    "min_p": 0.05, "typical_p": 1.0, "presence_penalty": 0, "frequency_penalty": 0,
    "repeat_penalty": 1.1, "repeat_last_n": 64, "dry_multiplier": 0, "dry_base": 1.75,
    "dry_allowed_length": 2, "dry_penalty_last_n": -1, "n_indent": 0,
    "dry_sequence_breakers": ["\n", ":", '"', "*"], "xtc_probability": 0, "xtc_threshold": 0.1,
    "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "ignore_eos": False, "logit_bias": [],
    "n_probs": 0, "min_keep": 0, "t_max_predict_ms": 0, "id_slot": -1, "cache_prompt": True,
    "timings_per_token": False, "post_sampling_probs": False, "stream": False,
    "max_tokens": 2048, "grammar": "", "json_schema": None,
}  # fmt: skip


@pytest.fixture
def jan(tmp_path: Path) -> Jan:
    return Jan(tmp_path)


def test_an_answer_is_one_object_unless_a_stream_is_asked_for(jan: Jan) -> None:
    answer = jan.call("POST", CHAT, jan.chat_body(), NAME)
    assert answer["model"] == MODEL
    assert answer["choices"] == [
        {
            "finish_reason": "stop",
            "index": 0,
            "message": {"content": "Hello there", "role": "assistant"},
            "logprobs": None,
        }
    ]
    assert answer["usage"]["total_tokens"] == 103


def test_a_stream_ends_with_done_and_names_the_model(jan: Jan) -> None:
    events = jan.send("POST", CHAT, jan.chat_body(stream=True)).events
    assert {event["model"] for event in events} == {MODEL}
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert text == "Hello there"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_defaults_are_those_of_the_seed(jan: Jan) -> None:
    settings = jan.call("POST", CHAT, jan.chat_body(verbose=True), NAME)["generation_settings"]
    assert {name: settings[name] for name in DEFAULTS} == DEFAULTS


def test_what_the_schema_says_is_what_a_chat_gets() -> None:
    told = schema("jan", "CreateChatCompletionDto").defaults
    for name, value in DEFAULTS.items():
        if name in told:
            assert told[name] == value, name


def test_an_unlimited_answer_is_asked_for_with_n_predict(jan: Jan) -> None:
    jan.call("POST", CHAT, jan.chat_body(n_predict=-1), NAME)
    jan.call("POST", CHAT, jan.chat_body(n_predict=5), NAME)
    assert [one.params.max_tokens for one in jan.engine.requests] == [None, 5]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_goes_before_n_predict_and_that_is_told(jan: Jan, name: str) -> None:
    answer = jan.send("POST", CHAT, jan.chat_body(**{name: 7, "n_predict": 5}))
    assert (answer.status, answer.headers["x-nitro-ignored"]) == (200, "n_predict")
    assert jan.engine.requests[0].params.max_tokens == 7


def test_log_probabilities_are_an_array(jan: Jan) -> None:
    choice = jan.call("POST", CHAT, jan.chat_body(n_probs=2), NAME)["choices"][0]
    assert [one["token"] for one in choice["logprobs"]] == ["Hello", " there"]
    assert len(choice["logprobs"][0]["top_logprobs"]) == 2
    body = jan.chat_body(n_probs=2, post_sampling_probs=True)
    choice = jan.call("POST", CHAT, body, NAME)["choices"][0]
    assert choice["logprobs"][0]["prob"] == 0.25
    assert len(choice["logprobs"][0]["top_probs"]) == 2
    events = jan.send("POST", CHAT, jan.chat_body(n_probs=1, stream=True)).events
    assert events[0]["choices"][0]["logprobs"][0]["token"] == "Hello"


def test_content_may_be_parts_which_are_joined(jan: Jan) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    jan.call("POST", CHAT, jan.chat_body(messages=[{"role": "user", "content": parts}]), NAME)
    assert "one two" in jan.engine.requests[0].prompt.text  # type: ignore[union-attr]


@pytest.mark.parametrize("stop", ["END", ["END"]])
def test_stop_is_a_text_or_several(jan: Jan, stop: Any) -> None:
    jan.call("POST", CHAT, jan.chat_body(stop=stop), NAME)
    assert "END" in jan.engine.requests[0].params.stop


@pytest.mark.parametrize("name", ["model", "messages"])
def test_model_and_messages_are_required(jan: Jan, name: str) -> None:
    body = jan.chat_body()
    del body[name]
    assert jan.fails("POST", CHAT, body) == (400, "missing_required_parameter", name)
    body[name] = None
    assert jan.fails("POST", CHAT, body) == (400, "missing_required_parameter", name)


@pytest.mark.parametrize("name", ["other", "..", "/etc/passwd", "a" * 500, "\0"])
def test_an_unknown_model_is_not_found(jan: Jan, name: str) -> None:
    assert jan.fails("POST", CHAT, jan.chat_body(model=name)) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "judge", "content": ""}]}, "messages/0/role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages/0/content", None),
        ({"messages": [{"content": "x"}]}, "messages/0/role", None),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"top_k": 1.5}, "top_k", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"logit_bias": {"1": "x"}}, "logit_bias/1", "invalid_value"),
        ({"grammar": "root ::= [a]", "json_schema": {}}, "json_schema", "invalid_value"),
        ({"lora": [{"id": 0, "scale": 1.0}]}, "lora", "unsupported"),
        ({"multimodal_data": ["aGk="]}, "multimodal_data", "unsupported"),
    ],
)
def test_a_bad_field_is_refused(jan: Jan, fields: Any, field: str, code: str | None) -> None:
    status, told, param = jan.fails("POST", CHAT, jan.chat_body(**fields))
    assert (status, told, param) == (400, code or "missing_required_parameter", field)
    assert jan.engine.requests == []


def test_an_empty_field_asks_for_nothing(jan: Jan) -> None:
    body = jan.chat_body(lora=[], multimodal_data=[], grammar="", stop=None, json_schema=None)
    jan.call("POST", CHAT, body, NAME)


def test_unknown_fields_are_ignored_and_named(jan: Jan) -> None:
    answer = jan.send("POST", CHAT, jan.chat_body(warmth=1))
    assert (answer.status, answer.headers["x-nitro-ignored"]) == (200, "warmth")


@pytest.mark.parametrize("body", ["{", "[]", '"x"', "", "nonsense"])
def test_what_is_no_json_object_is_refused(jan: Jan, body: str) -> None:
    answer = jan.post(f"/v1{CHAT}", body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Overloaded(queue_size=64), 503, "server_busy"),
        (BackendError("NaN"), 500, "internal_error"),
        (RuntimeError("a secret"), 500, "internal_error"),
    ],
)
def test_failures_have_their_codes(jan: Jan, error: Exception, status: int, code: str) -> None:
    jan.engine.refuse = error
    answer = jan.send("POST", CHAT, jan.chat_body())
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert "secret" not in answer.data.decode()
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_routes_and_methods_that_there_are_not_are_told(jan: Jan) -> None:
    assert jan.fails("GET", "/nothing") == (404, "not_found", None)
    assert jan.fails("DELETE", CHAT) == (405, "method_not_allowed", None)


def test_a_key_is_wanted_everywhere_when_there_is_one(tmp_path: Path) -> None:
    jan = Jan(tmp_path, api_key="secret")
    right = {"Authorization": "Bearer secret"}
    for method, path in (("GET", "/models"), ("POST", CHAT), ("GET", "/threads")):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = jan.send(method, path, headers=headers)
            assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert jan.send("OPTIONS", path).status == 200
    assert jan.call("GET", "/threads", headers=right) == []


def test_model_json_says_what_a_chat_gets_that_says_nothing(tmp_path: Path) -> None:
    """Request, then model.json, then the dialect."""
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    make_llama(folder / "small.gguf")
    parameters = {
        "temperature": "0.25", "top_k": 7, "token_limit": "99", "stop": ["HALT"], "stream": "true",
        "presence_penalty": 0.5,
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps({"parameters": parameters}))
    jan = Jan(tmp_path, models_dir=str(tmp_path / "models"))
    jan.engine.model = None
    answer = jan.send("POST", CHAT, jan.chat_body(model="small", top_k=3))
    assert answer.events[-1]["choices"][0]["finish_reason"] == "stop"  # streamed
    params = jan.engine.requests[0].params
    assert (params.temperature, params.top_k, params.max_tokens) == (0.25, 3, 99)
    assert (params.presence_penalty, params.top_p) == (0.5, 0.95)
    assert "HALT" in params.stop
    answer = jan.send("POST", CHAT, jan.chat_body(model="small", stream=False))
    assert answer.json["model"] == "small"
    shown = jan.call("GET", "/models/small", None, "GetModelResponse")
    assert (shown["temperature"], shown["stream"], shown["stop"]) == (0.25, True, ["HALT"])
    assert shown["parameters"]["token_limit"] == "99"


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    make_llama(folder / "small.gguf")
    jan = Jan(tmp_path, models_dir=str(tmp_path / "models"), loaded=False)
    jan.engine.load_error = ModelLoadError("no")
    assert jan.fails("POST", CHAT, jan.chat_body(model="small")) == (500, "model_load_failed", None)
    assert jan.fails("PUT", "/models/small/start") == (500, "model_load_failed", None)


def test_completions_and_embeddings_are_answered_too(jan: Jan) -> None:
    made = jan.call("POST", "/completions", {"model": MODEL, "prompt": "Once"})
    assert made["choices"][0]["text"] == "Hello there"
    made = jan.call("POST", "/embeddings", {"model": MODEL, "input": "hello"})
    assert len(made["data"]) == 1
    for path, body in (("/completions", {"prompt": "x"}), ("/embeddings", {"input": "x"})):
        assert jan.fails("POST", path, body) == (400, "missing_required_parameter", "model")


def test_the_roles_are_those_of_a_chat(jan: Jan) -> None:
    messages = [{"role": "system", "content": "Be brief."}, HELLO]
    jan.call("POST", CHAT, jan.chat_body(messages=messages), NAME)
