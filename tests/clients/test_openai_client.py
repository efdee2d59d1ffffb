"""The unmodified OpenAI client against the Nitro routes, over gunicorn and a real model."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from support.models import chat_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path, backend: str) -> Iterator[Server]:
    # A due cleaning of the cache lets nobody pass until all slots are idle: not wanted here.
    options = {"n_parallel": 2, "cont_batching": 1, "clean_cache_threshold": 0, "backend": backend}
    with serve(model=model, api_key="sk-local", **options) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="sk-local", max_retries=0) as made:
        yield made


def test_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-3.5-turbo", messages=HELLO, max_tokens=8, seed=1
    )
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert isinstance(choice.message.content, str)
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 8
    total = answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.total_tokens == total


def test_a_streamed_chat_with_usage_is_the_same_answer(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="x", messages=HELLO, max_tokens=8, seed=1)
    chunks = list(
        client.chat.completions.create(
            model="x",
            messages=HELLO,
            max_tokens=8,
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_stream_that_is_left_early_frees_its_slot(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="x", messages=HELLO, max_tokens=1000, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        next(iter(stream))
    again = client.chat.completions.create(model="x", messages=HELLO, max_tokens=1)
    assert again.choices[0].finish_reason == "length"


def test_embeddings_are_the_same_in_both_encodings(client: OpenAI) -> None:
    """Without an encoding the client asks for base64 and decodes it itself."""
    texts = ["Hello", "Where do cats sleep?"]
    packed = client.embeddings.create(model="x", input=texts)
    plain = client.embeddings.create(model="x", input=texts, encoding_format="float")
    assert [entry.index for entry in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-5)
    assert packed.data[0].embedding != pytest.approx(packed.data[1].embedding, abs=1e-3)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 2


def test_token_ids_can_be_embedded(client: OpenAI) -> None:
    answer = client.embeddings.create(model="x", input=[[1, 5, 6], [1, 7]])
    assert len(answer.data) == 2
    assert answer.usage.prompt_tokens == 5


def test_a_bad_field_is_a_bad_request_that_names_it(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="x", messages=HELLO, temperature=5)
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="x", messages=HELLO, modalities=["audio"])
    assert (caught.value.param, caught.value.code) == ("modalities", "unsupported")


def test_an_over_long_prompt_is_a_bad_request_with_its_code(client: OpenAI) -> None:
    long = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="x", messages=long)
    assert caught.value.code == "context_length_exceeded"


def test_a_wrong_key_is_an_authentication_error(server: Server) -> None:
    with (
        OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model="x", messages=HELLO)


def test_an_unknown_route_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.files.list()


def test_without_a_model_it_is_a_conflict() -> None:
    with (
        serve(no_model=1) as empty,
        OpenAI(base_url=f"{empty.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.ConflictError, match="please load model into nitro"),
    ):
        client.chat.completions.create(model="x", messages=HELLO)


def test_the_asynchronous_client_streams_two_chats_at_once(server: Server) -> None:
    async def ask(client: AsyncOpenAI, name: str, order: list[str]) -> str:
        stream = await client.chat.completions.create(
            model="x",
            messages=HELLO,
            max_tokens=400,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        text = ""
        async for chunk in stream:
            order.append(name)
            text += chunk.choices[0].delta.content or ""
        return text

    async def both() -> tuple[list[str], list[str]]:
        order: list[str] = []
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-local") as client:
            texts = await asyncio.gather(ask(client, "a", order), ask(client, "b", order))
        return list(texts), order

    texts, order = asyncio.run(both())
    assert all(texts)
    # Each has its first chunk before the other has its last.
    assert order.index("a") < len(order) - 1 - order[::-1].index("b")
    assert order.index("b") < len(order) - 1 - order[::-1].index("a")
