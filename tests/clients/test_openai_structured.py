"""The unmodified OpenAI client asks for JSON, parsed models and tool calls, over gunicorn and a
real model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field
from support.models import chat_model
from support.server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

CAT: list[Any] = [{"role": "user", "content": "Tell me about a cat."}]


class Animal(BaseModel):
    kind: Literal["cat", "dog"]
    legs: Literal[3, 4]
    friends: list[Literal["Tom", "Ada"]] = Field(max_length=3)
    tame: bool


class Day(BaseModel):
    season: Literal["summer", "winter"]
    animal: Animal


def function(name: str, **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


FEED = function(
    "feed", animal={"enum": ["cat", "dog"]}, grams={"type": "integer", "minimum": 1, "maximum": 99}
)
CLOCK = function("clock")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Iterator[OpenAI]:
    model = chat_model(tmp_path_factory.mktemp("model"))
    options = {"n_parallel": 2, "cont_batching": 1, "clean_cache_threshold": 0, "backend": backend}
    with (
        serve(model=model, **options) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as made,
    ):
        yield made


def ask(client: OpenAI, **fields: Any) -> Any:
    fields = {"max_tokens": 150, "messages": CAT, **fields}
    return client.chat.completions.create(model="x", **fields)


# ---- JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_pydantic_model_is_parsed(client: OpenAI, seed: int) -> None:
    answer = client.chat.completions.parse(
        model="x", messages=CAT, response_format=Day, seed=seed, temperature=1.5, max_tokens=200
    )
    assert isinstance(answer.choices[0].message.parsed, Day)
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_of_a_pydantic_model_is_parsed(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="x", messages=CAT, response_format=Animal, seed=1, temperature=1.5, max_tokens=200
    ) as stream:
        answer = stream.get_final_completion()
    assert isinstance(answer.choices[0].message.parsed, Animal)


def test_a_json_schema_is_followed(client: OpenAI) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 4}
    form = {"type": "json_schema", "json_schema": {"name": "list", "schema": schema}}
    for choice in ask(client, response_format=form, n=3, temperature=1.5).choices:
        found = json.loads(choice.message.content)
        assert 2 <= len(found) <= 4
        assert set(found) <= {1, 2}


def test_any_object_is_an_object(client: OpenAI) -> None:
    answer = ask(client, response_format={"type": "json_object"}, seed=3, temperature=0)
    (choice,) = answer.choices
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    else:
        assert "complete" in answer.warnings[0]
    assert choice.message.content.startswith("{")


def test_a_grammar_is_followed(client: OpenAI) -> None:
    extra = {"grammar": 'root ::= "yes" | "no"'}
    choices = ask(client, n=4, temperature=1.5, extra_body=extra).choices
    assert {choice.message.content for choice in choices} <= {"yes", "no"}


def test_an_answer_that_is_cut_says_that_it_is_not_complete(client: OpenAI) -> None:
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=1)
    assert answer.choices[0].finish_reason == "length"
    assert "cut" in answer.warnings[0]


@pytest.mark.parametrize(
    ("fields", "param", "where"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"properties": {"a": {"format": "nonsense"}}}}}},
         "response_format", ("pointer", "/properties/a/format")),
        ({"extra_body": {"json_schema": {"type": 5}}}, "json_schema", ("pointer", "/type")),
        ({"extra_body": {"grammar": 'root ::= "a"\nb ::= ('}}, "grammar", ("line", 2)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_enforced_is_refused_before_any_token(
    client: OpenAI, fields: Any, param: str, where: tuple[str, Any], stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, stream=stream, **fields)
    assert caught.value.param == param
    assert caught.value.body[where[0]] == where[1]


# ---- tools -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_required_call_has_arguments_of_its_schema(client: OpenAI, seed: int) -> None:
    answer = ask(
        client, tools=[FEED, CLOCK], tool_choice="required", seed=seed, temperature=1.5,
        parallel_tool_calls=False,
    )  # fmt: skip
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    if call.function.name == "feed":
        assert arguments["animal"] in ("cat", "dog")
        assert 1 <= arguments["grams"] <= 99
    else:
        assert (call.function.name, arguments) == ("clock", {})


def test_a_named_tool_is_the_one_that_is_called(client: OpenAI) -> None:
    named = {"type": "function", "function": {"name": "feed"}}
    answer = ask(client, tools=[CLOCK, FEED], tool_choice=named, temperature=1.5, seed=2)
    assert {call.function.name for call in answer.choices[0].message.tool_calls} == {"feed"}


def test_streamed_calls_are_the_whole_ones(client: OpenAI) -> None:
    fields = {"tools": [CLOCK, FEED], "tool_choice": "required", "temperature": 1.5, "seed": 4}
    whole = ask(client, **fields).choices[0].message.tool_calls
    chunks = list(ask(client, **fields, stream=True))
    parts = [part for one in chunks for part in one.choices[0].delta.tool_calls or ()]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    for index, call in enumerate(whole):
        own = [part for part in parts if part.index == index]
        assert own[0].id.startswith("call_")
        assert all(part.id is None for part in own[1:])
        assert own[0].function.name == call.function.name
        arguments = "".join(part.function.arguments for part in own)
        assert arguments == call.function.arguments
    assert {part.index for part in parts} == set(range(len(whole)))


def test_a_call_and_its_result_go_back_as_they_came(client: OpenAI) -> None:
    fields = {"tools": [CLOCK], "tool_choice": "required", "parallel_tool_calls": False}
    message = ask(client, **fields).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "noon"}
    history = [*CAT, message, result]
    answer = ask(client, messages=history, tools=[CLOCK], tool_choice="none", max_tokens=8)
    assert answer.choices[0].message.content
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, messages=history[:-1], tools=[CLOCK])
    assert caught.value.param == "messages[1].tool_calls"


def test_a_model_that_may_call_answers_in_any_case(client: OpenAI) -> None:
    for seed in range(3):
        (choice,) = ask(client, tools=[FEED, CLOCK], seed=seed, max_tokens=40).choices
        assert choice.finish_reason in ("stop", "length", "tool_calls")
        for call in choice.message.tool_calls or ():
            assert call.function.name in ("feed", "clock")
