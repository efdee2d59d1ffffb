"""What a chat's answer shows when it is asked for more than text: probabilities, choices, details,
progress; whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest
from support.rest_client import Rest

from nitrolib.errors import BackendError, InvalidRequest, Unsupported
from nitrolib.validation import schema

DETAILS = [
    "generation_settings",
    "prompt",
    "truncated",
    "tokens_cached",
    "tokens_evaluated",
    "timings",
]


@pytest.fixture
def rest() -> Rest:
    return Rest()


def whole(rest: Rest, **fields: Any) -> Any:
    answer = rest.chat(**fields)
    assert answer.status == 200, answer.json
    schema("nitro", "ChatCompletion").check(answer.json)
    return answer.json


def streamed(rest: Rest, **fields: Any) -> list[Any]:
    answer = rest.chat(stream=True, **fields)
    assert answer.status == 200, answer.data
    for event in answer.events:
        schema("nitro", "ChatCompletionChunk").check(event)
    return answer.events


# ---- the request -------------------------------------------------------------------------------


def test_a_limit_that_does_not_count_is_named_in_the_answer(rest: Rest) -> None:
    answer = whole(rest, n_predict=5, max_completion_tokens=6, max_tokens=7)
    assert answer["warnings"] == [
        "max_completion_tokens and max_tokens not used: n_predict goes before"
    ]
    assert "warnings" not in whole(rest, n_predict=5, max_tokens=5)


def test_two_names_of_typical_sampling_must_agree(rest: Rest) -> None:
    assert rest.chat(typ_p=0.5, typical_p=0.5).status == 200
    assert rest.chat(typ_p=0.5, typical_p=0.6).json["error"]["param"] == "typical_p"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "json_schema"),
        ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}},
         "response_format"),
        ({"json_schema": {}, "response_format": {"type": "json_object"}}, "response_format"),
    ],
)  # fmt: skip
def test_one_constraint_at_most(rest: Rest, fields: dict[str, Any], named: str) -> None:
    answer = rest.chat(**fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, named)
    assert rest.engine.requests == []


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"type": "text"}, None),
        ({}, None),
        ({"type": None}, None),
        ({"type": "json_object"}, '{"type": "object"}'),
        ({"type": "json_object", "schema": {"const": "é"}}, '{"const": "é"}'),
        ({"type": "json_schema", "json_schema": {"name": "x", "strict": True,
          "schema": {"b": 1, "a": 2}}}, '{"b": 1, "a": 2}'),
        ({"type": "json_schema"}, '{"type": "object"}'),
    ],
)  # fmt: skip
def test_forms_of_an_answer(rest: Rest, form: Any, text: str | None) -> None:
    assert rest.chat(response_format=form).status == 200
    assert rest.engine.requests[0].params.json_schema == text


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "sound"}, "response_format/type"),
        ({"type": 123}, "response_format/type"),
        ({"type": "json_object", "schema": 123}, "response_format/schema"),
        ({"type": "json_schema", "json_schema": {"schema": 123}},
         "response_format/json_schema/schema"),
        ({"type": "json_schema", "json_schema": 123}, "response_format/json_schema"),
    ],
)  # fmt: skip
def test_an_unknown_form_is_400(rest: Rest, form: Any, param: str) -> None:
    answer = rest.chat(response_format=form)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


def test_a_refused_schema_is_named_as_the_client_gave_it(rest: Rest) -> None:
    rest.engine.refuse = Unsupported("json_schema: no", field="json_schema", pointer="/a")
    assert rest.chat(json_schema={}).json["error"]["param"] == "json_schema"
    error = rest.chat(response_format={"type": "json_object"}).json["error"]
    assert (error["param"], error["pointer"]) == ("response_format", "/a")
    assert error["message"] == "response_format: no"
    rest.engine.refuse = InvalidRequest("no", field="grammar", line=3)
    assert rest.chat(grammar="x").json["error"]["line"] == 3
    rest.engine.refuse = InvalidRequest("no", field="prompt")
    assert rest.chat().json["error"]["param"] == "messages"


# ---- probabilities -----------------------------------------------------------------------------


def test_logprobs_have_openais_shape_and_join_to_the_text(rest: Rest) -> None:
    choice = whole(rest, logprobs=True, top_logprobs=2)["choices"][0]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert entries[0] == {
        "id": 0,
        "token": "Hello",
        "bytes": list(b"Hello"),
        "logprob": -0.25,
        "top_logprobs": [
            {"id": 255, "token": "a", "bytes": [97, 0xC3], "logprob": -0.25},
            {"id": 254, "token": "a", "bytes": [97, 0xC3], "logprob": -0.25},
        ],
    }


def test_probabilities_after_sampling_have_names_of_their_own(rest: Rest) -> None:
    fields = {"n_probs": 1, "post_sampling_probs": True}
    entry = whole(rest, **fields)["choices"][0]["logprobs"]["content"][0]
    assert (entry["prob"], entry["top_probs"][0]["prob"]) == (0.25, 0.25)
    assert not {"logprob", "top_logprobs"} & entry.keys()


@pytest.mark.parametrize(
    ("fields", "asked", "listed"),
    [
        ({"logprobs": True}, 1, 0),
        ({"logprobs": True, "top_logprobs": 0}, 1, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20, 20),
        ({"n_probs": 3}, 3, 3),
        ({"n_probs": 3, "logprobs": True}, 3, 3),
        ({"n_probs": 3, "logprobs": True, "top_logprobs": 3}, 3, 3),
    ],
)
def test_how_many_tokens_are_listed(
    rest: Rest, fields: dict[str, Any], asked: int, listed: int
) -> None:
    entry = whole(rest, **fields)["choices"][0]["logprobs"]["content"][0]
    assert rest.engine.requests[0].params.n_probs == asked
    assert len(entry["top_logprobs"]) == listed


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": True, "n_probs": 3}, "n_probs"),
        ({"n_probs": 129}, "n_probs"),
        ({"n_probs": 65, "n": 2}, "n_probs"),
        ({"n_probs": 30000, "max_tokens": 9}, "n_probs"),
        ({"n_probs": 9, "max_tokens": 30000, "context_policy": "shift"}, "n_probs"),
    ],
)
def test_wrong_and_too_many_probabilities_are_400(
    rest: Rest, fields: dict[str, Any], param: str
) -> None:
    answer = rest.chat(**fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert rest.engine.requests == []


def test_many_probabilities_may_be_streamed(rest: Rest) -> None:
    assert rest.chat(n_probs=129, stream=True).status == 200
    assert rest.chat(n_probs=129, stream=True, n=16).json["error"]["param"] == "n_probs"
    assert rest.chat(n_probs=128).status == 200
    assert rest.chat(n_probs=9, max_tokens=30000).status == 200  # the context ends it earlier


def test_without_a_model_nobody_can_tell_how_many_are_too_many() -> None:
    answer = Rest(loaded=False).chat(n_probs=5)
    assert answer.status == 409


def test_streamed_logprobs_and_tokens_are_those_of_the_whole_answer(rest: Rest) -> None:
    fields = {"logprobs": True, "top_logprobs": 1, "return_tokens": True}
    choice = whole(rest, **fields)["choices"][0]
    parts = [event["choices"][0] for event in streamed(rest, **fields)]
    assert [part["logprobs"] is None for part in parts] == [False, False, True]
    entries = [entry for part in parts for entry in (part["logprobs"] or {}).get("content", [])]
    assert entries == choice["logprobs"]["content"]
    assert [one for part in parts for one in part["tokens"]] == choice["tokens"]


# ---- choices -----------------------------------------------------------------------------------


def test_choices_share_one_prompt(rest: Rest) -> None:
    answer = whole(rest, n=3, seed=7)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(rest.engine.requests) == 1
    assert [one.request.params.seed for one in rest.engine.generations] == [7, 8, 9]
    assert answer["usage"] == {
        "completion_tokens": 39,
        "prompt_tokens": 90,
        "total_tokens": 129,
        "prompt_tokens_details": {"cached_tokens": 7},
    }


def test_streamed_choices_are_told_apart_and_end_with_one_usage(rest: Rest) -> None:
    *events, usage = streamed(rest, n=2, stream_options={"include_usage": True})
    choices = [event["choices"][0] for event in events]
    assert {choice["index"] for choice in choices} == {0, 1}
    for index in (0, 1):
        own = [choice for choice in choices if choice["index"] == index]
        assert "".join(one["delta"].get("content", "") for one in own) == "Hello there"
        assert [one["delta"].get("role") for one in own] == ["assistant", None, None]
        assert [one["finish_reason"] for one in own] == [None, None, "stop"]
    assert usage["usage"]["total_tokens"] == 90 + 2 * 13
    assert len({event["id"] for event in [*events, usage]}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_every_way_out_of_choices_gives_all_slots_back(rest: Rest, stream: bool) -> None:
    rest.chat(n=3, stream=stream)
    rest.engine.fail = BackendError("x")
    failed = rest.chat(n=3, stream=stream)
    if stream:
        assert failed.events[-1]["error"]["code"] == "backend_error"
    else:
        assert failed.status == 500
    assert len(rest.engine.generations) == 6
    assert all(generation.cancelled for generation in rest.engine.generations)


def test_a_client_that_leaves_a_stream_of_choices_frees_them(rest: Rest) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "n": 2, "stream": True}
    answer = rest.http.post("/v1/chat/completions", json=body, buffered=False)
    assert next(iter(answer.response))
    assert not rest.engine.generations[0].cancelled
    answer.close()
    assert all(generation.cancelled for generation in rest.engine.generations)


# ---- details -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "detailed"),
    [
        ({}, False),
        ({"temperature": 0.5, "seed": 1, "logprobs": True, "n": 2}, False),
        ({"verbose": True}, True),
        ({"id_slot": -1}, True),
        ({"samplers": ["top_k"]}, True),
        ({"dry_multiplier": 0, "verbose": False}, False),
    ],
)
def test_details_come_when_asked_for_or_with_a_field_of_their_dialect(
    rest: Rest, fields: dict[str, Any], detailed: bool
) -> None:
    found = whole(rest, **fields)
    assert [name for name in DETAILS if name in found] == (DETAILS if detailed else [])
    *others, last = streamed(rest, **fields)
    assert [name for name in DETAILS if name in last] == (DETAILS if detailed else [])
    assert not any(name in event for event in others[:-1] for name in DETAILS)


def test_fields_that_bring_details_are_known_fields() -> None:
    from nitrolib.adapters.rest.chat import details

    known = schema("nitro", "ChatCompletionRequest").properties
    assert known >= details._TELLING
    assert not details._TELLING & {"messages", "temperature", "seed", "logprobs", "n", "stop"}


def test_details_tell_what_was_done(rest: Rest) -> None:
    rest.engine.truncated = True
    answer = whole(rest, verbose=True, seed=-1, logit_bias={"5": False}, top_k=3, max_tokens=-1)
    assert answer["prompt"] == "<s>P"
    assert (answer["truncated"], answer["tokens_cached"], answer["tokens_evaluated"]) == (
        True, 7, 90,
    )  # fmt: skip
    settings = answer["generation_settings"]
    assert settings["seed"] == 4294967295  # what the fake engine used
    assert settings["logit_bias"] == [{"bias": None, "token": 5}]
    assert (settings["top_k"], settings["temperature"]) == (3, 0.7)
    assert (settings["n_predict"], settings["max_tokens"]) == (-1, -1)
    assert settings["samplers"][0] == "penalties"
    assert settings["stream"] is False
    assert streamed(rest, verbose=True)[-1]["generation_settings"]["stream"] is True


def test_timings_count_the_first_token_with_the_prompt(rest: Rest) -> None:
    timings = whole(rest, verbose=True)["timings"]
    assert timings == {
        "cache_n": 7,
        "prompt_n": 83,
        "prompt_ms": 100.0,
        "prompt_per_token_ms": pytest.approx(100 / 83),
        "prompt_per_second": pytest.approx(830),
        "predicted_n": 13,
        "predicted_ms": 200.0,
        "predicted_per_token_ms": pytest.approx(200 / 12),
        "predicted_per_second": pytest.approx(60),
    }
    both = whole(rest, verbose=True, n=2)["timings"]
    assert (both["predicted_n"], both["predicted_ms"]) == (26, 400)
    assert both["predicted_per_second"] == pytest.approx(60)


def test_timings_of_one_token_have_no_rate() -> None:
    from nitrolib.adapters.rest.chat.details import timings
    from nitrolib.engine.request import Timings

    found = timings(Timings(queue_s=0, prefill_s=0, decode_s=0, predicted_n=1))
    assert set(found.values()) == {0, 1}
    assert found["predicted_per_second"] == found["prompt_per_second"] == 0.0


def test_progress_comes_before_the_text(rest: Rest) -> None:
    first, second, *_ = streamed(rest, return_progress=True)
    assert first["prompt_progress"] == {
        "total": 90, "cache": 7, "processed": 50, "time_ms": 250.0,
    }  # fmt: skip
    assert first["choices"] == [{"delta": {"role": "assistant"}, "finish_reason": None, "index": 0}]
    assert second["choices"][0]["delta"] == {"content": "Hello"}
    assert "prompt_progress" not in whole(rest, return_progress=True)


def test_timings_per_token_are_in_every_event_also_without_details(rest: Rest) -> None:
    events = streamed(rest, timings_per_token=True, verbose=False)
    assert all(event["timings"]["predicted_n"] == 13 for event in events)
    assert "prompt" not in events[-1]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["usage/total_tokens"], {"usage/total_tokens": 103}),
        (["choices/0/message/content", "choices/1", "choices/x", "nothing", "usage/x/y"],
         {"choices/0/message/content": "Hello there"}),
        (["generation_settings/n_predict", "truncated"],
         {"generation_settings/n_predict": 2048, "truncated": False}),
        (["nothing"], {}),
    ],
)  # fmt: skip
def test_an_answer_may_be_reduced_to_some_of_its_parts(
    rest: Rest, paths: list[str], found: Any
) -> None:
    assert rest.chat(response_fields=paths).json == found


def test_no_response_fields_are_all_of_them(rest: Rest) -> None:
    assert "generation_settings" in whole(rest, response_fields=[])


def test_response_fields_choose_among_the_details_of_a_stream(rest: Rest) -> None:
    last = streamed(rest, response_fields=["truncated", "timings/cache_n"])[-1]
    assert (last["truncated"], last["timings/cache_n"]) == (False, 7)
    assert last["choices"][0]["finish_reason"] == "stop"
    assert "prompt" not in last
