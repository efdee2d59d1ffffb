"""What status tells of the backend and the slots, and what the counters add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fake_runtime import SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import Engine, EngineCounters, GenerationRequest
from nitrolib.engine.counters import Counters
from nitrolib.errors import Cancelled
from nitrolib.sampling import SamplingParams


def ask(engine, prompt, max_tokens=4, first=0):
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=max_tokens)
    tokens = (first, *(index % 250 for index in range(prompt - 1)))
    return engine.submit(GenerationRequest(prompt=tokens, params=how))


def test_it_says_why_this_backend_and_whether_slots_share_a_pass():
    runtime = FakeRuntime(n_seq=2)
    runtime.report = replace(runtime.report, reason="it was asked for")
    with fake_engine(runtime) as engine:
        status = engine.status().model
        assert (status.reason, status.shared_batch) == ("it was asked for", False)
        assert status.capabilities == ("embed", "generate")
    with fake_engine(FakeRuntime(can=SHARED)) as engine:
        assert engine.status().model.shared_batch
        assert "interrupt" in engine.status().model.capabilities


def test_it_counts_the_tokens_in_all_caches():
    with fake_engine(FakeRuntime(n_seq=2)) as engine:
        ask(engine, 10, 3).result(60)
        ask(engine, 20, 1, first=9).result(60)
        assert engine.status().model.tokens_cached == 12 + 20


def test_counters_are_those_of_all_requests_together():
    runtime = FakeRuntime(n_seq=2, can=SHARED)
    with fake_engine(runtime) as engine:
        done = [ask(engine, 100, 5).result(60), ask(engine, 110, 7).result(60)]
        counters = engine.status().counters
        assert counters.requests == 2
        assert counters.prompt_tokens == sum(one.timings.prompt_n for one in done)
        assert counters.prompt_tokens_cached == sum(one.timings.cache_n for one in done) == 100
        assert counters.predicted_tokens == 12
        assert counters.predicted_steps == 10
        assert counters.decodes == len(runtime.steps)
        assert counters.busy_slots == sum(map(len, runtime.steps))
        assert counters.tokens_max == 117
        assert counters.prompt_s > 0
        assert counters.predicted_s > 0


def test_slots_fed_in_one_evaluation_are_counted_each():
    runtime = FakeRuntime(n_seq=3, can=SHARED)
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        running = [ask(engine, 5, 20, first=n) for n in range(3)]
        brake.release()
        assert all(one.result(60) for one in running)
        counters = engine.status().counters
        assert 40 < counters.busy_slots <= 60
        assert counters.decodes < counters.busy_slots


def test_what_was_cancelled_counts_as_far_as_it_came():
    runtime = FakeRuntime()
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        generation = ask(engine, 100, 50)
        brake.wait()
        brake.step()
        generation.cancel()
        brake.release()
        with pytest.raises(Cancelled):
            generation.result(60)
        counters = engine.status().counters
        assert (counters.requests, counters.prompt_tokens) == (1, 100)
        assert (counters.predicted_tokens, counters.predicted_steps) == (1, 0)


def test_warming_up_is_not_counted_and_embeddings_are():
    runtime = FakeRuntime()
    with fake_engine(runtime, warm_up=True) as engine:
        assert engine.status().counters.requests == 0
        engine.embed([[1] * 10, [2] * 5])
        assert engine.status().counters.prompt_tokens == 15
        assert engine.status().counters.predicted_tokens == 0


def test_counters_outlive_the_model():
    with Engine(loader=lambda *_: FakeRuntime()) as engine:
        for _ in range(2):
            engine.load("a.gguf")
            ask(engine, 10).result(60)
            engine.unload()
        assert engine.status().counters.requests == 2
        assert engine.status().model is None


def test_who_is_set_back_is_counted():
    runtime = FakeRuntime(n_seq=2, n_ctx=100, room=100, can=SHARED)
    with fake_engine(runtime, shared_context=True, ctx_len=100) as engine:
        brake = Brake(runtime)
        running = [ask(engine, 20, 60, first=n) for n in range(2)]
        brake.release()
        assert all(one.result(60) for one in running)
        assert engine.status().counters.set_back == 1
        assert_at_rest(engine)


def test_drafts_are_counted_by_position():
    counters = Counters()
    counters.drafted(4, 0)
    counters.drafted(4, 3)
    counters.drafted(2, 1)
    assert counters.snapshot() == EngineCounters(
        drafts=3, draft_tokens=10, draft_tokens_accepted=4, accepted_by_position=(2, 1, 1)
    )
