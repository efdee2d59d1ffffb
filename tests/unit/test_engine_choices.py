"""Several answers to one prompt: evaluated once, seeded in order, ended one by one."""

from __future__ import annotations

import pytest
from support.fake_runtime import Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest, Usage
from nitrolib.engine.choices import seed_of
from nitrolib.errors import Cancelled, InvalidRequest, Overloaded
from nitrolib.sampling import SamplingParams

PROMPT = tuple(i % 200 for i in range(150))


def request(seed=7, max_tokens=5, **fields):
    how = SamplingParams(temperature=1.5, seed=seed, max_tokens=max_tokens)
    return GenerationRequest(**{"prompt": PROMPT, "params": how, **fields})


def results(generations):
    return [one.result(60) for one in generations]


def prefilled(runtime):
    """Prompt tokens evaluated: all but single tokens and last parts."""
    return sum(n for step in runtime.steps for _, n, output in step if output == "none" or n > 1)


@pytest.fixture(params=[1, 3])
def runtime(request):
    return FakeRuntime(n_seq=request.param)


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def test_choice_j_is_the_answer_to_the_seed_plus_j(engine):
    choices = results(engine.submit_choices(request(), 4))
    alone = [engine.submit(request(seed=7 + j)).result(60) for j in range(4)]
    assert [one.token_ids for one in choices] == [one.token_ids for one in alone]
    assert [one.seed for one in choices] == [7, 8, 9, 10]
    assert len({one.token_ids for one in choices}) == 4


def test_a_fresh_seed_is_drawn_for_each(engine):
    choices = results(engine.submit_choices(request(seed=-1), 3))
    assert len({one.seed for one in choices}) == 3


@pytest.mark.parametrize(
    ("seed", "index", "expected"),
    [
        (7, 3, 10),
        (-1, 0, -1),
        (-1, 5, -1),
        (2**32 - 1, 1, -1),
        (-2, 1, 0),  # -1 would be a fresh draw
        (2**32 - 2, 2, 1),
        (2**33, 1, 1),
    ],
)
def test_seeds_go_past_the_one_that_means_a_fresh_draw(seed, index, expected):
    assert seed_of(seed, index) == expected


def test_the_prompt_is_evaluated_once(engine, runtime):
    choices = results(engine.submit_choices(request(), 4))
    assert prefilled(runtime) == len(PROMPT)
    assert [one.usage.cached_tokens for one in choices] == [0, 149, 149, 149]
    assert len({one.slot for one in choices}) == 1


def test_the_prompt_is_evaluated_once_without_the_cache_too(engine, runtime):
    engine.submit(request()).result(60)
    runtime.steps.clear()
    choices = results(engine.submit_choices(request(cache_prompt=False), 3))
    assert prefilled(runtime) == len(PROMPT)
    assert [one.usage.cached_tokens for one in choices] == [0, 149, 149]


def test_usage_counts_the_prompt_once(engine):
    choices = results(engine.submit_choices(request(), 3))
    assert Usage.of_choices([one.usage for one in choices]) == Usage(
        prompt_tokens=150, completion_tokens=15, cached_tokens=0
    )
    again = results(engine.submit_choices(request(), 2))
    assert Usage.of_choices([one.usage for one in again]).cached_tokens == 149


def test_one_choice_is_a_plain_request(engine):
    (only,) = engine.submit_choices(request(), 1)
    assert only.result(60).token_ids == engine.submit(request()).result(60).token_ids


@pytest.mark.parametrize("n", [0, -1, 68, True, 1.0, "2"])
def test_a_number_that_can_never_be_queued_is_refused(n):
    with fake_engine(FakeRuntime(n_seq=3)) as engine, pytest.raises(InvalidRequest) as caught:
        engine.submit_choices(request(), n)
    assert (caught.value.field, caught.value.value) == ("n", n)


def test_choices_are_queued_all_or_none(runtime):
    brake = Brake(runtime)
    with fake_engine(runtime, engine={"max_queue": 3}) as engine:
        places = runtime.n_seq + 3
        first = engine.submit(request())
        brake.wait()
        with pytest.raises(Overloaded):
            engine.submit_choices(request(), places)
        assert engine.status().waiting == 0
        rest = engine.submit_choices(request(), places - 1)
        with pytest.raises(Overloaded):
            engine.submit(request())
        brake.release()
        assert len(results([first, *rest])) == places
        assert_at_rest(engine)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_ending_one_choice_leaves_the_others(engine, runtime, gone):
    alone = [engine.submit(request(seed=7 + j)).result(60).token_ids for j in range(3)]
    engine.clear_cache()
    brake = Brake(runtime)
    generations = engine.submit_choices(request(), 3)
    brake.wait()  # the first stands before its first part
    generations[gone].cancel()
    brake.release()
    for j, generation in enumerate(generations):
        if j == gone:
            with pytest.raises(Cancelled):
                generation.result(60)
        else:
            assert generation.result(60).token_ids == alone[j]


def test_who_follows_one_that_was_cancelled_evaluates_only_the_rest(engine, runtime):
    brake = Brake(runtime)
    generations = engine.submit_choices(request(), 2)
    brake.wait()
    brake.step()  # 64 tokens are there
    generations[0].cancel()
    brake.release()
    assert generations[1].result(60).usage.cached_tokens in (64, 128)
    assert prefilled(runtime) == len(PROMPT)


def test_others_pass_choices_that_wait_for_their_slot():
    runtime = FakeRuntime(n_seq=2)
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        choices = engine.submit_choices(request(max_tokens=50), 3)
        brake.wait()
        other = engine.submit(GenerationRequest(prompt=(1, 2, 3), params=choices[0].request.params))
        brake.release()
        assert other.result(60).slot != choices[0].result(60).slot
        assert len({one.slot for one in results(choices)}) == 1
        assert_at_rest(engine)


def test_nobody_comes_between_the_choices():
    """A request behind them in the queue would take their slot's record away."""
    runtime = FakeRuntime(n_seq=1)
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        choices = engine.submit_choices(request(), 3)
        other = engine.submit(GenerationRequest(prompt=(1, 2, 3), params=choices[0].request.params))
        brake.release()
        other.result(60)
        assert [one.done() for one in choices] == [True] * 3
        assert sum(one.usage.cached_tokens == 149 for one in results(choices)) == 2


def test_choices_count_as_one_chat():
    with fake_engine(FakeRuntime(), clean_cache_threshold=3) as engine:
        results(engine.submit_choices(request(kind="chat"), 4))
        assert engine.status().model.chats_since_clean == 1


def test_choices_stay_in_the_slot_that_was_asked_for():
    for can in ((), ("copy",)):
        with fake_engine(FakeRuntime(n_seq=3, can=can)) as engine:
            choices = results(engine.submit_choices(request(id_slot=2), 3))
            assert [one.slot for one in choices] == [2, 2, 2]


# ---- a runtime that copies sequences


def test_a_runtime_that_copies_runs_choices_side_by_side():
    runtime = FakeRuntime(n_seq=3, can=("copy",))
    with fake_engine(runtime) as engine:
        alone = [engine.submit(request(seed=7 + j)).result(60).token_ids for j in range(3)]
        engine.clear_cache()
        runtime.steps.clear()
        brake = Brake(runtime)
        choices = engine.submit_choices(request(max_tokens=30), 3)
        for _ in range(3):
            brake.wait()
            brake.let_go()
        brake.wait()
        assert engine.status().running == 3  # the prompt is evaluated: all go on
        brake.release()
        assert [one.token_ids[:5] for one in results(choices)] == alone
        assert prefilled(runtime) == len(PROMPT)
        assert [n for _, _, n in runtime.copies] == [149, 149]
        assert len({one.slot for one in results(choices)}) == 3
        assert_at_rest(engine)


def test_more_choices_than_slots_take_what_gets_free():
    runtime = FakeRuntime(n_seq=2, can=("copy",))
    with fake_engine(runtime) as engine:
        choices = results(engine.submit_choices(request(), 5))
        assert len({one.token_ids for one in choices}) == 5
        assert prefilled(runtime) == len(PROMPT)
        assert_at_rest(engine)
