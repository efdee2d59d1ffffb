"""Guesses from the text's own past: what is guessed, and that no answer shows it."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from support.fake_runtime import BOS, EOS, SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.engine.lookup import Lookup
from nitrolib.errors import Cancelled
from nitrolib.sampling import SamplingParams

PROMPT = (BOS, *b"abcdef abcdef ab")


def greedy(**changes):
    return SamplingParams(**{"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 60, **changes})


# ---- what is guessed


def test_the_tokens_after_the_last_place_that_ends_alike_are_guessed():
    lookup = Lookup(4)
    lookup.extend([1, 2, 3, 4, 5, 6, 7, 1, 2, 3])
    assert lookup.draft(9) == [4, 5, 6, 7]
    assert lookup.draft(2) == [4, 5]
    assert lookup.draft(0) == []
    lookup.extend([8, 9, 1, 2, 3])
    assert lookup.draft(9) == [8, 9, 1, 2]  # the later place


def test_three_tokens_tell_more_than_two():
    lookup = Lookup(2)
    lookup.extend([1, 2, 3, 7, 7, 9, 2, 3, 8, 8, 1, 2, 3])
    assert lookup.draft(2) == [7, 7]
    lookup.extend([5, 2, 3])
    assert lookup.draft(2) == [5, 2]  # only two are known, and their last place counts


def test_the_end_of_a_text_is_not_its_own_past():
    lookup = Lookup(4)
    lookup.extend([1, 2, 3, 4])
    assert lookup.draft(4) == []
    lookup = Lookup(4)
    assert lookup.draft(4) == []
    lookup.extend([5, 5, 5, 5])
    assert lookup.draft(4) == [5]


def test_guesses_pause_after_they_came_to_nothing_longer_each_time():
    lookup = Lookup(1)
    lookup.extend([5] * 10)
    pauses = []
    for _ in range(6):
        assert lookup.draft(1)
        lookup.judged(0)
        pauses.append(0)
        while not lookup.draft(1):
            lookup.extend([5])
            pauses[-1] += 1
    assert pauses == [1, 3, 7, 15, 16, 16]
    lookup.judged(1)
    assert lookup.draft(1)


@pytest.mark.parametrize("seed", range(20))
def test_a_guess_is_what_a_plain_search_finds(seed):
    rng = random.Random(seed)
    text = [rng.randrange(3) for _ in range(60)]
    lookup = Lookup(5)
    for end, token in enumerate(text, start=1):
        lookup.extend([token])
        assert lookup.draft(5) == plain(text[:end])


def plain(text):
    for length in (3, 2):
        for place in range(len(text) - 1, length - 1, -1):
            if len(text) >= length and text[place - length : place] == text[-length:]:
                return text[place : place + 5]
    return []


# ---- in an engine


def period(cells):
    """A model that says the same seven letters again and again."""
    return b"abcdef "[len(cells) % 7]


def hesitant(cells):
    """One that mostly repeats itself."""
    return b"abcdef xyz"[sum(cells) % 10] if len(cells) % 5 == 0 else period(cells)


def engines(choice, **fields):
    runtime = FakeRuntime(can=SHARED, **fields)
    other = FakeRuntime(n_ctx=runtime.n_ctx)
    runtime.choice = other.choice = choice
    return runtime, fake_engine(runtime, lookup=4), fake_engine(other)


def told(done):
    return done.text, done.token_ids, done.finish_reason, done.stop, done.tokens_cached, done.probs


@pytest.mark.parametrize("choice", [period, hesitant, lambda _: None])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 1.0, "seed": 5},
        {"repeat_penalty": 1.3, "temperature": 0.7, "seed": 1},
        {"mirostat": 2, "seed": 3},
        {"stop": ("f abc",)},
        {"stop": ("cdef ab", "zzz")},
        {"n_probs": 3},
        {"grammar": 'root ::= [a-c]+ "d" [a-z ]+ "."'},
        {"max_tokens": 1},
        {"max_tokens": 2},
        {"max_tokens": None},
    ],
    ids=str,
)
def test_the_answer_is_that_of_plain_decoding(choice, changes):
    runtime, engine, other = engines(choice, n_ctx=128)
    with engine, other:
        done = engine.complete(PROMPT, greedy(**changes))
        assert told(done) == told(other.complete(PROMPT, greedy(**changes)))
        assert runtime.cells[done.slot] == [*PROMPT, *done.token_ids[:-1]]
        assert_at_rest(engine)


def test_fewer_steps_are_needed_where_the_guesses_are_right():
    runtime, engine, other = engines(period)
    with engine, other:
        done = engine.complete(PROMPT, greedy())
        timings = done.timings
        assert timings.draft_n_accepted > 40
        assert timings.draft_n >= timings.draft_n_accepted
        assert len(runtime.steps) < 20
        assert any(output == "every" and n == 5 for [(_, n, output)] in runtime.steps)
        counters = engine.status().counters
        assert counters.draft_tokens == timings.draft_n
        assert counters.draft_tokens_accepted == timings.draft_n_accepted
        assert counters.drafts == sum(step[0][2] == "every" for step in runtime.steps)
        assert counters.accepted_by_position == tuple(sorted(counters.accepted_by_position)[::-1])
        assert other.complete(PROMPT, greedy()).timings.draft_n == 0


def test_an_end_token_in_the_middle_of_a_guess_ends_the_answer():
    _, engine, other = engines(lambda cells: EOS if len(cells) == 35 else period(cells))
    with engine, other:
        done = engine.complete(PROMPT, greedy())
        assert told(done) == told(other.complete(PROMPT, greedy()))
        assert done.token_ids[-1] == EOS
        assert_at_rest(engine)


def test_an_answer_that_outgrows_its_context_is_the_same():
    for n_keep in (0, 5, -1):
        _, engine, other = engines(hesitant, n_ctx=64)
        fields = {"context_policy": "shift", "n_keep": n_keep}
        with engine, other:
            done = engine.complete(PROMPT, greedy(max_tokens=200), **fields)
            assert told(done) == told(other.complete(PROMPT, greedy(max_tokens=200), **fields))
            engine.clear_cache()
            assert_at_rest(engine)


def test_a_model_that_cannot_go_back_is_fed_again_what_it_lost():
    runtime = FakeRuntime(can=("shared_batch", "rows"), recurrent=True)
    other = FakeRuntime()
    runtime.choice = other.choice = hesitant
    with fake_engine(runtime, lookup=4) as engine, fake_engine(other) as plain_engine:
        done = engine.complete(PROMPT, greedy())
        assert done.token_ids == plain_engine.complete(PROMPT, greedy()).token_ids
        assert_at_rest(engine)


def test_guesses_take_only_the_rows_and_the_room_that_are_left():
    runtime = FakeRuntime(n_seq=3, n_ctx=2048, can=SHARED)
    runtime.choice = period
    runtime.n_outputs = 5  # the fake asserts that it is kept
    with fake_engine(runtime, lookup=4) as engine:
        brake = Brake(runtime)
        running = [engine.stream((n, *PROMPT), greedy(max_tokens=200)) for n in range(2)]
        brake.wait()
        for _ in range(30):
            brake.step()
        running.append(engine.stream((7,) * 1000, greedy(max_tokens=5)))
        brake.release()
        assert all(one.result(60) for one in running)
        assert max(n for step in runtime.steps for _, n, output in step if output == "every") == 3
        assert_at_rest(engine)


def test_without_rows_nothing_is_guessed():
    runtime = FakeRuntime(can=("shared_batch",))
    runtime.choice = period
    with fake_engine(runtime, lookup=4) as engine:
        done = engine.complete(PROMPT, greedy())
        assert (done.timings.draft_n, len(done.token_ids)) == (0, 60)


@pytest.mark.parametrize("seed", range(12))
def test_any_mix_gives_the_tokens_of_each_alone(seed):
    """With faults of every kind: too few cells, interruptions, cancellations."""
    rng = random.Random(seed)
    runtime = FakeRuntime(n_seq=4, n_ctx=200, n_batch=rng.choice([6, 40]), can=SHARED, room=350)
    other = FakeRuntime(n_ctx=200)
    runtime.choice = other.choice = rng.choice([period, hesitant])

    def disturb(feeds):
        if rng.random() < 0.1:
            runtime.interrupt()

    runtime.before_decode = disturb
    options = {"lookup": 3, "shared_context": True, "ctx_len": 350}
    with fake_engine(runtime, **options) as engine, fake_engine(other) as alone:
        running = []
        for _ in range(20):
            prompt = PROMPT * rng.randrange(1, 6) + (rng.randrange(9),) * rng.randrange(1, 5)
            how = SamplingParams(
                seed=rng.randrange(99), max_tokens=rng.randrange(1, 90), stop=("d a", "zz")
            )
            policy = rng.choice(["error", "shift"])
            request = GenerationRequest(prompt=prompt, params=how, context_policy=policy)
            running.append(engine.submit(request))
            if rng.random() < 0.2:
                rng.choice(running).cancel()
        for one in running:
            with suppress(Cancelled):
                done = one.result(60)
                expected = alone.submit(one.request).result(60)
                if "no room" not in str(done.notes):
                    assert expected.token_ids == done.token_ids
        engine.clear_cache()
        assert_at_rest(engine)
