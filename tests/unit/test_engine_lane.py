"""Embeddings and scores in a lane of their own: batches, company, every end, and no text at all."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support.fake_runtime import BOS, EOS, SHARED, FakeRuntime, fake_engine

from nitrolib.backends import LoadOptions
from nitrolib.engine import Engine
from nitrolib.errors import (
    BackendError,
    Cancelled,
    ContextOverflow,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotLoaded,
    Overloaded,
    Unsupported,
)
from nitrolib.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=20)
LONG_S = 200


@pytest.fixture
def runtime():
    return FakeRuntime(n_seq=2, can=SHARED)


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
    assert runtime.closed
    assert all(one.closed for one in runtime.embedders)


class Gate:
    """Holds every evaluation of the embedder until it is opened."""

    def __init__(self, runtime):
        self.inside, self._open = threading.Semaphore(0), threading.Event()
        runtime.before_embed = self

    def __call__(self, texts):
        self.inside.release()
        assert self._open.wait(LONG_S), "the test forgot the gate"

    def wait(self):
        assert self.inside.acquire(timeout=60)

    def open(self):
        self._open.set()


# ---- embeddings


def test_texts_are_framed_and_ids_are_not(engine, runtime):
    one = engine.embed("hello")
    assert one == engine.embed([BOS, *b"hello"]) == engine.embed([[BOS, *b"hello"]])
    assert one.prompt_tokens == 6
    assert runtime.embedders[0].batches == [[6]] * 3
    assert runtime.steps == []  # the slots have nothing to do with it


def test_the_embedder_is_made_when_it_is_first_needed_and_once(engine, runtime):
    engine.complete("x", GREEDY)
    assert runtime.embedders == []
    engine.embed("x")
    engine.embed("y")
    assert len(runtime.embedders) == 1


def test_texts_of_several_calls_share_an_evaluation_and_keep_their_order(engine, runtime):
    engine.embed("first")
    gate = Gate(runtime)
    calls = [engine.submit_embed("a")]
    gate.wait()
    calls += [engine.submit_embed([f"{name}{n}" for n in range(4)]) for name in "bcd"]
    gate.open()
    results = [call.result(60) for call in calls]
    expected = [engine.embed([f"{name}{n}" for n in range(4)]) for name in "bcd"]
    assert results[1:] == expected
    batches = runtime.embedders[0].batches[2:6]
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]


def test_an_evaluation_holds_no_more_tokens_than_it_may(engine, runtime):
    lengths = [10, 60, 5, 40, 40, 64, 1, 1, 1, 1]
    done = engine.embed([[7] * n for n in lengths])
    assert done.prompt_tokens == sum(lengths)
    batches = runtime.embedders[0].batches
    assert sorted(n for batch in batches for n in batch) == sorted(lengths)
    assert all(sum(batch) <= 64 and len(batch) <= 3 for batch in batches)


def test_a_long_call_delays_a_short_one_by_one_evaluation(engine, runtime):
    engine.embed("first")
    gate = Gate(runtime)
    long = engine.submit_embed([[1] * 60] * 50)
    gate.wait()
    ended = []
    short = engine.submit_embed("x")
    short.add_done_callback(lambda _: ended.append(len(runtime.embedders[0].batches)))
    gate.open()
    assert short.result(60)
    assert long.result(60)
    assert ended[0] <= 3


def test_generations_go_on_beside_it(engine, runtime):
    engine.embed("first")
    gate = Gate(runtime)
    call = engine.submit_embed("x")
    gate.wait()
    assert engine.complete("ab", GREEDY).usage.completion_tokens == 20
    assert engine.status().running == 1
    gate.open()
    assert call.result(60)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ("", "input[0]"),
        (["a", ""], "input[1]"),
        ([[1], []], "input[1]"),
        ([[1], [999]], "input[1]"),
    ],
)
def test_bad_inputs_are_refused_with_their_index(engine, wrong, field):
    with pytest.raises(InvalidRequest) as caught:
        engine.embed(wrong)
    assert caught.value.field == field


def test_a_text_that_fills_the_embedder_fits_and_one_more_token_does_not(engine):
    assert engine.embed([[1] * 64]).prompt_tokens == 64
    for wrong, tokens in (([[1] * 65], 65), ("x" * 64, 65), ("x" * 10_000, 1250)):
        with pytest.raises(ContextOverflow) as caught:
            engine.embed(wrong)
        error = caught.value
        assert (error.field, error.prompt_tokens, error.limit) == ("input[0]", tokens, 64)
        assert error.allowed == "at most 64 tokens"


def test_the_queue_is_bounded(runtime):
    with fake_engine(runtime, engine={"max_queue": 1}) as engine:
        engine.embed("first")
        gate = Gate(runtime)
        held = [engine.submit_embed("x") for _ in range(3)]
        with pytest.raises(Overloaded):
            engine.submit_embed("y")
        assert sum((engine.status().running, engine.status().waiting)) == 3
        gate.open()
        assert all(one.result(60) for one in held)
        assert engine.embed("y")


# ---- every other end


class Slow:
    """Every evaluation takes LONG_S unless it is interrupted."""

    def __init__(self, runtime):
        self.runtime, self.inside, self.on = runtime, threading.Semaphore(0), True
        runtime.before_embed = self

    def __call__(self, texts):
        if self.on:
            self.inside.release()
            self.runtime.embedders[0].wait_for_interrupt(LONG_S)

    def wait(self):
        assert self.inside.acquire(timeout=60)


def test_cancelling_and_deadlines_end_an_evaluation_and_the_others_are_done_again(engine, runtime):
    engine.embed("first")
    slow = Slow(runtime)
    begin = time.monotonic()
    gone = engine.submit_embed(["x"] * 2)
    slow.wait()
    other = engine.submit_embed("y")
    late = engine.submit_embed("z", timeout_s=0.2)
    gone.cancel()
    with pytest.raises(Cancelled):
        gone.result(60)
    with pytest.raises(DeadlineExceeded):
        late.result(60)
    slow.on = False
    runtime.embedders[0].interrupt()
    assert other.result(60) == engine.embed("y")
    assert time.monotonic() - begin < LONG_S / 2


def test_one_that_waits_can_be_cancelled_and_expires(engine, runtime):
    engine.embed("first")
    gate = Gate(runtime)
    first = engine.submit_embed([[1] * 64])
    gate.wait()
    second, third = engine.submit_embed("x"), engine.submit_embed("y", timeout_s=0.01)
    second.cancel()
    time.sleep(0.02)
    gate.open()
    assert first.result(60)
    with pytest.raises(Cancelled):
        second.result(60)
    with pytest.raises(DeadlineExceeded):
        third.result(60)


def test_unloading_ends_them_at_once(engine, runtime):
    engine.embed("first")
    slow = Slow(runtime)
    handle = engine.submit_embed("x")
    slow.wait()
    begin = time.monotonic()
    engine.unload()
    assert time.monotonic() - begin < LONG_S / 2
    with pytest.raises(Cancelled) as caught:
        handle.result(0)
    assert caught.value.reason == "unload"
    with pytest.raises(ModelNotLoaded):
        engine.embed("x")


def test_what_fails_ends_its_own_call_alone(engine, runtime):
    engine.embed("first")
    gate = Gate(runtime)
    first = engine.submit_embed("x")
    gate.wait()

    def fail(texts):
        if [66] in texts:
            raise BackendError("injected")

    runtime.before_embed = fail
    sound, broken = engine.submit_embed("a"), engine.submit_embed([[66]])
    gate.open()
    assert first.result(60)
    with pytest.raises(BackendError, match="injected"):
        broken.result(60)
    assert sound.result(60) == engine.embed("a")


def test_an_unexpected_error_is_a_backend_error_with_its_cause(engine, runtime):
    runtime.before_embed = lambda _: 1 / 0
    with pytest.raises(BackendError) as caught:
        engine.embed("x")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    runtime.before_embed = lambda _: None
    assert engine.embed("x")


def test_an_embedder_that_cannot_be_made_is_tried_again(engine, runtime):
    inner = runtime.embedder

    def broken():
        raise BackendError("no memory")

    runtime.embedder = broken
    with pytest.raises(BackendError, match="no memory"):
        engine.embed("x")
    runtime.embedder = inner
    assert engine.embed("x")


def test_a_dropped_handle_cancels(engine, runtime):
    engine.embed("first")
    slow = Slow(runtime)
    handle = engine.submit_embed("x")
    slow.wait()
    del handle
    give_up = time.monotonic() + 60
    while engine.status().running and time.monotonic() < give_up:
        time.sleep(0.002)
    assert engine.status().running == 0


# ---- scores


def test_documents_are_scored_in_their_order(engine, runtime):
    documents = ["one", "two", "three", "four", "five"]
    done = engine.rerank("which", documents)
    assert len(done.scores) == 5
    assert done.scores == tuple(engine.rerank("which", [one]).scores[0] for one in documents)
    assert done.prompt_tokens == sum(2 + 5 + len(one) for one in documents)
    pair = np.array([BOS, *b"which", EOS, *b"one"])
    assert done.scores[0] == pytest.approx(float(runtime._vector(pair)[0]))


def test_scores_and_embeddings_never_share_an_evaluation(engine, runtime):
    engine.embed("first")
    gate = Gate(runtime)
    first = engine.submit_embed("x")
    gate.wait()
    calls = [engine.submit_rerank("q", ["a", "b"]), engine.submit_embed("y")]
    gate.open()
    assert first.result(60)
    assert calls[0].result(60) == engine.rerank("q", ["a", "b"])
    assert calls[1].result(60) == engine.embed("y")


@pytest.mark.parametrize(
    ("query", "documents", "field"),
    [
        ("", ["a"], "query"),
        (5, ["a"], "query"),
        ("q", [], "documents"),
        ("q", "a", "documents"),
        ("q", ["a", ""], "documents[1]"),
        ("q", ["a", 5], "documents[1]"),
        ("q", ["a", "x" * 62], "documents[1]"),
    ],
)
def test_bad_queries_and_documents_are_refused_by_name(engine, query, documents, field):
    with pytest.raises(InvalidRequest) as caught:
        engine.rerank(query, documents)
    assert caught.value.field == field


def test_a_model_that_cannot_score_says_so():
    runtime = FakeRuntime(can=set(SHARED) - {"rank"})
    with fake_engine(runtime) as engine, pytest.raises(Unsupported) as caught:
        engine.rerank("q", ["a"])
    assert caught.value.field == "query"
    with fake_engine(FakeRuntime()) as engine, pytest.raises(Unsupported):
        engine.rerank("q", ["a"])


# ---- a model that makes no text


def test_a_model_that_only_embeds_refuses_to_generate():
    runtime = FakeRuntime(can=("embedder",), without=("generate", "embed"))
    with Engine(loader=lambda *_: runtime) as engine:
        engine.load("bert.gguf", LoadOptions())
        assert runtime.steps == []  # there is nothing to warm up
        assert engine.status().model.notes == ()
        with pytest.raises(Unsupported) as caught:
            engine.complete("x")
        assert caught.value.field == "prompt"
        assert len(engine.embed(["a", "b"]).vectors) == 2
