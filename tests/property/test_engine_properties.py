"""What must hold of the engine for every request and every schedule, on a real model file."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_runtime import FakeRuntime, assert_at_rest, fake_engine
from support.gguf_maker import make_llama
from support.models import EXACT, Rounding, exact_options

from nitrolib.backends import LoadOptions
from nitrolib.engine import Engine, Generation, GenerationRequest
from nitrolib.errors import BackendError, Cancelled, DeadlineExceeded
from nitrolib.sampling import SamplingParams

N_CTX = 256
slow_is_fine = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory, backend):
    """Three slots on a real file of the type in which another grouping of the same tokens changes
    no logit by rounding, which would be the arithmetic's doing and not the engine's."""
    folder = tmp_path_factory.mktemp("model")
    path = make_llama(folder / "tiny.gguf", quant=EXACT[backend])
    options = LoadOptions(
        n_parallel=3,
        ctx_len=3 * N_CTX,
        threads=1,
        warm_up=False,
        clean_cache_threshold=0,
        **exact_options(backend),
    )
    with Engine.open(path, options, backend=backend) as engine:
        yield engine
        assert_at_rest(engine)


@pytest.fixture(scope="module")
def rounding():
    return Rounding()


tokens = st.integers(3, 511)
prompts = st.lists(tokens, min_size=1, max_size=100).map(tuple)
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    seed=st.integers(0, 2**31),
    top_k=st.sampled_from([0, 1, 40]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    max_tokens=st.integers(1, 24),
    stop=st.lists(st.text("abcdest ", min_size=1, max_size=3), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
)


def told(completion):
    """All of a completion that does not depend on time, place and cache."""
    return completion.text, completion.token_ids, completion.finish_reason, completion.stop


@slow_is_fine
@given(st.data())
def test_cached_generation_equals_fresh_generation(engine, rounding, data):
    """Whatever stands in the slots, and however much of it the prompt shares."""
    before = data.draw(prompts)
    first = engine.complete(before, data.draw(params))
    known = first.prompt_token_ids + first.token_ids
    prompt = known[: data.draw(st.integers(0, len(known)))] + data.draw(prompts)
    how = data.draw(params)
    cached = engine.complete(prompt, how)
    fresh = engine.complete(prompt, how, cache_prompt=False)
    rounding.assert_same(told(cached), told(fresh))
    assert fresh.usage.cached_tokens == 0
    assert cached.usage.cached_tokens < len(prompt)


@slow_is_fine
@given(prompts, params, st.lists(st.tuples(prompts, params), min_size=1, max_size=2))
def test_a_seeded_request_gives_the_same_alone_and_beside_others(
    engine, rounding, prompt, how, others
):
    alone = engine.complete(prompt, how)
    company = [engine.stream(one, its) for one, its in others]
    beside = engine.stream(prompt, how)
    company += [engine.stream(one, its) for one, its in others]
    rounding.assert_same(told(beside.result(60)), told(alone))
    assert all(one.result(60).finish_reason for one in company)


@slow_is_fine
@given(prompts, params)
def test_the_joined_stream_equals_the_result(engine, prompt, how):
    generation = engine.stream(prompt, how)
    chunks = list(generation)
    done = generation.result()
    assert "".join(chunk.text for chunk in chunks) == done.text
    assert tuple(i for chunk in chunks for i in chunk.token_ids) == done.token_ids
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [
        done.finish_reason
    ]
    assert not any(stop in done.text for stop in how.stop)
    assert len(done.token_ids) == done.usage.completion_tokens <= how.max_tokens


CAPABILITIES = ["copy", "shift", "shared_batch", "interrupt", "rows", "repeat"]


@settings(slow_is_fine, max_examples=100)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 3),
    st.sets(st.sampled_from(CAPABILITIES)),
    st.sampled_from([4, 32, 512]),
    st.sampled_from([None, 300, 500]),
    st.booleans(),
    st.sampled_from([0, 3]),
)
def test_after_any_schedule_all_slots_are_free_and_the_records_true(
    caplog, seed, n_seq, cont_batching, threshold, can, n_batch, room, recurrent, lookup
):
    """Random mixes of generations, choices, embeddings, cancellations, deadlines, faults and
    clears; with too few cells for all, decodes that are interrupted at any time, and tokens that
    are guessed ahead. Whoever comes through has the tokens it has alone."""
    rng = random.Random(seed)
    if recurrent:
        can = can - {"copy", "shift"}
    runtime = FakeRuntime(
        n_seq=n_seq, n_ctx=300, n_batch=n_batch, can=can, room=room, recurrent=recurrent
    )
    reference = FakeRuntime(n_ctx=300)

    def fault(feeds):
        for slot in engine._model.scheduler.slots:
            assert slot.tokens == runtime.cells[slot.number]
        if rng.random() < 0.02:
            runtime.fail([rng.choice(feeds).seq])
        if rng.random() < 0.05 and "interrupt" in can:
            runtime.interrupt()

    def late_fault(feeds):
        if rng.random() < 0.02:
            runtime.fail([rng.choice(feeds).seq])

    runtime.before_decode, runtime.after_decode = fault, late_fault
    options = {
        "cont_batching": cont_batching,
        "clean_cache_threshold": threshold,
        "shared_context": room is not None,
        "ctx_len": room or 300 * n_seq,
        "lookup": lookup,
    }
    with (
        fake_engine(runtime, engine={"max_queue": 200}, **options) as engine,
        fake_engine(reference) as alone,
    ):
        requests = [a_request(rng, n_seq) for _ in range(25)]
        running = []
        for request in requests:
            running.extend(engine.submit_choices(request, rng.choice([1, 1, 1, 2, 4])))
            if rng.random() < 0.2:
                rng.choice(running).cancel()
            if rng.random() < 0.2:
                running.append(engine.submit_embed(["x" * rng.randrange(1, 200)] * 3))
            if rng.random() < 0.1:
                engine.clear_cache()
        for one in running:
            outcome = ended(one)
            if outcome and isinstance(one, Generation):
                request = replace(one.request, id_slot=-1, timeout_s=None, kind="completion")
                expected = alone.submit(request).result(60)
                if any("no room" in note for note in outcome.notes):
                    assert outcome.truncated
                    assert expected.token_ids[: len(outcome.token_ids)] == outcome.token_ids
                else:
                    assert told(expected) == told(outcome)
        engine._model.scheduler.call(lambda: None)
        assert_at_rest(engine)
        assert "the scheduler failed" not in caplog.text
        assert all(sum(n for _, n, _ in step) <= n_batch for step in shared_steps(runtime))
        engine.clear_cache()
        assert all(not cells for cells in runtime.cells)


def shared_steps(runtime):
    return runtime.steps if "shared_batch" in runtime.capabilities else []


def a_request(rng, n_seq):
    how = SamplingParams(seed=rng.randrange(1000), max_tokens=rng.randrange(1, 40))
    return GenerationRequest(
        prompt=a_prompt(rng),
        params=how,
        kind=rng.choice(["chat", "completion"]),
        cache_prompt=rng.random() < 0.8,
        context_policy=rng.choice(["error", "shift"]),
        n_keep=rng.choice([-1, 0, 5, 1000]),
        id_slot=rng.choice([-1, -1, -1, rng.randrange(n_seq)]),
        timeout_s=rng.choice([None, None, None, 0.005, 30]),
    )


def a_prompt(rng):
    """Often with a long beginning that others have too."""
    beginning = tuple(range(rng.choice([0, 0, 40, 150, 200])))
    return beginning + tuple(rng.randrange(4) for _ in range(rng.choice([1, 5, 70, 90])))


def ended(handle):
    """The result, or None for one that was ended from outside."""
    try:
        return handle.result(60)
    except (Cancelled, DeadlineExceeded, BackendError):
        return None
