"""The loop: who runs when, in which slot, with what cached, and what ends early. The Brake holds
the loop before a decode, so that every order of events below is certain, not likely."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest
from support.fake_runtime import (
    BOS,
    Brake,
    FakeRuntime,
    assert_at_rest,
    expire,
    fake_engine,
    settle,
)

from nitrolib.engine import CacheCleaningPolicy, GenerationRequest
from nitrolib.engine.job import clock
from nitrolib.engine.planning import PREFILL_CHUNK
from nitrolib.errors import (
    BackendError,
    Cancelled,
    DeadlineExceeded,
    Overloaded,
)
from nitrolib.sampling import SamplingParams


def ask(engine, prompt="ab", *, max_tokens=4, **fields):
    """A greedy request; a prompt that is a number is one of that many tokens."""
    if isinstance(prompt, int):
        prompt = tuple(index % 250 for index in range(prompt))
    elif isinstance(prompt, str):
        prompt = (BOS, *prompt.encode())
    params = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=max_tokens)
    generation = engine.submit(GenerationRequest(prompt=prompt, params=params, **fields))
    _held.append(generation)
    return generation


_held = []  # a generation that nobody holds is cancelled


@pytest.fixture
def setup():
    """Makes (runtime, engine, brake); checks at the end that all slots are free and in order."""
    made = []

    def make(n_seq=1, *, n_ctx=512, engine=None, brake=True, **options):
        runtime = FakeRuntime(n_seq=n_seq, n_ctx=n_ctx)
        built = fake_engine(runtime, engine=engine, **options)
        made.append((runtime, built))
        return runtime, built, Brake(runtime) if brake else None

    yield make
    for runtime, engine in made:
        if isinstance(runtime.before_decode, Brake):
            runtime.before_decode.release()
        for generation in list(engine._model.scheduler._jobs):
            generation.outbox.wait(60)
        settle(engine)
        assert_at_rest(engine)
        engine.close()
        assert runtime.closed
        assert len(runtime.threads) <= 1, "two threads were inside the runtime"
    _held.clear()


# ---- prefill and decode


def test_a_prompt_is_cut_at_fixed_multiples_and_only_its_end_asks_for_logits(setup):
    runtime, engine, _ = setup(brake=False)
    ask(engine, 150, max_tokens=1).result()
    assert runtime.steps == [[(0, 64, "none")], [(0, 64, "none")], [(0, 22, "logits")]]
    assert PREFILL_CHUNK == 64


def test_after_a_cached_prefix_chunks_end_at_the_same_multiples(setup):
    runtime, engine, _ = setup(brake=False)
    ask(engine, 70, max_tokens=1).result()
    runtime.steps.clear()
    done = ask(engine, 200, max_tokens=1).result()
    assert done.usage.cached_tokens == 70
    assert [n for [(_, n, _)] in runtime.steps] == [58, 64, 8]


def test_a_runtime_with_a_small_batch_gets_smaller_chunks():
    runtime = FakeRuntime(n_batch=16)
    with fake_engine(runtime) as engine:
        ask(engine, 40, max_tokens=1).result()
    assert [n for [(_, n, _)] in runtime.steps] == [16, 16, 8]


def test_decoding_slots_come_first_in_slot_order_and_a_prompt_joins_by_chunks(setup):
    _, engine, brake = setup(3)
    ask(engine, "a", max_tokens=8)
    ask(engine, "b", max_tokens=8)
    brake.wait()
    settled = brake.step()
    while len(settled) < 2 or any(n > 1 for _, n, _ in settled):
        settled = brake.step()
    ask(engine, 130, max_tokens=2)
    assert brake.step() == [(0, 1, "logits"), (1, 1, "logits"), (2, 64, "none")]
    assert brake.step() == [(0, 1, "logits"), (1, 1, "logits"), (2, 64, "none")]
    assert brake.step() == [(0, 1, "logits"), (1, 1, "logits"), (2, 2, "logits")]
    assert brake.step() == [(0, 1, "logits"), (1, 1, "logits"), (2, 1, "logits")]


def test_beside_a_decoding_slot_prompts_take_turns_first_come_first_served(setup):
    _, engine, brake = setup(3)
    ask(engine, "a", max_tokens=20)
    brake.wait()
    ask(engine, 100)
    ask(engine, 90)
    assert [brake.step()[1:] for _ in range(4)] == [
        [(1, 64, "none")],
        [(1, 36, "logits")],
        [(1, 1, "logits"), (2, 64, "none")],
        [(1, 1, "logits"), (2, 26, "logits")],
    ]


def test_while_nobody_decodes_all_prompts_advance_together(setup):
    _, engine, brake = setup(2)
    ask(engine, 100)
    brake.wait()
    ask(engine, 90)
    assert brake.step() == [(0, 36, "logits"), (1, 64, "none")]


def test_status_shows_what_every_slot_does(setup):
    _, engine, brake = setup(3)
    ask(engine, "a", max_tokens=20)
    brake.wait()
    ask(engine, 100)
    brake.step()
    states = [(s.state, s.cached_tokens) for s in engine.status().model.slots]
    assert states == [("decode", 2), ("prefill", 0), ("idle", 0)]
    assert (engine.status().running, engine.status().waiting) == (2, 0)


def test_a_request_gives_the_same_tokens_alone_and_in_company(setup):
    _, engine, _ = setup(4, brake=False)
    params = SamplingParams(seed=7, max_tokens=30)
    request = GenerationRequest(prompt=tuple(range(90)), params=params)
    alone = engine.submit(request).result().token_ids
    together = [engine.submit(request) for _ in range(9)]
    others = [ask(engine, 33 + i, max_tokens=20) for i in range(9)]
    assert {one.result().token_ids for one in together} == {alone}
    assert all(one.result() for one in others)


# ---- queue


def test_the_queue_is_first_come_first_served_and_bounded(setup):
    _, engine, brake = setup(engine={"max_queue": 2})
    running = ask(engine, "run")
    brake.wait()
    waiting = [ask(engine, "one"), ask(engine, "two")]
    assert (engine.status().running, engine.status().waiting) == (1, 2)
    with pytest.raises(Overloaded) as caught:
        ask(engine, "three")
    assert caught.value.queue_size == 2
    assert caught.value.retry_after_s >= 1
    order = []
    for one in (running, *waiting):
        one.add_done_callback(order.append)
    brake.release()
    assert all(one.result(60).finish_reason for one in waiting)
    settle(engine)
    assert order == [running, *waiting]
    assert ask(engine, "four").result(60)


def test_a_queue_of_zero_refuses_whoever_would_wait(setup):
    _, engine, brake = setup(2, engine={"max_queue": 0})
    two = [ask(engine, "a"), ask(engine, "b")]
    with pytest.raises(Overloaded):
        ask(engine, "c")
    brake.release()
    assert [one.result(60).finish_reason for one in two] == ["length", "length"]


def test_without_continuous_batching_a_prompt_waits_until_nobody_decodes(setup):
    runtime, engine, brake = setup(2, cont_batching=False)
    first = ask(engine, "a", max_tokens=5)
    brake.wait()
    brake.step()
    second = ask(engine, "b", max_tokens=5)
    for _ in range(3):
        assert len(brake.step()) == 1
        assert second.done() is False
    brake.release()
    assert first.result(60).slot == 0
    second.result(60)
    assert all(len(step) == 1 for step in runtime.steps)


def test_without_continuous_batching_prompts_that_came_together_run_together(setup):
    runtime, engine, brake = setup(2, cont_batching=False)
    both = [ask(engine, 100), ask(engine, 100)]
    brake.release()
    assert {one.result(60).slot for one in both} == {0, 1}
    assert any(len(step) == 2 for step in runtime.steps)


def test_with_continuous_batching_a_prompt_joins(setup):
    _, engine, brake = setup(2)
    ask(engine, "a", max_tokens=5)
    brake.wait()
    brake.step()
    ask(engine, "b", max_tokens=5)
    assert brake.step() == [(0, 1, "logits"), (1, 2, "logits")]


def test_who_waits_for_a_slot_lets_others_pass_and_gets_it_first(setup):
    _, engine, brake = setup(2)
    long = ask(engine, "a", max_tokens=9)
    brake.wait()
    pinned = ask(engine, "b", id_slot=0)
    free = ask(engine, "c", id_slot=-1)
    later = ask(engine, "d", id_slot=0)
    order = []
    for one in (long, pinned, free, later):
        one.add_done_callback(order.append)
    brake.release()
    assert [one.result(60).slot for one in (pinned, free, later)] == [0, 1, 0]
    settle(engine)
    assert order.index(free) < order.index(long) < order.index(pinned) < order.index(later)


# ---- prefix cache


def test_cached_tokens_are_exact_and_one_token_is_always_evaluated(setup):
    runtime, engine, _ = setup(brake=False)
    first = ask(engine, "hello", max_tokens=3).result()
    assert first.usage.cached_tokens == 0
    again = ask(engine, "hello", max_tokens=3).result()
    assert (again.usage.cached_tokens, again.usage.prompt_tokens) == (5, 6)
    assert again.token_ids == first.token_ids
    runtime.steps.clear()
    follow = (*first.prompt_token_ids, *first.token_ids, 1, 2)
    done = ask(engine, follow, max_tokens=1).result()
    # the last sampled token was never fed: it is evaluated with the two new ones
    assert done.usage.cached_tokens == len(first.prompt_token_ids) + 2
    assert runtime.steps == [[(0, 3, "logits")]]


@pytest.mark.parametrize("where", ["request", "options"])
def test_without_caching_everything_is_evaluated_again(setup, where):
    runtime, engine, _ = setup(brake=False, caching=where != "options")
    fields = {"cache_prompt": False} if where == "request" else {}
    ask(engine, "hello").result()
    runtime.steps.clear()
    assert ask(engine, "hello", **fields).result().usage.cached_tokens == 0
    assert runtime.steps[0] == [(0, 6, "logits")]


def test_two_conversations_keep_to_their_slots(setup):
    _, engine, _ = setup(2, brake=False)
    talks = [ask(engine, "aaaaaa").result(), ask(engine, "bbbbbb").result()]
    assert {talk.slot for talk in talks} == {0, 1}
    for _ in range(3):
        for number, talk in enumerate(talks):
            turn = ask(engine, (*talk.prompt_token_ids, *talk.token_ids, 5)).result()
            assert turn.slot == talk.slot
            assert turn.usage.cached_tokens == turn.usage.prompt_tokens - 2
            talks[number] = turn


def test_a_cancelled_generation_leaves_a_usable_record(setup):
    runtime, engine, brake = setup()
    generation = ask(engine, 130)
    brake.wait()
    brake.step()
    generation.cancel()
    brake.release()
    with pytest.raises(Cancelled):
        generation.result(60)
    settle(engine)
    assert ask(engine, 130).result().usage.cached_tokens == runtime.steps[0][0][1] * 2


def test_clear_cache_empties_idle_slots_and_names_the_busy_ones(setup):
    runtime, engine, brake = setup(2)
    brake.release()
    ask(engine, "a", id_slot=1).result()
    runtime.before_decode = again = Brake(runtime)
    busy = ask(engine, "b", id_slot=0, max_tokens=9)
    again.wait()  # the loop stands still, so the message below is still there when it is seen
    said = []
    thread = threading.Thread(target=lambda: said.append(engine.clear_cache()))
    thread.start()
    while engine._model.scheduler._inbox.empty():
        time.sleep(0.001)
    again.step()
    thread.join(60)
    assert (said[0].cleared, said[0].busy) == ((1,), (0,))
    assert runtime.length(1) == 0
    again.release()
    assert busy.result(60).finish_reason == "length"


# ---- cancellation and deadlines: queue, prefill, decode


def test_a_queued_request_that_is_cancelled_leaves_at_once(setup):
    _, engine, brake = setup(engine={"max_queue": 1})
    ask(engine, "a", max_tokens=9)
    brake.wait()
    queued = ask(engine, "b")
    queued.cancel()
    brake.step()
    with pytest.raises(Cancelled) as caught:
        queued.result(60)
    assert caught.value.partial is None
    assert engine.status().running == 1
    assert not ask(engine, "c").done()  # its place in the queue is free again


def test_a_prefill_is_cancelled_at_the_next_chunk(setup):
    runtime, engine, brake = setup(n_ctx=2000)
    generation = ask(engine, 1500)
    brake.wait()
    brake.step()
    generation.cancel()
    brake.let_go()
    with pytest.raises(Cancelled) as caught:
        generation.result(60)
    assert len(runtime.steps) == 2
    assert caught.value.partial.token_ids == ()


def test_a_decode_is_cancelled_at_the_next_step(setup):
    runtime, engine, brake = setup()
    generation = ask(engine, "a", max_tokens=100)
    brake.wait()
    brake.step()
    brake.step()
    generation.cancel()
    brake.let_go()
    with pytest.raises(Cancelled) as caught:
        generation.result(60)
    assert len(caught.value.partial.token_ids) == len(runtime.steps) == 3


def test_a_deadline_ends_a_queued_request_while_the_slot_is_busy(setup):
    runtime, engine, _ = setup(brake=False, n_ctx=5000)
    runtime.before_decode = lambda _: time.sleep(0.002)
    busy = ask(engine, "a", max_tokens=4000)
    queued = ask(engine, "b", timeout_s=0.05)
    with pytest.raises(DeadlineExceeded) as caught:
        queued.result(60)
    assert caught.value.partial is None
    assert not busy.done()
    busy.cancel()


@pytest.mark.parametrize("prompt", ["a", 1900], ids=["decode", "prefill"])
def test_a_deadline_ends_a_running_request_with_its_partial(setup, prompt):
    runtime, engine, brake = setup(n_ctx=2000)
    generation = ask(engine, prompt, max_tokens=1000, timeout_s=1000)
    brake.wait()
    brake.step()
    expire(engine)
    brake.release()
    with pytest.raises(DeadlineExceeded) as caught:
        list(generation)
    tokens = len(runtime.steps) if prompt == "a" else 0
    assert caught.value.partial.usage.completion_tokens == tokens
    assert caught.value.partial.finish_reason is None
    assert caught.value.reason == "deadline"


def test_a_very_long_deadline_is_no_trouble(setup):
    _, engine, _ = setup(brake=False)
    assert ask(engine, "a", timeout_s=1e12).result().finish_reason == "length"
    assert ask(engine, "a", timeout_s=float("inf")).result().finish_reason == "length"


def test_an_idle_loop_sleeps():
    with fake_engine(FakeRuntime()) as engine:
        ask(engine, "a", timeout_s=1000).result()
        cycles = 0
        scheduler = engine._model.scheduler
        assert scheduler._next_deadline < math.inf  # of the request that is done
        scheduler.call(lambda: setattr(scheduler, "_next_deadline", clock() + 0.2))
        inner = scheduler._cycle

        def counted():
            nonlocal cycles
            cycles += 1
            inner()

        scheduler._cycle = counted
        settle(engine)
        time.sleep(0.5)  # past the stale deadline
        assert cycles <= 4


# ---- cleaning


def chat(engine, prompt="hello chat", **fields):
    return ask(engine, prompt, kind="chat", **fields)


def test_every_fifth_chat_starts_on_an_empty_cache(setup):
    _, engine, _ = setup(2, brake=False, clean_cache_threshold=5)
    cached = [chat(engine).result().usage.cached_tokens for _ in range(11)]
    assert [number for number, n in enumerate(cached, 1) if n == 0] == [1, 5, 10]
    assert engine.status().model.cleanings == 2
    assert engine.status().model.chats_since_clean == 1


def test_completions_and_embeddings_are_not_counted(setup):
    _, engine, _ = setup(brake=False, clean_cache_threshold=2)
    ask(engine, "a").result()
    engine.embed("a")
    chat(engine).result()
    assert engine.status().model.chats_since_clean == 1
    assert engine.status().model.cleanings == 0


def test_a_due_cleaning_waits_for_running_slots_and_holds_up_those_behind(setup):
    runtime, engine, brake = setup(2, clean_cache_threshold=2)
    first = chat(engine, max_tokens=6)
    brake.wait()
    second = chat(engine)  # due: must not start while the first runs, though a slot is free
    behind = ask(engine, "zzz")
    assert len(brake.step()) == 1
    assert len(brake.step()) == 1
    assert engine.status().waiting == 2
    assert runtime.length(0) > 0
    brake.release()
    assert first.result(60).finish_reason == "length"
    assert second.result(60).usage.cached_tokens == 0
    assert behind.result(60)
    assert engine.status().model.cleanings == 1


def test_a_cleaning_whose_chat_was_cancelled_in_the_queue_falls_to_the_next_chat(setup):
    _, engine, brake = setup(clean_cache_threshold=2)
    first = chat(engine, max_tokens=6)
    brake.wait()
    second = chat(engine)
    second.cancel()
    brake.release()
    first.result(60)
    assert ask(engine, "hello").result().usage.cached_tokens > 0
    assert chat(engine).result().usage.cached_tokens == 0
    assert engine.status().model.cleanings == 1


def test_clear_cache_and_load_start_the_count_anew(setup):
    policy = CacheCleaningPolicy(3)
    _, engine, _ = setup(brake=False, engine={"cleaning": policy})
    chat(engine).result()
    chat(engine).result()
    engine.clear_cache()
    assert engine.status().model.chats_since_clean == 0
    chat(engine).result()
    assert policy.cleanings == 0


def test_cleaning_under_load_never_touches_a_running_slot(setup):
    _, engine, _ = setup(3, brake=False, clean_cache_threshold=2)
    alone = {n: ask(engine, 20 + n, max_tokens=12).result().token_ids for n in range(6)}
    requests = [(n % 6, chat(engine, 20 + n % 6, max_tokens=12)) for n in range(40)]
    for n, generation in requests:
        assert generation.result(60).token_ids == alone[n]
    assert engine.status().model.cleanings == 20


# ---- faults


def test_a_failed_sequence_ends_alone_and_the_engine_goes_on(setup):
    runtime, engine, _ = setup(2, brake=False)

    def fail_slot_1(feeds):
        if any(feed.seq == 1 for feed in feeds) and len(runtime.cells[1]) > 4:
            runtime.fail([1])

    runtime.before_decode = fail_slot_1
    sound = ask(engine, "aa", max_tokens=20, id_slot=0)
    broken = ask(engine, "bb", max_tokens=20, id_slot=1)
    with pytest.raises(BackendError, match="injected"):
        broken.result(60)
    assert sound.result(60).usage.completion_tokens == 20
    runtime.before_decode = lambda _: None
    assert ask(engine, "aa", max_tokens=20).result().token_ids == sound.result().token_ids


def test_sequences_that_were_fed_before_the_fault_keep_their_token(setup):
    runtime, engine, _ = setup(2, brake=False)
    expected = [ask(engine, p, max_tokens=10, cache_prompt=False).result().token_ids for p in "ab"]
    done = []

    def fail_late(feeds):  # slot 0 is evaluated in full, slot 1 fails
        if len(feeds) == 2 and len(runtime.cells[1]) == 5 and not done:
            done.append(True)
            runtime.fail([1])

    runtime.after_decode = fail_late
    brake = Brake(runtime)
    generations = [
        ask(engine, p, max_tokens=10, cache_prompt=False, id_slot=n) for n, p in enumerate("ab")
    ]
    brake.release()
    with pytest.raises(BackendError):
        generations[1].result(60)
    assert generations[0].result(60).token_ids == expected[0]


def test_an_error_that_names_no_sequence_ends_all_that_were_fed(setup):
    runtime, engine, _ = setup(2, brake=False)

    def fail(feeds):
        raise BackendError("all of it")

    runtime.before_decode = fail
    for one in (ask(engine, "a"), ask(engine, "b")):
        with pytest.raises(BackendError):
            one.result(60)
    runtime.before_decode = lambda _: None
    assert ask(engine, "a").result().usage.cached_tokens == 0


def test_nan_logits_are_a_backend_error_of_their_own_request(setup):
    runtime, engine, _ = setup(2, brake=False)
    inner = runtime.logits
    runtime.logits = lambda seq: inner(seq) * np.float32(np.nan if seq == 1 else 1)
    sound, broken = ask(engine, "a", id_slot=0), ask(engine, "b", id_slot=1)
    with pytest.raises(BackendError):
        broken.result(60)
    assert sound.result(60).finish_reason == "length"
    assert (runtime.length(0), runtime.length(1)) == (5, 0)  # nobody goes on from NaN


def test_an_unexpected_error_while_sampling_ends_that_request_with_its_cause(setup, caplog):
    runtime, engine, _ = setup(2, brake=False)
    inner = runtime.logits
    runtime.logits = lambda seq: inner(seq) if seq == 0 else 1 / 0
    sound, broken = ask(engine, "a", id_slot=0), ask(engine, "b", id_slot=1)
    with pytest.raises(BackendError) as caught:
        broken.result(60)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert sound.result(60).finish_reason == "length"


def test_an_unexpected_error_in_the_loop_ends_all_requests_and_the_engine_goes_on(setup, caplog):
    runtime, engine, brake = setup(engine={"max_queue": 5})
    generations = [ask(engine, "a"), ask(engine, "b"), ask(engine, "c")]
    brake.wait()

    def fault(feeds):
        raise RuntimeError("a bug")

    runtime.before_decode = fault
    brake.let_go()
    for one in generations[1:]:
        with pytest.raises(BackendError, match="a bug"):
            one.result(60)
    runtime.before_decode = lambda _: None
    settle(engine)
    assert ask(engine, "d").result(60).finish_reason == "length"


def test_a_runtime_beyond_repair_refuses_requests_until_it_is_loaded_again(caplog):
    runtime = FakeRuntime()
    engine = fake_engine(runtime)

    def broken(*_):
        raise OSError("gone")

    runtime.before_decode = runtime.keep = broken
    with pytest.raises(BackendError):
        ask(engine, "a").result(60)
    settle(engine)
    with pytest.raises(BackendError, match="load the model again"):
        ask(engine, "b")
    assert engine.status().model is not None
    assert engine.unload() is True
    assert runtime.closed
    engine._loader = lambda *_: FakeRuntime()
    engine.load("again.gguf")
    assert ask(engine, "c").result(60)
    engine.close()


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_a_request_whose_end_fails_is_ended_all_the_same(setup, end, monkeypatch, caplog):
    _, engine, brake = setup()
    generation = ask(engine, "a")
    brake.wait()
    sequence = type(engine._model.scheduler.slots[0].work)
    monkeypatch.setattr(sequence, "_completion", lambda self: 1 / 0)
    if end == "cancel":
        generation.cancel()
    brake.release()
    with pytest.raises(BackendError, match="ZeroDivisionError"):
        generation.result(60)
    monkeypatch.undo()
    settle(engine)
    assert ask(engine, "b").result(60).finish_reason == "length"


def test_a_slot_that_cannot_be_given_back_strands_nobody(setup, caplog):
    runtime, engine, brake = setup()
    handle = engine.submit_embed([[1] * 200])
    brake.wait()
    brake.step()
    keep, failures = runtime.keep, [OSError("keep failed")]

    def flaky(seq, n):
        if failures:
            raise failures.pop()
        return keep(seq, n)

    runtime.keep = flaky
    handle.cancel()
    brake.release()
    with pytest.raises(Cancelled):
        handle.result(60)
    settle(engine)
    assert ask(engine, "b").result(60).finish_reason == "length"
