"""The unmodified OpenAI client completes texts, embeds and lists models, over gunicorn and a real
model; alone on the dialect's own port, and beside the others."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from support.models import chat_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "Once upon a time"
FIXED = {"seed": 7, "max_tokens": 12}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openai")
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


def complete(client: OpenAI, model: str, prompt: Any = PROMPT, **fields: Any) -> Any:
    return client.completions.create(model=model, prompt=prompt, **{**FIXED, **fields})


# ---- models ------------------------------------------------------------------------------------


def test_the_loaded_model_is_listed_and_found_by_its_id(client: OpenAI, model: str) -> None:
    found = client.models.retrieve(model)
    assert (found.id, found.object) == (model, "model")
    assert found.created > 1_500_000_000
    assert model in [one.id for one in client.models.list()]


@pytest.mark.parametrize("name", ["gpt-4o", "a/b", "%2e%2e/x"])
def test_an_unknown_model_is_not_found(client: OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(name)
    assert caught.value.request_id is not None


@pytest.mark.parametrize("route", ["completions", "chat", "embeddings", "responses"])
def test_every_route_refuses_an_unknown_model(client: OpenAI, route: str) -> None:
    ask: dict[str, Any] = {
        "completions": lambda: complete(client, "gpt-4o"),
        "chat": lambda: client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Hi"}]
        ),
        "embeddings": lambda: client.embeddings.create(model="gpt-4o", input="Hi"),
        "responses": lambda: client.responses.create(model="gpt-4o", input="Hi"),
    }
    with pytest.raises(openai.NotFoundError) as caught:
        ask[route]()
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


# ---- completions -------------------------------------------------------------------------------


def test_a_text_is_continued_and_a_seed_repeats_it(client: OpenAI, model: str) -> None:
    answer = complete(client, model)
    (choice,) = answer.choices
    assert choice.text
    assert choice.finish_reason in ("stop", "length")
    assert answer.model == model
    assert answer.usage.completion_tokens <= 12
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert complete(client, model).choices[0].text == choice.text


def test_a_stream_is_the_same_text_and_ends_with_the_usage(client: OpenAI, model: str) -> None:
    whole = complete(client, model)
    chunks = list(complete(client, model, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].text for one in chunks[:-1]) == whole.choices[0].text
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({one.id for one in chunks}) == 1


def test_many_prompts_have_their_choices_in_order(client: OpenAI, model: str) -> None:
    prompts = ["The cat", "The dog"]
    alone = [complete(client, model, one, temperature=0).choices[0].text for one in prompts]
    both = complete(client, model, prompts, n=2, temperature=0)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in both.choices] == [alone[0]] * 2 + [alone[1]] * 2
    texts = [""] * 4
    for chunk in complete(client, model, prompts, n=2, temperature=0, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in both.choices]


def test_token_ids_are_a_prompt_too(client: OpenAI, model: str) -> None:
    answer = complete(client, model, [1, 5, 6], echo=True, max_tokens=1)
    assert answer.usage.prompt_tokens == 3
    assert len(complete(client, model, [[1, 5], [1, 6]], max_tokens=1).choices) == 2


def test_the_names_of_control_tokens_are_control_tokens(client: OpenAI, model: str) -> None:
    plain = complete(client, model, "a", max_tokens=1).usage.prompt_tokens
    with_end = complete(client, model, "a</s>", max_tokens=1).usage.prompt_tokens
    assert with_end == plain + 1


def test_an_echo_stands_in_front(client: OpenAI, model: str) -> None:
    # Greedy: what others left in the cache moves the rounding, and so where a draw falls.
    text = complete(client, model, temperature=0).choices[0].text
    assert complete(client, model, echo=True, temperature=0).choices[0].text == PROMPT + text
    streamed = complete(client, model, echo=True, stream=True, temperature=0)
    assert "".join(one.choices[0].text for one in streamed) == PROMPT + text
    nothing = complete(client, model, echo=True, max_tokens=0)
    assert nothing.choices[0].text == PROMPT
    assert nothing.usage.completion_tokens == 0


def test_log_probabilities_fit_the_text(client: OpenAI, model: str) -> None:
    (choice,) = complete(client, model, logprobs=3, temperature=0).choices
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text
    for offset, token in zip(found.text_offset, found.tokens, strict=True):
        assert choice.text[offset : offset + len(token)] == token
    for own, top in zip(found.token_logprobs, found.top_logprobs, strict=True):
        assert own == pytest.approx(max(top.values()))  # greedy: the likeliest was taken
        assert 3 <= len(top) <= 4
        assert sum(map(math.exp, top.values())) <= 1.001
    streamed = list(complete(client, model, logprobs=3, temperature=0, stream=True))
    tokens = [one for chunk in streamed for one in chunk.choices[0].logprobs.tokens]
    offsets = [one for chunk in streamed for one in chunk.choices[0].logprobs.text_offset]
    assert (tokens, offsets) == (found.tokens, found.text_offset)


def test_the_best_of_many_is_the_likeliest(client: OpenAI, model: str) -> None:
    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    ranked = complete(client, model, n=4, best_of=5, logprobs=0, temperature=1.5)
    means = [mean(choice) for choice in ranked.choices]
    assert means == sorted(means, reverse=True)
    assert len({choice.text for choice in ranked.choices}) == 4
    # Within one call: with 8-bit weights the same seed may differ by what shares its batches.
    assert ranked.usage.completion_tokens > sum(
        len(choice.logprobs.tokens) for choice in ranked.choices
    )
    assert complete(client, model, n=2, best_of=5).choices[0].logprobs is None


def test_a_stop_text_ends_it(client: OpenAI, model: str) -> None:
    text = complete(client, model, temperature=0).choices[0].text
    stop = text.split()[1]
    (choice,) = complete(client, model, temperature=0, stop=[stop]).choices
    assert choice.finish_reason == "stop"
    assert choice.text == text[: text.index(stop)]


def test_a_grammar_is_followed(client: OpenAI, model: str) -> None:
    extra = {"grammar": 'root ::= "yes" | "no"'}
    choices = complete(client, model, n=3, temperature=1.5, extra_body=extra).choices
    assert {choice.text for choice in choices} <= {"yes", "no"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"suffix": "."}, "suffix", "unsupported"),
        ({"temperature": 3}, "temperature", "invalid_request"),
        ({"echo": True, "logprobs": 1}, "echo", "unsupported"),
        ({"best_of": 2, "n": 3}, "best_of", "invalid_request"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_request"),
        ({"prompt": [99999999]}, "prompt", "invalid_request"),
        ({"prompt": "word " * 9000}, "prompt", "context_length_exceeded"),
        ({"extra_body": {"grammar": "root ::= ("}}, "grammar", "invalid_request"),
    ],
)
def test_what_cannot_be_is_refused_and_named(
    client: OpenAI, model: str, fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, model, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_a_model_that_is_not_named_is_asked_for(server: Server) -> None:
    code, body = server.post("/v1/completions", {"prompt": PROMPT})
    assert (code, body["error"]["param"]) == (400, "model")


def test_every_answer_has_an_id_of_its_own(client: OpenAI, model: str) -> None:
    answers = [client.completions.with_raw_response.create(model=model, **FIXED, prompt=one)
               for one in ("a", "b")]  # fmt: skip
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 2
    assert all(int(answer.headers["openai-processing-ms"]) >= 0 for answer in answers)


# ---- chat --------------------------------------------------------------------------------------


def test_a_chat_names_its_model(client: OpenAI, model: str) -> None:
    hello: Any = [{"role": "user", "content": "Hello"}]
    answer = client.chat.completions.create(model=model, messages=hello, max_tokens=8)
    assert answer.model == model
    assert answer.choices[0].message.content is not None
    chunks = list(
        client.chat.completions.create(model=model, messages=hello, max_tokens=8, stream=True)
    )
    assert {chunk.model for chunk in chunks} == {model}


# ---- embeddings --------------------------------------------------------------------------------


def test_fewer_dimensions_are_the_first_ones_at_length_one(client: OpenAI, model: str) -> None:
    def embed(**fields: Any) -> Any:
        return client.embeddings.create(model=model, input=["Hello", "Cats"], **fields).data

    whole, packed = embed(encoding_format="float", dimensions=8), embed(dimensions=8)
    full = embed(encoding_format="float")
    for short, same, long in zip(whole, packed, full, strict=True):
        norm = math.hypot(*long.embedding[:8])
        assert short.embedding == pytest.approx([one / norm for one in long.embedding[:8]])
        assert same.embedding == pytest.approx(short.embedding, abs=1e-6)
        assert math.hypot(*short.embedding) == pytest.approx(1, abs=1e-5)
    with pytest.raises(openai.BadRequestError) as caught:
        embed(dimensions=len(full[0].embedding) + 1)
    assert caught.value.param == "dimensions"


# ---- asynchronous ------------------------------------------------------------------------------


def test_the_asynchronous_client_streams_and_waits(server: Server, model: str) -> None:
    async def both() -> tuple[str, str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
            fields: dict[str, Any] = {"model": model, "prompt": PROMPT, **FIXED}
            whole, stream = await asyncio.gather(
                client.completions.create(**fields),
                client.completions.create(**fields, stream=True),
            )
            return whole.choices[0].text, "".join([chunk.choices[0].text async for chunk in stream])

    whole, streamed = asyncio.run(both())
    assert whole == streamed
