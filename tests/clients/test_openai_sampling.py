"""The unmodified OpenAI client asks for choices, seeds and probabilities, over gunicorn and a real
model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import OpenAI
from support.models import exact_chat_model, exact_options
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

HELLO = [{"role": "user", "content": "Tell me about a cat."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Iterator[Server]:
    model = exact_chat_model(tmp_path_factory.mktemp("model"), backend)
    options = {"n_parallel": 2, "cont_batching": 1, "clean_cache_threshold": 0, "backend": backend}
    with serve(model=model, **options, **exact_options(backend)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as made:
        yield made


def ask(client: OpenAI, **fields: Any) -> Any:
    fields = {"max_tokens": 12, **fields}
    return client.chat.completions.create(model="x", messages=HELLO, **fields)


def test_a_seed_fixes_the_answer(client: OpenAI) -> None:
    texts = {
        seed: [
            ask(client, seed=seed, temperature=1.5, max_tokens=24).choices[0].message.content
            for _ in range(2)
        ]
        for seed in (1, 2, 3)
    }
    assert all(one == other for one, other in texts.values())
    assert len({one for one, _ in texts.values()}) > 1


def test_choices_are_those_of_the_following_seeds(client: OpenAI) -> None:
    answer = ask(client, n=3, seed=5, temperature=1.5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    alone = [ask(client, seed=5 + index, temperature=1.5) for index in range(3)]
    texts = [choice.message.content for choice in answer.choices]
    assert texts == [one.choices[0].message.content for one in alone]
    assert answer.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)


def shown(entries: list[Any]) -> list[tuple[str, Any]]:
    """Tokens with their log-probabilities, which may differ by rounding."""
    return [(entry.token, pytest.approx(entry.logprob, abs=1e-3)) for entry in entries]


def test_streamed_choices_are_the_whole_ones(client: OpenAI) -> None:
    fields = {"n": 3, "seed": 5, "temperature": 1.5, "logprobs": True, "top_logprobs": 2}
    whole = ask(client, **fields)
    *chunks, last = ask(client, **fields, stream=True, stream_options={"include_usage": True})
    assert last.usage.total_tokens == whole.usage.total_tokens
    for choice in whole.choices:
        parts = [one.choices[0] for one in chunks if one.choices[0].index == choice.index]
        assert "".join(part.delta.content or "" for part in parts) == choice.message.content
        assert parts[-1].finish_reason == choice.finish_reason
        entries = [entry for part in parts if part.logprobs for entry in part.logprobs.content]
        assert shown(entries) == shown(choice.logprobs.content)


def test_more_choices_than_can_ever_wait_are_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, n=1000)
    assert caught.value.param == "n"
    assert ask(client).choices


def test_logprobs_are_those_of_the_text(client: OpenAI) -> None:
    answer = ask(client, logprobs=True, top_logprobs=5, temperature=0)
    (choice,) = answer.choices
    entries = choice.logprobs.content
    assert "".join(entry.token for entry in entries) == choice.message.content
    for entry in entries:
        assert entry.bytes == list(entry.token.encode())
        assert len(entry.top_logprobs) == 5
        values = [top.logprob for top in entry.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1 + 1e-5
        assert entry.logprob <= 1e-5
    # The prompt's penalties apart, greedy takes the best: mostly the same token.
    assert entries[0].logprob >= entries[0].top_logprobs[-1].logprob


def test_a_bias_forbids_words(client: OpenAI) -> None:
    plain = ask(client, temperature=0, max_tokens=24).choices[0].message.content
    word = plain.split()[1]
    biased = ask(client, temperature=0, max_tokens=24, extra_body={"logit_bias": {word: False}})
    assert biased.choices[0].message.content != plain


def test_llama_cpps_fields_travel_in_the_extra_body(client: OpenAI) -> None:
    extra = {
        "samplers": ["top_k"],
        "top_k": 1,
        "n_predict": 5,
        "ignore_eos": True,
        "return_tokens": True,
        "dry_multiplier": 0.8,
        "mirostat": 0,
        "xtc_probability": 0.5,
        "dynatemp_range": 0.2,
        "response_fields": [],
    }
    answer = ask(client, extra_body=extra)
    assert answer.usage.completion_tokens == 5
    assert len(answer.choices[0].tokens) == 5
    assert answer.warnings == ["max_tokens not used: n_predict goes before"]
    assert answer.generation_settings["samplers"] == ["top_k"]
    assert answer.prompt.startswith("<s>")
    assert answer.prompt.rstrip().endswith("ASSISTANT:")
    assert answer.timings["predicted_n"] == 5
    assert answer.timings["cache_n"] + answer.timings["prompt_n"] == answer.tokens_evaluated
    assert answer.tokens_evaluated == answer.usage.prompt_tokens
    again = ask(client, extra_body={**extra, "id_slot": 1, "cache_prompt": False})
    assert again.tokens_cached == 0
    assert again.choices[0].tokens == answer.choices[0].tokens


def test_a_prompt_alone_may_be_evaluated(client: OpenAI) -> None:
    answer = ask(client, extra_body={"n_predict": 0})
    assert (answer.choices[0].message.content, answer.usage.completion_tokens) == ("", 0)
    assert answer.choices[0].finish_reason == "length"


def test_progress_rises_to_the_whole_prompt(client: OpenAI) -> None:
    stream = ask(client, stream=True, extra_body={"return_progress": True, "cache_prompt": False})
    told = [chunk.prompt_progress for chunk in stream if hasattr(chunk, "prompt_progress")]
    assert told[0]["processed"] == told[0]["cache"] == 0
    assert told[-1]["processed"] == told[-1]["total"] > 0


def test_a_slot_that_is_not_there_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body={"id_slot": 2})
    assert caught.value.param == "id_slot"
