"""The unmodified OpenAI client uses the Responses API, over gunicorn and a real model."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from support.models import chat_model
from support.server import Server, serve

from nitrolib.validation import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXED: dict[str, Any] = {"extra_body": {"seed": 5}, "max_output_tokens": 60, "temperature": 0.7}
FEED: Any = {
    "type": "function",
    "name": "feed",
    "description": "Feed an animal.",
    "parameters": {
        "type": "object",
        "properties": {"animal": {"enum": ["cat", "dog"]}},
        "required": ["animal"],
    },
    "strict": True,
}
CLOCK: Any = {"type": "function", "name": "clock", "parameters": None, "strict": None}


class Animal(BaseModel):
    kind: Literal["cat", "dog"]
    tame: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("responses")
    with serve(
        model=chat_model(folder),
        data_dir=folder / "data",
        dialects="openai",
        n_parallel=2,
        clean_cache_threshold=0,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def model(client: OpenAI) -> str:
    return client.models.list().data[0].id


def ask(client: OpenAI, model: str, given: Any = "Where do cats sleep?", **fields: Any) -> Any:
    return client.responses.create(model=model, input=given, **{**FIXED, **fields})


def checked(response: Any) -> Any:
    """*response*, if it is what the document says."""
    schema("openai", "Response").check(json.loads(response.to_json(exclude_unset=True)))
    return response


# ---- making ------------------------------------------------------------------------------------


def test_a_text_is_answered(client: OpenAI, model: str) -> None:
    response = checked(ask(client, model, metadata={"for": "a test"}))
    assert response.output_text
    assert response.status in ("completed", "incomplete")
    assert response.output[0].role == "assistant"
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert (response.model, response.metadata) == (model, {"for": "a test"})
    assert ask(client, model).output_text == response.output_text


def test_it_is_the_answer_of_the_same_chat(client: OpenAI, model: str) -> None:
    turns: Any = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! How can I help?"},
        {"role": "user", "content": [{"type": "input_text", "text": "Where do cats sleep?"}]},
    ]
    response = ask(client, model, turns, instructions="Be brief.")
    chat: Any = [{"role": "system", "content": "Be brief."}, *turns[:2],
                 {"role": "user", "content": "Where do cats sleep?"}]  # fmt: skip
    answer = client.chat.completions.create(
        model=model, messages=chat, max_tokens=60, seed=5, temperature=0.7
    )
    assert response.output_text == answer.choices[0].message.content


def test_a_limit_makes_it_incomplete(client: OpenAI, model: str) -> None:
    response = checked(ask(client, model, max_output_tokens=2, extra_body={"ignore_eos": True}))
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"
    assert response.usage.output_tokens == 2


def test_log_probabilities_come_with_the_text(client: OpenAI, model: str) -> None:
    response = checked(ask(client, model, top_logprobs=2, include=["message.output_text.logprobs"]))
    (part,) = response.output[0].content
    assert "".join(one.token for one in part.logprobs) == part.text
    assert all(len(one.top_logprobs) == 2 and one.logprob <= 0.001 for one in part.logprobs)


# ---- streaming ---------------------------------------------------------------------------------


def test_the_events_come_in_the_documented_order(client: OpenAI, model: str) -> None:
    events = list(ask(client, model, stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = [one for one in kinds if one == "output_text.delta"]
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", *deltas,
        "output_text.done", "content_part.done", "output_item.done", kinds[-1],
    ]  # fmt: skip
    assert kinds[-1] in ("completed", "incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for event in events:
        schema("openai", "ResponseEvent").check(json.loads(event.to_json(exclude_unset=True)))
    text = "".join(event.delta for event in events if event.type.endswith("text.delta"))
    last = events[-1].response
    assert text == last.output_text == ask(client, model).output_text
    assert last.id == events[0].response.id


def test_the_events_stand_under_their_names(server: Server, model: str) -> None:
    body = {"model": model, "input": "Hello", "stream": True, "max_output_tokens": 4}
    with server.send("/v1/responses", body) as connection:
        text = server.read_to_end(connection).decode()
    blocks = text[text.index("event: ") :].strip().split("\n\n")
    for block in blocks:
        name, data = block.split("\n")
        assert json.loads(data.removeprefix("data: "))["type"] == name.removeprefix("event: ")
    assert "[DONE]" not in text


def test_the_stream_helper_gathers_the_response(client: OpenAI, model: str) -> None:
    with client.responses.stream(
        model=model, input="Tell me about a cat.", text_format=Animal, temperature=1.5
    ) as stream:
        response = stream.get_final_response()
    assert isinstance(response.output_parsed, Animal)


def test_a_stream_that_is_left_early_frees_its_slot(client: OpenAI, model: str) -> None:
    endless = {"extra_body": {"ignore_eos": True}, "max_output_tokens": 1500}
    for _ in range(3):
        with ask(client, model, **endless, stream=True) as stream:
            next(iter(stream))
    assert ask(client, model, max_output_tokens=1).usage.output_tokens == 1


# ---- forms and tools ---------------------------------------------------------------------------


def test_a_pydantic_model_is_parsed(client: OpenAI, model: str) -> None:
    for seed in range(3):
        response = client.responses.parse(
            model=model, input="Tell me about a cat.", text_format=Animal, temperature=1.5,
            extra_body={"seed": seed},
        )  # fmt: skip
        assert isinstance(response.output_parsed, Animal)


def test_a_schema_is_followed(client: OpenAI, model: str) -> None:
    form: Any = {"type": "json_schema", "name": "n", "schema": {"enum": ["one", 2]}}
    response = checked(ask(client, model, text={"format": form}, temperature=1.5))
    assert json.loads(response.output_text) in ("one", 2)
    assert response.text.format.name == "n"


def test_a_call_is_made_answered_and_gone_on_from(client: OpenAI, model: str) -> None:
    question: Any = [{"role": "user", "content": "Feed the cat, please."}]
    fields = {"tools": [FEED, CLOCK], "parallel_tool_calls": False}
    named: Any = {"type": "function", "name": "feed"}
    limit = {"max_output_tokens": 400}
    response = checked(ask(client, model, question, **fields, tool_choice=named, **limit))
    (call,) = response.output
    assert (call.type, call.name, call.status) == ("function_call", "feed", "completed")
    assert json.loads(call.arguments)["animal"] in ("cat", "dog")
    assert response.output_text == ""
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "It ate."}
    # Once with the whole history, as the client has it, and once by what the server kept.
    history = [*question, *response.output, output]
    whole = ask(client, model, history, **fields, tool_choice="none")
    kept = ask(
        client, model, [output], **fields, tool_choice="none", previous_response_id=response.id
    )
    assert whole.output_text == kept.output_text
    assert whole.usage.input_tokens == kept.usage.input_tokens


def test_streamed_calls_are_gathered_by_the_helper(client: OpenAI, model: str) -> None:
    with client.responses.stream(
        model=model, input="Feed the dog.", tools=[FEED], tool_choice="required",
        parallel_tool_calls=False, extra_body={"seed": 3},
    ) as stream:  # fmt: skip
        events = list(stream)
        response = stream.get_final_response()
    (call,) = response.output
    deltas = [one.delta for one in events if one.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments  # type: ignore[union-attr]
    assert json.loads(call.arguments)["animal"] in ("cat", "dog")  # type: ignore[union-attr]


def test_only_allowed_tools_are_called(client: OpenAI, model: str) -> None:
    choice: Any = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "clock"}],
    }
    response = ask(client, model, tools=[FEED, CLOCK], tool_choice=choice)
    assert {item.name for item in response.output} == {"clock"}


# ---- keeping -----------------------------------------------------------------------------------


def test_a_response_is_kept_continued_and_forgotten(client: OpenAI, model: str) -> None:
    first = ask(client, model, "Hello", instructions="Be brief.")
    assert client.responses.retrieve(first.id).to_dict() == first.to_dict()
    second = ask(client, model, "And dogs?", previous_response_id=first.id)
    question = {"role": "user", "content": "And dogs?"}
    whole: Any = [{"role": "user", "content": "Hello"}, *first.output, question]
    assert second.output_text == ask(client, model, whole).output_text
    assert second.previous_response_id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    # What went on from it has lost what it was about.
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model, "And birds?", previous_response_id=second.id)
    assert caught.value.param == "previous_response_id"


def test_a_streamed_response_is_kept_too(client: OpenAI, model: str) -> None:
    last: Any = list(ask(client, model, stream=True))[-1]
    assert client.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()


def test_what_is_not_to_be_stored_is_not(client: OpenAI, model: str) -> None:
    response = ask(client, model, store=False)
    assert response.store is False  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_input_items_are_listed_in_pages(client: OpenAI, model: str) -> None:
    turns: Any = [{"role": role, "content": text} for role, text in
                  [("user", "a"), ("assistant", "b"), ("user", "c")]]  # fmt: skip
    response = ask(client, model, turns)

    def texts(**fields: Any) -> list[str]:
        return [
            one.content[0].text for one in client.responses.input_items.list(response.id, **fields)
        ]

    assert texts() == ["c", "b", "a"]
    assert texts(order="asc") == ["a", "b", "c"]
    assert texts(order="asc", limit=1) == ["a", "b", "c"]  # the client turns the pages
    page = client.responses.input_items.list(response.id, limit=2)
    assert page.has_more
    assert page.last_id == page.data[-1].id
    for fields in ({"limit": 0}, {"limit": 101}, {"order": "up"}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.input_items.list(response.id, **fields)
        assert caught.value.param == next(iter(fields))


def test_the_items_of_what_came_before_are_listed_too(client: OpenAI, model: str) -> None:
    first = ask(client, model, "Hello")
    second = ask(client, model, "And dogs?", previous_response_id=first.id)
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [one.role for one in items] == ["user", "assistant", "user"]


def test_nothing_runs_in_the_background(client: OpenAI, model: str) -> None:
    response = ask(client, model)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_nothing")


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"tools": [{"type": "web_search"}]}, "tools/0/type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice/type"),
        ({"text": {"verbosity": "low"}}, "text/verbosity"),
        ({"input": [{"role": "user", "content": [
            {"type": "input_image", "detail": "auto", "image_url": "data:,"}]}]},
         "input/0/content/0/type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input/0/type"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": "b" * 513}}, "metadata/a"),
        ({"input": "word " * 9000}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
         "input/0/call_id"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": 5}}}},
         "text/format"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_is_refused_and_named(
    client: OpenAI, model: str, fields: dict[str, Any], param: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": model, "input": "Hello", "stream": stream, **fields})
    assert caught.value.param == param
    assert caught.value.request_id


def test_a_previous_response_must_be_there(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model, previous_response_id="resp_nothing")
    assert caught.value.param == "previous_response_id"


# ---- asynchronous ------------------------------------------------------------------------------


def test_the_asynchronous_client_streams_and_waits(server: Server, model: str) -> None:
    async def both() -> tuple[str, str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
            fields: dict[str, Any] = {"model": model, "input": "Hello", **FIXED}
            whole, stream = await asyncio.gather(
                client.responses.create(**fields), client.responses.create(**fields, stream=True)
            )
            events = [event async for event in stream]
            return whole.output_text, events[-1].response.output_text

    whole, streamed = asyncio.run(both())
    assert whole == streamed
