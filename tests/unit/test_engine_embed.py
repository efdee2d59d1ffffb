"""Embeddings: all input forms, order, checks, and their way through the queue."""

from __future__ import annotations

import numpy as np
import pytest
from support.fake_runtime import BOS, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.errors import (
    BackendError,
    Cancelled,
    ContextOverflow,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    Unsupported,
)
from nitrolib.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=20)


@pytest.fixture
def runtime():
    return FakeRuntime(n_seq=2)


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        engine.clear_cache()
        assert_at_rest(engine)


def test_all_four_forms_give_the_same_vectors(engine):
    ids = [BOS, *b"hello"]
    one = engine.embed("hello")
    assert one == engine.embed(["hello"]) == engine.embed(ids) == engine.embed([ids])
    assert one.prompt_tokens == 6
    assert np.linalg.norm(one.vectors[0]) == pytest.approx(1, abs=1e-6)


def test_the_order_is_kept_over_slots_and_lengths(engine):
    texts = [("x" * (300 if n % 3 == 0 else 1)) + str(n) for n in range(20)]
    together = engine.embed(texts)
    assert together.vectors == tuple(engine.embed(text).vectors[0] for text in texts)
    assert together.prompt_tokens == sum(len(text) + 1 for text in texts)


def test_a_long_input_is_evaluated_in_chunks_and_read_at_the_last(engine, runtime):
    engine.embed([[1] * 130])
    assert runtime.steps == [[(0, 64, "none")], [(0, 64, "none")], [(0, 2, "embedding")]]


def test_numpy_ids_are_ids(engine):
    assert engine.embed(np.array([BOS, 1])) == engine.embed([BOS, 1])


def test_a_call_is_one_place_in_the_queue_however_many_inputs(runtime):
    with fake_engine(runtime, engine={"max_queue": 1}) as engine:
        brake = Brake(runtime)
        held = [engine.submit_embed(["x"] * 50), engine.stream("a", GREEDY)]
        held.append(engine.stream("b", GREEDY))
        with pytest.raises(Overloaded):
            engine.embed("y")
        brake.release()
        assert len(held[0].result(60).vectors) == 50


def test_a_long_call_does_not_starve_what_comes_after_it():
    runtime = FakeRuntime()
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        embedding = engine.submit_embed(["x"] * 50)
        brake.wait()
        generation = engine.stream("a", GREEDY)
        brake.release()
        assert generation.result(60)
        assert [n for [(_, n, kind)] in runtime.steps[:3] if kind == "logits"]
        assert embedding.result(60)


def test_it_leaves_no_record_and_takes_empty_slots_first(engine, runtime):
    first = engine.complete("hello", GREEDY)
    engine.embed(["hello", "you"])
    again = engine.complete("hello", GREEDY)
    assert again.token_ids == first.token_ids
    assert runtime.length(1 - again.slot) in (0, runtime.length(first.slot))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ([], "input"),
        ("", "input[0]"),
        (["a", ""], "input[1]"),
        ([[1], []], "input[1]"),
        (["a", [1]], "input"),
        ([1, "a"], "input"),
        ([[1], [999]], "input[1]"),
        ([1, -2], "input[0]"),
        ([1.5], "input[0]"),
        ([None], "input[0]"),
        ([True], "input[0]"),
    ],
)
def test_bad_inputs_are_refused_with_their_index(engine, wrong, field):
    with pytest.raises(InvalidRequest) as caught:
        engine.embed(wrong)
    assert caught.value.field == field


def test_an_input_that_does_not_fit_is_refused_with_its_index_and_numbers(engine):
    with pytest.raises(ContextOverflow) as caught:
        engine.embed([[1], [1] * 600])
    error = caught.value
    assert (error.field, error.prompt_tokens, error.limit) == ("input[1]", 600, 512)


def test_without_embeddings_it_is_unsupported():
    with (
        fake_engine(FakeRuntime(), embedding=False) as engine,
        pytest.raises(Unsupported, match="embedding=False"),
    ):
        engine.embed("x")


def test_a_backend_that_cannot_embed_says_so():
    with (
        fake_engine(FakeRuntime(without=("embed",))) as engine,
        pytest.raises(Unsupported, match="backend"),
    ):
        engine.embed("x")


def test_it_can_be_cancelled_and_has_a_deadline(engine, runtime):
    brake = Brake(runtime)
    handle = engine.submit_embed(["x" * 400] * 10)
    brake.wait()
    brake.step()
    handle.cancel()
    brake.release()
    with pytest.raises(Cancelled):
        handle.result(60)
    import time

    runtime.before_decode = lambda _: time.sleep(0.01)
    with pytest.raises(DeadlineExceeded):
        engine.embed(["x" * 400] * 100, timeout_s=0.05)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InvalidRequest):
            engine.embed("x", timeout_s=wrong)


def test_a_fault_ends_the_call_whole_and_the_slots_stay_in_order(engine, runtime):
    def fail(feeds):
        if len(feeds) == 2:
            runtime.fail([1])

    runtime.before_decode = fail
    with pytest.raises(BackendError):
        engine.embed(["a", "b", "c"])
    runtime.before_decode = lambda _: None
    assert len(engine.embed(["a", "b", "c"]).vectors) == 3


def test_a_vector_that_cannot_be_read_ends_the_call(engine, runtime):
    inner = runtime.embed
    runtime.embed = lambda seq: 1 / 0
    with pytest.raises(BackendError):
        engine.embed(["a", "b", "c"])
    runtime.embed = inner
    assert len(engine.embed(["a", "b", "c"]).vectors) == 3


def test_a_fault_in_a_later_chunk_leaves_every_record_true(engine, runtime):
    """Two inputs of one call run side by side; one fails while the other is fed its second
    chunk."""

    def fail(feeds):
        if len(feeds) == 2 and runtime.length(0) == runtime.length(1) == 128:
            runtime.fail([1])

    runtime.after_decode = fail
    with pytest.raises(BackendError, match="injected"):
        engine.embed([[1] * 300, [2] * 300])
    engine._model.scheduler.call(lambda: None)
    assert_at_rest(engine)
    assert runtime.length(0) == runtime.length(1) == 0
