"""The engine on the real native library and real model files, one native thread."""

from __future__ import annotations

import asyncio
import itertools
import threading

import numpy as np
import pytest
from support.engine_storm import Storm
from support.fake_runtime import assert_at_rest
from support.gguf_maker import CHATML, make_llama
from support.models import EXACT, exact_options
from support.waiting import until

from nitrolib import demo
from nitrolib.backends import LoadOptions
from nitrolib.engine import Engine
from nitrolib.engine.interleave import interleave
from nitrolib.errors import (
    Cancelled,
    ContextOverflow,
    ModelAlreadyLoaded,
    ModelFileError,
    Unsupported,
)
from nitrolib.prompt import Message
from nitrolib.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=30, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
ENDLESS = SamplingParams(temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory, backend):
    folder = tmp_path_factory.mktemp("model")
    return make_llama(folder / "tiny.gguf", quant=EXACT[backend], chat_template=CHATML)


@pytest.fixture
def engine(path, backend):
    options = LoadOptions(n_parallel=2, ctx_len=1024, threads=1, **exact_options(backend))
    with Engine.open(path, options, backend=backend) as engine:
        yield engine
        if engine.status().model is not None:
            engine.clear_cache()
            assert_at_rest(engine)


def test_it_generates_to_the_end_of_the_context_and_not_beyond(engine):
    done = engine.complete("Once", SamplingParams(temperature=0, ignore_eos=True))
    assert done.finish_reason == "length"
    assert done.usage.total_tokens == 512


def test_a_prompt_that_fills_the_context_but_one_gets_one_token(engine):
    ids = [5] * 511
    assert engine.complete(ids, GREEDY).usage.completion_tokens == 1
    with pytest.raises(ContextOverflow) as caught:
        engine.complete([*ids, 5], GREEDY)
    assert (caught.value.prompt_tokens, caught.value.limit) == (512, 512)


def test_the_second_turn_of_a_chat_evaluates_only_what_is_new(engine):
    messages = [Message("user", "tell me " * 20)]
    first = engine.chat(messages, GREEDY)
    messages += [Message("assistant", first.text), Message("user", "more")]
    second = engine.chat(messages, GREEDY)
    assert second.slot == first.slot
    shared = 0
    fed = first.prompt_token_ids + first.token_ids[:-1]
    while shared < len(fed) and second.prompt_token_ids[shared] == fed[shared]:
        shared += 1
    assert second.usage.cached_tokens == shared >= len(first.prompt_token_ids)
    fresh = engine.chat(messages, GREEDY, cache_prompt=False)
    assert fresh.token_ids == second.token_ids


def test_two_streams_progress_side_by_side(engine, monkeypatch):
    runtime = engine._model.scheduler.runtime
    decode, both_asked = runtime.decode, threading.Event()

    def held(feeds):
        assert both_asked.wait(60)
        decode(feeds)

    monkeypatch.setattr(runtime, "decode", held)
    generations = [engine.stream(name, LONG) for name in ("one", "two")]
    both_asked.set()
    order = [index for index, _ in interleave(generations)]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes > 20


def test_async_readers_see_what_sync_readers_see(engine):
    async def read(prompt):
        return "".join([chunk.text async for chunk in engine.stream(prompt, GREEDY)])

    async def both():
        return await asyncio.gather(read("one"), read("two"), read("three"))

    assert asyncio.run(both()) == [
        engine.complete(prompt, GREEDY).text for prompt in ("one", "two", "three")
    ]


def test_embeddings_are_normalised_and_do_not_depend_on_company(engine, backend):
    texts = ["Hello world", "Hello", "x " * 150]
    with engine.stream("beside", LONG) as generation:
        beside = engine.embed(texts)
        generation.cancel()
    alone = [engine.embed(text) for text in texts]
    assert np.allclose(np.linalg.norm(beside.vectors, axis=1), 1, atol=1e-5)
    # One evaluation for all texts sums in another order than one for each.
    rounding = 0 if backend == "ctransformers" else 2e-3
    assert np.allclose(beside.vectors, [one.vectors[0] for one in alone], rtol=0, atol=rounding)
    assert beside.prompt_tokens == sum(one.prompt_tokens for one in alone)


def test_unload_during_generation_ends_it_cleanly_and_the_next_load_works(engine, path, backend):
    generations = [engine.stream("Once", ENDLESS, context_policy="shift") for _ in range(5)]
    reading = iter(generations[0])  # held, or leaving it would be a cancellation
    next(reading)
    assert engine.unload() is True
    for generation in generations:
        with pytest.raises(Cancelled) as caught:
            generation.result(60)
        assert caught.value.reason == "unload"
    assert all(generation.done() for generation in generations)
    engine.load(path, LoadOptions(threads=1), backend=backend)
    assert engine.complete("Once", GREEDY).text


def test_a_bad_file_leaves_the_engine_empty_and_a_good_one_loads_after_it(path, tmp_path, backend):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(path.read_bytes()[:5000])
    with Engine() as engine:
        with pytest.raises(ModelFileError):
            engine.load(bad, backend=backend)
        assert engine.status().model is None
        engine.load(path, LoadOptions(threads=1), backend=backend)
        with pytest.raises(ModelAlreadyLoaded):
            engine.load(path, backend=backend)
        assert engine.complete("Once", GREEDY).text


def test_without_embedding_it_is_refused(path, backend):
    with (
        Engine.open(path, LoadOptions(embedding=False, threads=1), backend=backend) as engine,
        pytest.raises(Unsupported),
    ):
        engine.embed("x")


def test_a_cancel_is_noticed_within_a_chunk_of_a_long_prompt(engine, monkeypatch):
    runtime = engine._model.scheduler.runtime
    decode, fed, cancelled = runtime.decode, [], threading.Event()

    def held(feeds):
        fed.append(sum(len(feed.tokens) for feed in feeds))
        assert cancelled.wait(60)
        decode(feeds)

    monkeypatch.setattr(runtime, "decode", held)
    generation = engine.stream([7] * 500, GREEDY)
    until(lambda: fed)
    generation.cancel()
    cancelled.set()
    with pytest.raises(Cancelled) as caught:
        generation.result(60)
    assert len(fed) == 1  # of all the evaluations it would have taken
    assert caught.value.partial.usage.completion_tokens <= 1


def test_text_survives_tokenize_and_detokenize(engine):
    for text in ("Hello world", " two  spaces ", "émoji 😀 漢字", "</s><|im_start|>", "a\n\tb"):
        ids = engine.tokenize(text)
        assert engine.detokenize(ids) == text
        assert not set(ids) & set(engine._model.runtime.vocabulary.special.values())


def test_the_bundled_model_answers_through_the_face(backend):
    with Engine.open(demo.model_path(), LoadOptions(threads=1), backend=backend) as engine:
        done = engine.chat([{"role": "user", "content": "Hello"}], SamplingParams(temperature=0))
        assert done.finish_reason == "stop"
        assert done.text
        assert done.text == done.text.lstrip()


def test_a_storm_of_32_threads_ends_with_all_slots_free(path, backend):
    counts = Storm(str(path), threads=32, backend=backend).run(seconds=8)
    assert counts["chat", "done"] > 0
    assert counts["reload", "done"] > 0
    assert counts["embed", "done"] > 0
