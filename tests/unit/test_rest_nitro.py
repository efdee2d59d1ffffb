"""The Nitro dialect over a fake engine: its decision tables, row by row."""

from __future__ import annotations

import base64
import json
import re
import struct
from typing import Any

import pytest
from support.rest_client import CHAT, EMBED, HELLO, LOAD, STATUS, UNLOAD, Rest

from nitrolib.engine.request import GenerationRequest
from nitrolib.errors import (
    BackendError,
    Cancelled,
    ContextOverflow,
    ModelFileError,
    NotEnoughMemory,
    Overloaded,
)
from nitrolib.prompt import Message, PromptTemplate
from nitrolib.sampling import SamplingParams
from nitrolib.validation import schema

NOT_LOADED = "Model has not been loaded, please load model into nitro"
NULLABLE_LOAD = list(schema("nitro", "LoadModelRequest").properties)
NULLABLE_CHAT = [
    name for name in schema("nitro", "ChatCompletionRequest").properties if name != "messages"
]


@pytest.fixture
def rest() -> Rest:
    return Rest()


@pytest.fixture
def empty() -> Rest:
    return Rest(loaded=False)


# ---- routes ------------------------------------------------------------------------------------


def test_health_does_not_depend_on_a_model(rest: Rest, empty: Rest) -> None:
    for each in (rest, empty):
        answer = each.get("/healthz")
        assert (answer.status, answer.json) == (200, {"message": "Nitro is alive!!!"})
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("prefix", ["llamacpp", "server"])
@pytest.mark.parametrize(
    ("method", "name", "body"),
    [
        ("POST", "loadmodel", {"llama_model_path": "a.gguf"}),
        ("GET", "unloadmodel", None),
        ("POST", "unloadmodel", None),
        ("GET", "modelstatus", None),
        ("POST", "modelstatus", None),
    ],
)
def test_model_routes_answer_under_both_prefixes_in_any_case(
    empty: Rest, prefix: str, method: str, name: str, body: Any
) -> None:
    for spelling in (name, name.upper(), name.replace("model", "Model")):
        empty.engine.model = None
        answer = empty.request(method, f"/inferences/{prefix}/{spelling}", json=body)
        assert answer.status == 200, answer.json


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/Chat/Completions",
        "/inferences/llamacpp/chat_completion",
        "/inferences/server/Chat_Completion",
    ],
)
def test_chat_routes(rest: Rest, path: str) -> None:
    assert rest.post(path, {"messages": HELLO}).json["object"] == "chat.completion"


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/inferences/llamacpp/embedding", "/inferences/SERVER/embedding"]
)
def test_embedding_routes(rest: Rest, path: str) -> None:
    assert rest.post(path, {"input": "hello"}).json["object"] == "list"


def test_unknown_routes_and_wrong_methods_answer_json(rest: Rest) -> None:
    assert rest.get("/nothing").status == 404
    assert rest.get("/inferences/other/loadmodel").status == 404
    assert rest.request("DELETE", "/processmanager/destroy").status == 404
    wrong = rest.get(LOAD)
    assert wrong.status == 405
    assert "POST" in wrong.headers["Allow"]
    assert wrong.json["error"]["code"] == "method_not_allowed"


def test_the_schema_is_served(rest: Rest) -> None:
    document = rest.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]["/v1/chat/completions"]) == {"post", "options"}


# ---- loadmodel ---------------------------------------------------------------------------------

SEED_LOAD = {
    "llama_model_path": "nitro/model/zephyr-7b-beta.Q5_K_M.gguf",
    "ngl": 100,
    "ctx_len": 2048,
    "embedding": True,
    "cont_batching": False,
    "n_parallel": 1,
    "cpu_threads": 4,
    "pre_prompt": "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant follows the given rules no matter what.",
    "system_prompt": "ASSISTANT's RULE:",
    "user_prompt": "USER:",
    "ai_prompt": "ASSISTANT:",
    "clean_cache_threshold": 5,
}


def test_the_seeds_load_is_answered_as_the_seed_shows(
    empty: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nitrolib.backends.threads.available_cores", lambda: 8)
    answer = empty.post(LOAD, SEED_LOAD)
    assert answer.status == 200
    assert answer.json == {
        "message": "Model loaded successfully",
        "code": "Model loaded successfully",
    }
    path, options, backend = empty.engine.loads[0]
    assert (path, backend) == (SEED_LOAD["llama_model_path"], "auto")
    assert (options.ngl, options.gpu_fallback, options.threads) == (100, True, 4)
    assert (options.ctx_len, options.n_parallel, options.cont_batching) == (2048, 1, False)
    assert (options.embedding, options.clean_cache_threshold) == (True, 5)
    assert (options.warm_up, options.caching, options.provisional) == (True, True, False)


def test_more_threads_than_cores_are_all_cores_and_a_warning(
    empty: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nitrolib.backends.threads.available_cores", lambda: 2)
    answer = empty.load(cpu_threads=4)
    assert answer.json["warnings"] == ["cpu_threads is 2, the cores there are, not 4"]
    assert empty.engine.loads[0][1].threads == 2


def test_absent_and_null_fields_of_a_load_are_the_same(empty: Rest) -> None:
    assert empty.load().status == 200
    nulls = dict.fromkeys(NULLABLE_LOAD) | {"llama_model_path": "a.gguf"}
    empty.get(UNLOAD)
    assert empty.post(LOAD, nulls).status == 200
    (_, absent, _), (_, null, _) = empty.engine.loads
    assert absent == null
    assert (absent.ctx_len, absent.n_parallel, absent.cont_batching) == (2048, 1, False)
    assert (absent.ngl, absent.threads) == (None, None)
    assert absent.clean_cache_threshold == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("llama_model_path", ""),
        ("llama_model_path", 7),
        ("llama_model_path", "a\0b"),
        ("ngl", -1),
        ("ngl", 1.5),
        ("ngl", "all"),
        ("ngl", True),
        ("ctx_len", 0),
        ("ctx_len", "2048"),
        ("embedding", 1),
        ("cont_batching", "yes"),
        ("n_parallel", 0),
        ("n_parallel", 65),
        ("cpu_threads", 0),
        ("pre_prompt", 5),
        ("system_prompt", ["x"]),
        ("user_prompt", {}),
        ("ai_prompt", False),
        ("clean_cache_threshold", -1),
        ("stop", "USER:"),
        ("repeat_last_n", -2),
        ("cache_type", "q9"),
    ],
)
def test_a_wrong_field_of_a_load_is_named(empty: Rest, field: str, value: Any) -> None:
    answer = empty.load(**{field: value})
    assert (answer.status, answer.json["error"]["param"]) == (400, field)
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert empty.engine.loads == []


def test_whole_numbers_may_be_written_with_a_point(empty: Rest) -> None:
    assert empty.load(ngl=0.0, ctx_len=512.0).status == 200
    options = empty.engine.loads[0][1]
    assert (options.ngl, options.ctx_len) == (0, 512)
    assert isinstance(options.ctx_len, int)


def test_more_layers_than_any_model_has_are_all_of_them(empty: Rest) -> None:
    assert empty.load(ngl=1000).status == 200
    assert empty.engine.loads[0][1].ngl == 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mmproj", "clip.gguf"),
        ("grp_attn_n", 2),
        ("grammar_file", "json.gbnf"),
        ("cache_type", "q8_0"),
    ],
)
def test_a_load_that_cannot_be_honoured_is_refused(empty: Rest, field: str, value: Any) -> None:
    answer = empty.load(**{field: value})
    assert answer.status == 400
    assert (answer.json["error"]["param"], answer.json["error"]["code"]) == (field, "unsupported")
    assert empty.engine.loads == []


def test_harmless_values_of_refused_fields_pass(empty: Rest) -> None:
    harmless = {"mmproj": "", "grp_attn_n": 1, "grp_attn_w": 512, "grammar_file": ""}
    answer = empty.load(**harmless, cache_type="f16")
    assert answer.status == 200
    assert "warnings" not in answer.json


def test_what_a_load_asked_for_and_did_not_get_is_reported(empty: Rest) -> None:
    empty.engine.load_notes = ("no GPU: the model runs on the CPU",)
    answer = empty.load(ngl=32, n_batch=512, flash_attn=True, llama_log_folder="logs/")
    warnings = answer.json["warnings"]
    assert "no GPU: the model runs on the CPU" in warnings
    assert [word.split()[0] for word in warnings[:3]] == [
        "flash_attn", "llama_log_folder", "n_batch",
    ]  # fmt: skip
    assert empty.get(STATUS).json["model_data"]["warnings"] == warnings


def test_a_path_may_have_its_other_name(empty: Rest) -> None:
    assert empty.post(LOAD, {"model_path": "b.gguf"}).status == 200
    assert empty.engine.loads[0][0] == "b.gguf"
    both = empty.post(LOAD, {"model_path": "b.gguf", "llama_model_path": "a.gguf"})
    assert (both.status, both.json["error"]["param"]) == (400, "model_path")


def test_a_load_without_a_path_is_400(empty: Rest) -> None:
    for body in ({}, {"llama_model_path": None}):
        answer = empty.post(LOAD, body)
        assert (answer.status, answer.json["error"]["param"]) == (400, "llama_model_path")


def test_a_second_load_is_409_and_changes_nothing(empty: Rest) -> None:
    empty.load(user_prompt="Q:")
    again = empty.load(user_prompt="OTHER:")
    assert (again.status, again.json["message"]) == (409, "Model already loaded")
    assert empty.get(STATUS).json["model_data"]["user_prompt"] == "Q:"


@pytest.mark.parametrize(
    "error",
    [
        ModelFileError("not a GGUF file", path="a.gguf", offset=0),
        NotEnoughMemory("needs 9 GB", path="a.gguf", needed_bytes=9, available_bytes=1),
    ],
)
def test_a_failed_load_is_500_and_a_good_one_works_after_it(empty: Rest, error: Any) -> None:
    empty.engine.load_error = error
    answer = empty.load()
    assert answer.status == 500
    assert answer.json["message"] == "Failed to load model"
    assert answer.json["code"] == "No model loaded"
    assert answer.json["error"]["message"] == error.message
    assert empty.chat().status == 409
    empty.engine.load_error = None
    assert empty.load().status == 200
    assert empty.chat().status == 200


def test_prompts_of_a_load_reach_every_chat(empty: Rest) -> None:
    empty.load(pre_prompt="", system_prompt="S:", user_prompt="U: ", ai_prompt="A:")
    empty.chat()
    request = empty.engine.requests[0]
    assert request.prompt.text == "U: HelloA:"
    assert request.params.stop == ("<|im_end|>", "U:")


def test_a_prompt_template_is_split_and_names_beside_it_win(empty: Rest) -> None:
    chatml = (
        "<|im_start|>system\n{system_message}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert "warnings" not in empty.load(prompt_template=chatml).json
    empty.chat()
    assert empty.engine.requests[0].prompt.text == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    empty.get(UNLOAD)
    answer = empty.load(prompt_template=chatml, user_prompt="Q:")
    assert answer.json["warnings"] == ["prompt_template is not used beside user_prompt"]
    empty.get(UNLOAD)
    broken = empty.load(prompt_template="no marker")
    assert broken.status == 400
    assert broken.json["message"].startswith("Cannot split prompt template")


def test_load_settings_reach_chats(empty: Rest) -> None:
    empty.load(stop=["END"], repeat_last_n=7)
    empty.chat()
    empty.chat(stop="MINE", repeat_last_n=3)
    first, second = (request.params for request in empty.engine.requests)
    assert (first.stop, first.repeat_last_n) == (("END", "<|im_end|>", "USER:"), 7)
    assert (second.stop, second.repeat_last_n) == (("MINE", "<|im_end|>", "USER:"), 3)


def test_a_provisional_model_gives_way_to_the_first_load(rest: Rest) -> None:
    from support.fake_engine import model_status

    from nitrolib.backends.base import LoadOptions

    rest.engine.model = model_status("bundled.gguf", LoadOptions(provisional=True))
    assert rest.load().status == 200
    assert rest.load().status == 409


# ---- unloadmodel, modelstatus -------------------------------------------------------------------


def test_unloading_twice_is_harmless(rest: Rest) -> None:
    first, second = rest.get(UNLOAD), rest.get(UNLOAD)
    assert (first.status, first.json) == (200, {"message": "Model unloaded successfully"})
    assert (second.status, second.json) == (200, {"message": "No model loaded"})


def test_status_without_a_model(empty: Rest) -> None:
    answer = empty.get(STATUS)
    assert (answer.status, answer.json) == (200, {"model_loaded": False, "model_data": {}})


def test_status_shows_load_settings_and_sampling_defaults(empty: Rest) -> None:
    empty.load(model_alias="zephyr", ctx_len=1000, n_parallel=2)
    answer = empty.get(STATUS).json
    schema("nitro", "ModelStatus").check(answer)
    data = answer["model_data"]
    assert answer["model_loaded"] is data["model_loaded"] is True
    assert (data["model"], data["n_ctx"], data["n_parallel"]) == ("zephyr", 500, 2)
    assert data["temperature"] == data["temp"] == 0.7
    assert (data["top_k"], data["top_p"], data["min_p"]) == (40, 0.95, 0.05)
    assert (data["seed"], data["n_predict"]) == (4294967295, 2048)
    assert (data["repeat_last_n"], data["repeat_penalty"]) == (64, 1.1)
    assert (data["tfs_z"], data["typical_p"], data["mirostat"]) == (1.0, 1.0, 0)
    assert data["stop"] == ["<|im_end|>", "USER:"]
    assert (data["stream"], data["ignore_eos"], data["logit_bias"]) == (False, False, [])
    assert len(data["slots"]) == 2


# ---- chat: the request --------------------------------------------------------------------------


def test_defaults_of_a_chat_are_the_dialects(rest: Rest) -> None:
    rest.chat()
    params = rest.engine.requests[0].params
    assert (params.temperature, params.top_p, params.max_tokens) == (0.7, 0.95, 2048)
    assert (params.frequency_penalty, params.presence_penalty) == (0, 0)
    plain = SamplingParams()
    for name in ("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "seed"):
        assert getattr(params, name) == getattr(plain, name), name


def test_defaults_in_the_schema_are_those_of_the_engine_but_for_the_dialects_own() -> None:
    defaults = schema("nitro", "ChatCompletionRequest").defaults
    own = {"temperature": 0.7, "max_tokens": 2048, "stream": False, "n": 1, "logprobs": False,
           "return_tokens": False, "parallel_tool_calls": True}  # fmt: skip
    plain, request = SamplingParams(), GenerationRequest(prompt=(1,))
    for name, value in defaults.items():
        field = {"typ_p": "typical_p"}.get(name, name)
        engine = getattr(plain, field, getattr(request, field, None))
        engine = list(engine) if isinstance(engine, tuple) else engine
        assert value == own.get(name, engine), name


def test_absent_and_null_fields_of_a_chat_are_the_same(rest: Rest) -> None:
    rest.chat()
    assert rest.chat(**dict.fromkeys(NULLABLE_CHAT)).status == 200
    absent, null = rest.engine.requests
    assert absent == null


def test_a_chat_counts_for_the_cache_and_strips_white_space(rest: Rest) -> None:
    rest.chat()
    request = rest.engine.requests[0]
    assert (request.kind, request.strip_leading_space) == ("chat", True)


def test_sampling_fields_reach_the_engine(rest: Rest) -> None:
    fields = {
        "temperature": 0,
        "top_p": 1,
        "frequency_penalty": -2,
        "presence_penalty": 2,
        "seed": 42,
        "top_k": 5,
        "min_p": 0.1,
        "repeat_penalty": 1.5,
        "repeat_last_n": -1,
        "ignore_eos": True,
    }
    assert rest.chat(**fields, max_tokens=7).status == 200
    params = rest.engine.requests[0].params
    assert {name: getattr(params, name) for name in fields} == fields
    assert params.max_tokens == 7


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"max_tokens": -1}, None),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 20.0}, 20),
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 9, "max_completion_tokens": 8, "n_predict": 7}, 7),
        ({"max_tokens": 9, "n_predict": -1}, None),
        ({"n_predict": 0}, 0),
    ],
)
def test_the_limit_of_an_answer(rest: Rest, given: dict[str, Any], limit: int | None) -> None:
    assert rest.chat(**given).status == 200
    assert rest.engine.requests[0].params.max_tokens == limit


@pytest.mark.parametrize(
    ("given", "biases"),
    [
        ({"15043": 1.5, "0": -100}, ((15043, 1.5), (0, -100.0))),
        ([[7, 1], [7, 2]], ((7, 1.0), (7, 2.0))),
        ({"3": False}, ((3, float("-inf")),)),
        ([[3, False]], ((3, float("-inf")),)),
        ({" a": 2}, ((32, 2.0), (97, 2.0))),
        ([["a", False], [5, 1]], ((97, float("-inf")), (5, 1.0))),
        ({}, ()),
        ([], ()),
    ],
)
def test_logit_bias_by_token_id_or_text(rest: Rest, given: Any, biases: Any) -> None:
    assert rest.chat(logit_bias=given).status == 200
    assert rest.engine.requests[0].params.logit_bias == biases


@pytest.mark.parametrize(
    "given",
    [
        {"-1": 1},
        {"32000": 1},
        {"": 1},
        [[-1, 1]],
        [[32000, 1]],
        [[1.5, 1]],
        {"1": True},
        {"1": "x"},
        {"1": None},
        [[1]],
        [5],
    ],
)
def test_a_wrong_logit_bias_is_refused(rest: Rest, given: Any) -> None:
    answer = rest.chat(logit_bias=given)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
    assert answer.json["error"]["param"].startswith("logit_bias/")


@pytest.mark.parametrize(
    "given",
    [{"x" * 257: 1}, {str(token): 1 for token in range(65537)}, [[1, 1]] * 65537],
    ids=["text", "object", "pairs"],
)
def test_a_logit_bias_that_would_take_long_is_refused(rest: Rest, given: Any) -> None:
    answer = rest.chat(logit_bias=given)
    assert (answer.status, answer.json["error"]["param"]) == (400, "logit_bias")


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        ("X", ("X", "<|im_end|>", "USER:")),
        (["a", "b"], ("a", "b", "<|im_end|>", "USER:")),
        (["", "USER:", "a", "a"], ("USER:", "a", "<|im_end|>")),
        ([], ("<|im_end|>", "USER:")),
        ("", ("<|im_end|>", "USER:")),
    ],
)
def test_stop_words_keep_their_order_without_empty_ones(rest: Rest, stop: Any, words: Any) -> None:
    assert rest.chat(stop=stop).status == 200
    assert rest.engine.requests[0].params.stop == words


def test_a_blank_user_prompt_is_no_stop_word(empty: Rest) -> None:
    empty.load(user_prompt=" \n")
    empty.chat()
    assert empty.engine.requests[0].params.stop == ("<|im_end|>",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
    ],
)
def test_content_is_text_null_or_text_parts(rest: Rest, content: Any, text: str) -> None:
    answer = rest.chat(messages=[{"role": "user", "content": content}])
    assert answer.status == 200
    expected = PromptTemplate().render([Message("user", text)])
    assert rest.engine.requests[0].prompt == expected


def test_any_role_is_allowed_and_its_name_is_no_control_token(rest: Rest) -> None:
    messages = [{"role": "<s>", "content": "x"}, {"content": "y"}, {"role": None}]
    assert rest.chat(messages=messages).status == 200
    segments = rest.engine.requests[0].prompt.segments
    assert [s.special for s in segments if s.text == "<s>"] == [False]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("Hello", "messages"),
        ({"role": "user"}, "messages"),
        (["Hello"], "messages/0"),
        ([{"role": "user", "content": 5}], "messages/0/content"),
        ([{"role": "user", "content": {"text": "x"}}], "messages/0/content"),
        ([{"role": "user", "content": ["x"]}], "messages/0/content/0"),
        ([{"role": 1, "content": "x"}], "messages/0/role"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages/0/content/0/type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages/0/content/0/text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages/0/content/0/type"),
        ([{"role": "assistant", "tool_calls": [{"id": "x"}]}], "messages/0/tool_calls/0/type"),
    ],
)
def test_wrong_messages_are_400_and_name_the_place(rest: Rest, messages: Any, param: str) -> None:
    answer = rest.post(CHAT, {"messages": messages} if messages is not None else {})
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert rest.engine.requests == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("top_p", 1.01),
        ("top_p", -1),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("max_tokens", 0),
        ("max_tokens", -2),
        ("max_tokens", 1.5),
        ("max_completion_tokens", 0),
        ("stop", 5),
        ("stream", "yes"),
        ("seed", 1.5),
        ("top_k", "x"),
        ("n", 0),
        ("stream_options", True),
        ("repeat_penalty", 0),
    ],
)
def test_a_field_out_of_range_is_400_and_named(rest: Rest, field: str, value: Any) -> None:
    answer = rest.chat(**{field: value})
    assert (answer.status, answer.json["error"]["param"]) == (400, field)
    assert field in answer.json["message"]


def test_errors_inside_an_array_name_the_item(rest: Rest) -> None:
    assert rest.chat(stop=["a", 5]).json["error"]["param"] == "stop/1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["audio"]),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content"}),
        ("prompt", "instead"),
        ("grammar_file", "x.gbnf"),
        ("lora", [{"id": 0, "scale": 1}]),
        ("multimodal_data", ["aGk="]),
    ],
)
def test_what_is_known_and_not_honoured_is_refused(rest: Rest, field: str, value: Any) -> None:
    answer = rest.chat(**{field: value})
    assert (answer.status, answer.json["error"]["code"]) == (400, "unsupported")
    assert answer.json["error"]["param"] == field
    assert rest.engine.requests == []


def test_values_that_ask_for_nothing_pass(rest: Rest) -> None:
    answer = rest.chat(
        n=1,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        logprobs=False,
        n_probs=0,
        modalities=["text"],
        grammar="",
        lora=[],
        multimodal_data=[],
        model="",
    )
    assert answer.status == 200
    assert "x-nitro-ignored" not in answer.headers


def test_unknown_fields_are_ignored_and_named(rest: Rest) -> None:
    messages = [{"role": "user", "content": "x", "name": "bob"}]
    answer = rest.chat(messages=messages, context_length=9, **{"a\nb, c": 1})
    assert answer.status == 200
    assert answer.headers["x-nitro-ignored"] == "context_length, a%0Ab%2C%20c, messages/%2A/name"


def test_the_list_of_ignored_fields_is_bounded(rest: Rest) -> None:
    answer = rest.chat(**{f"field{index}" + "x" * 1000: 1 for index in range(100)})
    assert answer.headers["x-nitro-ignored"].endswith(", and 84 more")
    assert len(answer.headers["x-nitro-ignored"]) < 2000


@pytest.mark.parametrize(
    ("fields", "accept", "default", "streams"),
    [
        ({}, None, False, False),
        ({}, "*/*", False, False),
        ({}, "application/json", False, False),
        ({}, "text/event-stream", False, True),
        ({}, "application/json, text/event-stream;q=0.5", False, True),
        ({}, "text/event-stream;q=0", False, False),
        ({}, None, True, True),
        ({"stream": None}, None, False, False),
        ({"stream": False}, "text/event-stream", True, False),
        ({"stream": True}, "application/json", False, True),
    ],
)
def test_when_an_answer_is_streamed(
    fields: dict[str, Any], accept: str | None, default: bool, streams: bool
) -> None:
    rest = Rest(stream_default=default)
    headers = {"Accept": accept} if accept else {}
    answer = rest.post(CHAT, {"messages": HELLO, **fields}, headers=headers)
    kind = answer.headers["Content-Type"].split(";")[0]
    assert kind == ("text/event-stream" if streams else "application/json")


# ---- chat: the answer ---------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_whole_answer_has_the_seeds_form(rest: Rest, reason: str) -> None:
    rest.engine.finish_reason = reason
    answer = rest.chat().json
    schema("nitro", "ChatCompletion").check(answer)
    assert re.fullmatch(r"[0-9A-Za-z]{20}", answer.pop("id"))
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "choices": [
            {
                "finish_reason": reason,
                "index": 0,
                "message": {"content": "Hello there", "role": "assistant"},
            }
        ],
        "model": "_",
        "object": "chat.completion",
        "system_fingerprint": "_",
        "usage": {
            "completion_tokens": 13,
            "prompt_tokens": 90,
            "total_tokens": 103,
            "prompt_tokens_details": {"cached_tokens": 7},
        },
    }


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_stream_has_one_id_the_role_first_and_the_real_reason(rest: Rest, reason: str) -> None:
    rest.engine.finish_reason = reason
    answer = rest.chat(stream=True)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert "Content-Disposition" not in answer.headers
    events = answer.events
    for event in events:
        schema("nitro", "ChatCompletionChunk").check(event)
    assert len({(event["id"], event["created"]) for event in events}) == 1
    assert [event["choices"][0] for event in events] == [
        {"delta": {"content": "Hello", "role": "assistant"}, "finish_reason": None, "index": 0},
        {"delta": {"content": " there"}, "finish_reason": None, "index": 0},
        {"delta": {}, "finish_reason": reason, "index": 0},
    ]
    assert b'": ' not in answer.data.replace(b"data: ", b"")  # compact


def test_the_usage_event_comes_last_and_only_when_asked_for(rest: Rest) -> None:
    *_, finish, usage = rest.chat(stream=True, stream_options={"include_usage": True}).events
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 103
    assert usage["id"] == finish["id"]
    events = rest.chat(stream=True, stream_options={"include_usage": None}).events
    assert all("usage" not in event for event in events)


def test_an_empty_answer_still_names_the_role_and_the_reason(rest: Rest) -> None:
    rest.engine.pieces = ()
    assert rest.chat().json["choices"][0]["message"]["content"] == ""
    (event,) = rest.chat(stream=True).events
    assert event["choices"][0]["delta"] == {"role": "assistant"}


def test_what_was_dropped_is_said_in_the_answer(rest: Rest) -> None:
    rest.engine.notes = ("2 messages were dropped",)
    assert rest.chat().json["warnings"] == ["2 messages were dropped"]
    assert rest.chat(stream=True).events[-1]["warnings"] == ["2 messages were dropped"]


def test_text_is_sent_as_it_is(rest: Rest) -> None:
    rest.engine.pieces = ("é\n\n", "data: [DONE]\n\n", "\U0001f600\u2028")
    events = rest.chat(stream=True).events
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert text == "".join(rest.engine.pieces)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_without_a_model_is_409_and_executes_nothing(empty: Rest, stream: bool) -> None:
    answer = empty.chat(stream=stream)
    assert (answer.status, answer.json["message"]) == (409, NOT_LOADED)
    assert answer.json["error"]["message"] == NOT_LOADED
    assert empty.engine.requests == []


def test_an_embedding_model_refuses_chats(empty: Rest) -> None:
    empty.load(model_type="embedding")
    assert empty.engine.loads[0][1].warm_up is False
    answer = empty.chat()
    assert answer.status == 400
    assert answer.json["message"] == "Not support completion for embedding model"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "message", "code"),
    [
        (
            ContextOverflow(prompt_tokens=3000, limit=2048),
            400,
            "the prompt has 3000 tokens, and the context holds 2048 with room for one more",
            "context_length_exceeded",
        ),
        (Overloaded(queue_size=64, retry_after_s=2.5), 503, "64 requests", "overloaded"),
        (BackendError("NaN logits"), 500, "Internal error during inference", "backend_error"),
        (RuntimeError("secret"), 500, "Internal error during inference", "internal_error"),
    ],
)
def test_errors_before_the_answer_have_a_status(
    rest: Rest, error: Exception, status: int, message: str, code: str, stream: bool
) -> None:
    rest.engine.refuse = error
    answer = rest.chat(stream=stream)
    assert answer.status == status
    assert answer.json["message"].startswith(message)
    assert answer.json["error"]["code"] == code
    assert b"secret" not in answer.data
    assert answer.headers.get("Retry-After") == ("3" if status == 503 else None)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_text_has_a_status(rest: Rest, stream: bool) -> None:
    rest.engine.pieces = ()
    rest.engine.fail = BackendError("NaN logits")
    answer = rest.chat(stream=stream)
    assert (answer.status, answer.json["message"]) == (500, "Internal error during inference")
    assert answer.json["error"]["message"] == "NaN logits"
    assert rest.engine.generations[0].cancelled or not stream


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendError("NaN logits"), "backend_error"),
        (Cancelled("the model was unloaded", reason="unload"), "cancelled"),
        (RuntimeError("secret"), "internal_error"),
    ],
)
def test_an_error_inside_a_stream_is_an_event(rest: Rest, error: Exception, code: str) -> None:
    rest.engine.fail = error
    answer = rest.chat(stream=True)
    assert answer.status == 200
    *_, last = answer.events
    assert last["error"]["code"] == code
    assert b"secret" not in answer.data


def test_every_way_out_of_a_chat_gives_the_slot_back(rest: Rest) -> None:
    rest.chat()
    rest.chat(stream=True)
    rest.engine.fail = BackendError("x")
    rest.chat()
    rest.chat(stream=True)
    assert len(rest.engine.generations) == 4
    assert all(generation.cancelled for generation in rest.engine.generations)


# ---- embeddings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "asked", "count"),
    [
        ("hello", "hello", 1),
        (["a", "b"], ["a", "b"], 2),
        ([1, 2, 3], [1, 2, 3], 1),
        ([[1], [2, 3]], [[1], [2, 3]], 2),
        ([1.0], [1], 1),
    ],
)
def test_the_four_forms_of_input(rest: Rest, given: Any, asked: Any, count: int) -> None:
    answer = rest.post(EMBED, {"input": given, "model": "any"}).json
    schema("nitro", "Embeddings").check(answer)
    assert rest.engine.embeds == [asked]
    assert [entry["index"] for entry in answer["data"]] == list(range(count))
    assert answer["data"][-1]["embedding"] == [0.6, -0.8, count - 1.0]
    assert (answer["object"], answer["model"]) == ("list", "_")
    assert answer["usage"] == {"prompt_tokens": 4 * count, "total_tokens": 4 * count}


def test_base64_is_little_endian_float32(rest: Rest) -> None:
    answer = rest.post(EMBED, {"input": ["a", "b"], "encoding_format": "base64"}).json
    raw = base64.b64decode(answer["data"][1]["embedding"], validate=True)
    assert struct.unpack("<3f", raw) == pytest.approx((0.6, -0.8, 1.0))


@pytest.mark.parametrize(
    "given", [None, "", [], [""], ["a", 1], [[1], "a"], [[]], [1.5], [-1], [True], 5, {"a": 1}]
)
def test_missing_empty_and_mixed_input_is_400(rest: Rest, given: Any) -> None:
    answer = rest.post(EMBED, {"input": given})
    assert (answer.status, answer.json["error"]["param"]) == (400, "input")
    assert rest.engine.embeds == []


def test_fewer_dimensions_are_the_first_ones_at_length_one(rest: Rest) -> None:
    (entry,) = rest.post(EMBED, {"input": "a", "dimensions": 2}).json["data"]
    assert entry["embedding"] == pytest.approx([0.6, -0.8])  # the third is 0 in the whole
    (entry,) = rest.post(EMBED, {"input": "a", "dimensions": 1}).json["data"]
    assert entry["embedding"] == [1.0]
    answer = rest.post(EMBED, {"input": "a", "dimensions": 2, "encoding_format": "base64"})
    packed = base64.b64decode(answer.json["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == pytest.approx((0.6, -0.8))


def test_other_encodings_and_more_dimensions_are_refused(rest: Rest) -> None:
    answer = rest.post(EMBED, {"input": "a", "encoding_format": "hex"})
    assert (answer.status, answer.json["error"]["param"]) == (400, "encoding_format")
    assert rest.post(EMBED, {"input": "a", "dimensions": 3}).status == 200
    answer = rest.post(EMBED, {"input": "a", "dimensions": 4})
    assert (answer.status, answer.json["error"]["param"]) == (400, "dimensions")


def test_embeddings_without_a_model_or_without_leave_are_409(empty: Rest) -> None:
    answer = empty.post(EMBED, {"input": "a"})
    assert (answer.status, answer.json["message"]) == (409, NOT_LOADED)
    empty.load(embedding=False)
    answer = empty.post(EMBED, {"input": "a"})
    assert (answer.status, answer.json["error"]["code"]) == (409, "embedding_disabled")
    assert "embedding" in answer.json["message"]


def test_an_input_that_is_too_long_is_400(rest: Rest) -> None:
    rest.engine.refuse = ContextOverflow(prompt_tokens=9, limit=5)
    answer = rest.post(EMBED, {"input": "a"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")


# ---- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LOAD, CHAT, EMBED])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"not json", "application/json"),
        (b"[]", "application/json"),
        (b'{"messages": []}', "text/plain"),
        (b'{"messages": []}', "application/x-www-form-urlencoded"),
        (b'{"messages": []}', None),
        (b"[" * 100_000, "application/json"),
    ],
)
def test_a_body_that_is_no_json_object_is_400(
    rest: Rest, path: str, body: bytes, kind: str | None
) -> None:
    answer = rest.post(path, body, content_type=kind)
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_may_be_named_more_closely(rest: Rest, kind: str) -> None:
    body = json.dumps({"messages": HELLO})
    assert rest.post(CHAT, body, content_type=kind).status == 200


def test_a_body_over_the_limit_is_413() -> None:
    rest = Rest(max_body_bytes=1024)
    answer = rest.post(CHAT, b'{"x": "' + b"a" * 2000 + b'"}')
    assert (answer.status, answer.json["error"]["code"]) == (413, "request_entity_too_large")


def test_the_seeds_body_with_trailing_commas_is_read(rest: Rest) -> None:
    body = '{\n"model": "",\n"messages": [\n{\n"role": "user",\n"content": "Hello"\n},\n]\n}'
    assert rest.post(CHAT, body).status == 200


# ---- Nitro's own end-to-end tests ---------------------------------------------------------------


def test_nitros_own_end_to_end_story(empty: Rest) -> None:
    small = {"ctx_len": 50, "ngl": 32, "embedding": False, "llama_model_path": "chat.gguf"}
    assert empty.post("/inferences/llamacpp/loadModel", small).status == 200
    chat = {
        "messages": [
            {"role": "assistant", "content": "Hello there"},
            {"role": "user", "content": "Write a long and sad story for me"},
        ],
        "stream": True,
        "model": "gpt-3.5-turbo",
        "max_tokens": 50,
        "stop": ["hello"],
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "temperature": 0.1,
    }
    headers = {"Accept": "text/event-stream"}
    for path in ("/inferences/llamacpp/chat_completion", CHAT):
        assert empty.post(path, chat, headers=headers).status == 200
    unload = empty.get("/inferences/llamacpp/unloadModel", json={"llama_model_path": "chat.gguf"})
    assert unload.status == 200
    vectors = {**small, "embedding": True, "model_type": "embedding"}
    assert empty.post("/inferences/llamacpp/loadModel", vectors).status == 200
    asked = {"input": "Hello", "model": "test-embedding", "encoding_format": "float"}
    assert empty.post(EMBED, asked).status == 200


def test_nitro_nodes_way_of_using_the_server(empty: Rest) -> None:
    template = "{system_message} {prompt} "
    assert empty.load(prompt_template=template, cpu_threads=2).status == 200
    status = empty.get(STATUS)
    assert status.status == 200
    assert status.json["model_loaded"]
    answer = empty.chat(stream=True, stop=[], context_length=2048)
    assert any(event["choices"][0]["delta"].get("content") for event in answer.events)
