"""The Responses API over a fake engine: what is shown, what fails in a stream, what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.openai_rest import RESPOND, OpenAIRest, named_events

from nitrolib.adapters.rest.openai import kept
from nitrolib.errors import BackendError, InvalidRequest, Overloaded, StorageError

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = [{"type": "function", "name": "clock"}]
CALL = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>'


@pytest.fixture
def rest(tmp_path: Path) -> OpenAIRest:
    return OpenAIRest(data_dir=str(tmp_path))


def prompt(rest: OpenAIRest) -> str:
    text: str = rest.engine.requests[-1].prompt.text  # type: ignore[union-attr]
    return text


# ---- the object --------------------------------------------------------------------------------


def test_a_response_shows_what_was_asked(rest: OpenAIRest) -> None:
    asked = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "tools": [{**TOOLS[0], "description": "Tells the time."}],
        "tool_choice": {"type": "function", "name": "clock"},
        "parallel_tool_calls": False,
        "truncation": "auto",
        "max_output_tokens": 5,
    }
    shown = rest.respond(**asked).json
    assert {name: shown[name] for name in asked if name != "tools"} == {
        name: value for name, value in asked.items() if name != "tools"
    }
    assert shown["tools"][0]["description"] == "Tells the time."
    assert shown["usage"] == {
        "input_tokens": 90,
        "input_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 83},
        "output_tokens": 13,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 103,
    }


def test_an_answer_that_was_cut_is_incomplete(rest: OpenAIRest) -> None:
    rest.engine.finish_reason = "length"
    whole = rest.respond().json
    assert (whole["status"], whole["completed_at"]) == ("incomplete", None)
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    last = named_events(rest.respond(stream=True))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_what_was_dropped_is_told(rest: OpenAIRest) -> None:
    """With truncation auto a conversation that is too long loses its beginning."""
    rest.engine.room = 250
    turns = [
        {"role": role, "content": f"{number} {'long ' * 12}"}
        for number, role in enumerate(["user", "assistant", "user"])
    ]
    answer = rest.respond(input=turns, truncation="auto")
    assert "left out" in answer.json["warnings"][0]
    last = named_events(rest.respond(input=turns, truncation="auto", stream=True))[-1]
    assert last["response"]["warnings"] == answer.json["warnings"]


def test_streamed_or_whole_it_is_the_same(rest: OpenAIRest) -> None:
    rest.engine.pieces = ("Let me see. ", CALL[:20], CALL[20:], CALL)
    for fields in ({}, {"tools": TOOLS}, {"top_logprobs": 2}):
        whole = rest.respond(**fields).json
        streamed = named_events(rest.respond(**fields, stream=True))[-1]["response"]
        for response in (whole, streamed):
            for item in response["output"]:
                del item["id"]
                item.pop("call_id", None)
            for name in ("id", "created_at", "completed_at"):
                del response[name]
        assert whole == streamed


def test_calls_are_items_and_the_text_between_is_one_too(rest: OpenAIRest) -> None:
    rest.engine.pieces = ("Let me see. ", CALL, CALL)
    output = rest.respond(tools=TOOLS).json["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert output[1]["call_id"] != output[2]["call_id"]


def test_an_answer_without_text_is_an_empty_message(rest: OpenAIRest) -> None:
    rest.engine.pieces = ()
    (item,) = rest.respond().json["output"]
    assert item["content"][0]["text"] == ""


# ---- failures ----------------------------------------------------------------------------------


def test_a_failure_in_a_stream_is_its_last_event(rest: OpenAIRest) -> None:
    rest.engine.fail = BackendError("NaN logits")
    events = named_events(rest.respond(stream=True))
    last = events[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "NaN logits"}
    assert last["response"]["output"][0]["content"][0]["text"] == "Hello there"
    assert rest.get(f"{RESPOND}/{last['response']['id']}").status == 404


def test_what_was_not_raised_on_purpose_is_not_told(rest: OpenAIRest) -> None:
    rest.engine.fail = RuntimeError("secret")
    answer = rest.respond(stream=True)
    assert named_events(answer)[-1]["type"] == "response.failed"
    assert b"secret" not in answer.data
    answer = rest.respond()
    assert answer.status == 500
    assert b"secret" not in answer.data


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_cannot_begin_has_a_status_of_its_own(
    rest: OpenAIRest, stream: bool
) -> None:
    rest.engine.refuse = Overloaded(queue_size=64)
    answer = rest.respond(stream=stream)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


def test_a_response_that_cannot_be_kept_is_not_given(
    rest: OpenAIRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would take it for kept."""

    def full(**_fields: Any) -> None:
        raise StorageError("the disk is full", reason="space")

    store = rest.app.extensions["nitrolib"].store
    monkeypatch.setattr(store.responses, "create", full)
    answer = rest.respond()
    assert (answer.status, answer.json["error"]["code"]) == (507, "storage_error")
    assert named_events(rest.respond(stream=True))[-1]["type"] == "response.failed"
    assert rest.respond(store=False).status == 200


def test_an_error_names_the_place_in_the_input(rest: OpenAIRest) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "clock", "arguments": "5"}
    output = {"type": "function_call_output", "call_id": "c", "output": "noon"}
    given = [{"role": "user", "content": "Hi"}, call, output]
    error = rest.respond(input=given).json["error"]
    assert error["param"] == "input/1/arguments"
    assert "messages" not in error["message"]
    error = rest.respond(input=[given[0], given[2]]).json["error"]
    assert error["param"] == "input/1/call_id"


def test_log_probabilities_do_not_go_with_calls(rest: OpenAIRest) -> None:
    answer = rest.respond(tools=TOOLS, top_logprobs=2)
    assert (answer.status, answer.json["error"]["param"]) == (400, "top_logprobs")
    answer = rest.respond(tools=TOOLS, include=["message.output_text.logprobs"])
    assert (answer.status, answer.json["error"]["param"]) == (400, "include")
    assert rest.respond(tools=TOOLS, top_logprobs=2, tool_choice="none").status == 200


def test_a_client_that_leaves_ends_the_answer(rest: OpenAIRest) -> None:
    body = {"model": "fake.gguf", "input": "Hello", "stream": True}
    got = rest.http.post(RESPOND, json=body, buffered=False)
    next(iter(got.response))
    got.close()
    assert all(one.cancelled for one in rest.engine.generations)


# ---- keeping -----------------------------------------------------------------------------------


def test_what_was_answered_can_be_asked_for(rest: OpenAIRest) -> None:
    made = rest.respond().json
    found = rest.get(f"{RESPOND}/{made['id']}?include=message.output_text.logprobs&stream=false")
    assert found.json == made
    assert "x-nitro-ignored" not in found.headers


def test_a_deleted_response_is_gone(rest: OpenAIRest) -> None:
    path = f"{RESPOND}/{rest.respond().json['id']}"
    assert rest.request("DELETE", path).json["deleted"] is True
    for method in ("GET", "DELETE"):
        answer = rest.http.open(path, method=method)
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "not_found")


def test_a_conversation_goes_on_from_what_was_kept(rest: OpenAIRest) -> None:
    first = rest.respond(instructions="Be brief.").json["id"]
    second = rest.respond(input="And dogs?", previous_response_id=first).json
    assert second["previous_response_id"] == first
    assert second["instructions"] is None
    text = prompt(rest)
    assert "Be brief." not in text  # instructions are those of one request
    assert text.index("Hello") < text.index("Hello there") < text.index("And dogs?")
    rest.respond(input="And birds?", previous_response_id=second["id"])
    assert prompt(rest).startswith(text)


def test_a_conversation_may_not_grow_without_end(
    rest: OpenAIRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_ITEMS", 4)
    first = rest.respond(truncation="auto").json["id"]
    turns = [{"role": "user", "content": "a"}]
    assert rest.respond(input=turns * 2, previous_response_id=first).status == 200
    answer = rest.respond(input=turns * 3, previous_response_id=first)
    assert (answer.status, answer.json["error"]["param"]) == (400, "input")


def test_what_was_not_stored_cannot_be_gone_on_from(rest: OpenAIRest) -> None:
    made = rest.respond(store=False).json
    answer = rest.respond(previous_response_id=made["id"])
    assert (answer.status, answer.json["error"]["param"]) == (404, "previous_response_id")


def test_a_stream_of_what_is_kept_is_refused(rest: OpenAIRest) -> None:
    path = f"{RESPOND}/{rest.respond().json['id']}?stream=true"
    assert rest.get(path).json["error"]["param"] == "stream"


def test_input_items_begin_after_the_one_named(rest: OpenAIRest) -> None:
    turns = [{"role": "user", "content": text} for text in "abc"]
    path = f"{RESPOND}/{rest.respond(input=turns).json['id']}/input_items"
    whole = rest.get(f"{path}?order=asc").json
    assert [item["content"][0]["text"] for item in whole["data"]] == ["a", "b", "c"]
    assert (whole["first_id"], whole["has_more"]) == (whole["data"][0]["id"], False)
    rest_of_it = rest.get(f"{path}?order=asc&after={whole['first_id']}&limit=1").json
    assert rest_of_it["data"] == whole["data"][1:2]
    assert rest_of_it["has_more"] is True
    empty = rest.get(f"{path}?order=asc&after={whole['last_id']}").json
    assert (empty["data"], empty["first_id"], empty["has_more"]) == ([], None, False)
    assert rest.get(f"{path}?after=msg_nothing").json["error"]["param"] == "after"


@pytest.mark.parametrize("path", ["", "/input_items"])
def test_an_unknown_response_is_not_found(rest: OpenAIRest, path: str) -> None:
    answer = rest.http.get(f"{RESPOND}/resp_x{path}")
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "not_found")
    assert answer.json["error"]["type"] == "invalid_request_error"


def test_cancelling_is_refused(rest: OpenAIRest) -> None:
    path = f"{RESPOND}/{rest.respond().json['id']}/cancel"
    assert rest.post(path).status == 400


# ---- on a shared port --------------------------------------------------------------------------


def test_beside_nitro_a_name_that_nobody_knows_is_the_loaded_model(tmp_path: Path) -> None:
    rest = OpenAIRest(data_dir=str(tmp_path), dialects=("nitro", "openai"))
    answer = rest.respond(model="gpt-4o")
    assert answer.headers["x-nitro-ignored"] == "model"
    assert answer.json["model"] == "fake.gguf"
    strict = OpenAIRest(data_dir=str(tmp_path), dialects=("nitro", "openai"), strict_model=True)
    assert strict.respond(model="gpt-4o").status == 404


def test_an_embedding_model_answers_nothing(rest: OpenAIRest) -> None:
    from nitrolib.adapters.rest.profile import Profile

    (seat,) = rest.app.extensions["nitrolib"].pool.seats()
    seat.extra = Profile(model_type="embedding")
    for answer in (rest.respond(), rest.complete()):
        assert (answer.status, answer.json["error"]["param"]) == (400, "model")


def test_an_error_gives_the_model_back(rest: OpenAIRest) -> None:
    """Whatever goes wrong, the model is given back: it may be unloaded."""
    for stream in (False, True):
        rest.engine.refuse = InvalidRequest("no", field="prompt")
        assert rest.respond(stream=stream).json["error"]["param"] == "input"
        rest.engine.refuse = InvalidRequest("no", field="prompt")
        assert rest.complete(stream=stream).json["error"]["param"] == "prompt"
    (seat,) = rest.app.extensions["nitrolib"].pool.seats()
    assert not seat.busy
