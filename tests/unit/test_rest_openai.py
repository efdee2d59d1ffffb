"""Routes of the OpenAI dialect over a fake engine: models, texts, headers and errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.openai_rest import COMPLETE, MODEL, OpenAIRest
from support.rest_client import EMBED, Rest

from nitrolib.errors import BackendError, Overloaded

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def rest() -> OpenAIRest:
    return OpenAIRest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with one model."""
    place = tmp_path / "models" / "org" / "small"
    place.mkdir(parents=True)
    make_llama(place / "small.gguf")
    (place / "model.json").write_text(json.dumps({"name": "Small"}))
    return tmp_path / "models"


# ---- models ------------------------------------------------------------------------------------


def test_the_loaded_model_is_listed_first(folder: Path) -> None:
    rest = OpenAIRest(models_dir=str(folder))
    listed = rest.get("/v1/models").json
    assert [one["id"] for one in listed["data"]] == [MODEL, "org/small"]
    assert all(one.keys() == {"id", "object", "created", "owned_by"} for one in listed["data"])
    for one in listed["data"]:
        assert rest.get(f"/v1/models/{one['id']}").json == one


def test_beside_jan_a_model_is_told_of_as_jan_does(folder: Path) -> None:
    both = OpenAIRest(models_dir=str(folder), dialects=("openai", "jan"))
    alone = Rest(models_dir=str(folder), dialects=("jan",))
    for path in ("/v1/models", "/v1/models/org/small", f"/v1/models/{MODEL}"):
        assert both.get(path).json == alone.get(path).json
    assert both.get("/v1/models/gpt").json["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["gpt-4o", "org", "../etc", "org/small/small.gguf"])
def test_an_unknown_model_is_not_found(folder: Path, name: str) -> None:
    answer = OpenAIRest(models_dir=str(folder)).http.get(f"/v1/models/{name}")
    assert answer.status_code == 404
    error = answer.json["error"]
    assert (error["code"], error["param"]) in [("model_not_found", "model"), ("not_found", None)]


# ---- completions -------------------------------------------------------------------------------


def test_every_prompt_is_a_request_and_has_its_choices(rest: OpenAIRest) -> None:
    answer = rest.complete(prompt=["a", "b", "c"], n=2, echo=True).json
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == ["aHello there"] * 2 + ["bHello there"] * 2 + ["cHello there"] * 2
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4, 5]
    assert len(rest.engine.requests) == 3
    # Every prompt counts once, and every answer: 90 and 13 tokens each.
    assert answer["usage"]["prompt_tokens"] == 3 * 90
    assert answer["usage"]["completion_tokens"] == 6 * 13
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3 * 7}


def test_a_stream_has_the_choices_of_every_prompt(rest: OpenAIRest) -> None:
    answer = rest.complete(
        prompt=[[97], [98]], n=2, echo=True, stream=True, stream_options={"include_usage": True}
    )
    *events, last = answer.events
    texts = [""] * 4
    ended = []
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["text"]
        if choice["finish_reason"]:
            ended.append(choice["index"])
    assert texts == ["aHello there"] * 2 + ["bHello there"] * 2
    assert sorted(ended) == [0, 1, 2, 3]
    assert last["choices"] == []
    assert last["usage"] == rest.complete(prompt=[[97], [98]], n=2).json["usage"]


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("a", ["a"]),
        ([97, 98.0], [(97, 98)]),
        (["a", "b"], ["a", "b"]),
        ([[97], [98]], [(97,), (98,)]),
        (None, [""]),
    ],
)
def test_prompts_come_in_four_forms(rest: OpenAIRest, given: Any, prompts: list[Any]) -> None:
    assert rest.complete(prompt=given).status == 200
    found = [getattr(one.prompt, "text", one.prompt) for one in rest.engine.requests]
    assert found == prompts


def test_control_tokens_may_be_written_in_a_text(rest: OpenAIRest) -> None:
    rest.complete(prompt="a</s>b")
    assert all(one.special for one in rest.engine.requests[-1].prompt.segments)  # type: ignore[union-attr]


def test_the_best_are_returned_first(rest: OpenAIRest) -> None:
    answer = rest.complete(n=1, best_of=3).json
    assert len(answer["choices"]) == 1
    assert answer["choices"][0]["logprobs"] is None
    assert answer["usage"]["completion_tokens"] == 3 * 13
    assert len(rest.engine.generations) == 3


def test_too_many_answers_are_refused_before_any_is_made(rest: OpenAIRest) -> None:
    answer = rest.complete(prompt=["a"] * 100)
    assert (answer.status, answer.json["error"]["param"]) == (400, "n")
    assert rest.engine.requests == []


def test_one_prompt_that_cannot_be_queued_ends_the_others(
    rest: OpenAIRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = rest.engine.submit_choices

    def second_fails(request: Any, n: int) -> Any:
        if rest.engine.requests:
            raise Overloaded(queue_size=64)
        return submit(request, n)

    monkeypatch.setattr(rest.engine, "submit_choices", second_fails)
    assert rest.complete(prompt=["a", "b"]).status == 503
    assert [one.cancelled for one in rest.engine.generations] == [True]


def test_warnings_are_told_once(rest: OpenAIRest) -> None:
    rest.engine.notes = ("the context was full",)
    assert rest.complete(n=3).json["warnings"] == ["the context was full"]
    events = rest.complete(stream=True).events
    assert events[-1]["warnings"] == ["the context was full"]


def test_a_failure_in_a_stream_is_an_event(rest: OpenAIRest) -> None:
    rest.engine.fail = BackendError("NaN logits")
    assert rest.complete().status == 500
    assert rest.complete(stream=True).events[-1]["error"]["message"] == "NaN logits"


def test_names_of_limits_that_do_not_count_are_told(rest: OpenAIRest) -> None:
    answer = rest.complete(n_predict=3, max_tokens=5).json
    assert rest.engine.requests[-1].params.max_tokens == 3
    assert "max_tokens not used" in answer["warnings"][0]


# ---- embeddings --------------------------------------------------------------------------------


def test_embeddings_name_their_model(rest: OpenAIRest) -> None:
    answer = rest.ask(EMBED, dimensions=2).json
    assert answer["model"] == MODEL
    assert answer["data"][0]["embedding"] == pytest.approx([0.6, -0.8])
    assert rest.ask(EMBED, dimensions=4).json["error"]["param"] == "dimensions"


# ---- headers and errors ------------------------------------------------------------------------


def test_errors_have_openais_shape_and_an_id(rest: OpenAIRest) -> None:
    for answer in (
        rest.complete(temperature=3),
        rest.post(COMPLETE, "{"),
        rest.post(COMPLETE, "[]"),
        rest.post(COMPLETE, "{}", content_type="text/plain"),
    ):
        assert answer.status == 400
        assert answer.json.keys() == {"error"}
        assert answer.json["error"]["type"] == "invalid_request_error"


def test_a_key_is_asked_for_in_openais_words() -> None:
    answer = OpenAIRest(api_key="sk").complete()
    assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["x-request-id"].startswith("req_")


def test_without_a_model_there_is_none_of_that_name() -> None:
    rest = OpenAIRest(loaded=False)
    answer = rest.complete()
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    assert rest.get("/v1/models").json == {"object": "list", "data": []}


def test_time_spent_is_told(rest: OpenAIRest) -> None:
    assert 0 <= int(rest.complete().headers["openai-processing-ms"]) < 10_000
