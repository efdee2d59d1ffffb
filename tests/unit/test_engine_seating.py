"""Prefixes between slots: what any of them holds, or is evaluating now, is evaluated once."""

from __future__ import annotations

import time

import pytest
from support.fake_runtime import SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.engine.job import clock
from nitrolib.engine.seating import WORTH_COPYING
from nitrolib.errors import BackendError, Cancelled
from nitrolib.sampling import SamplingParams

SYSTEM = tuple(index * 7 % 251 for index in range(2000))
N_SEQ = 8


def ask(engine, prompt, max_tokens=3, **fields):
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=max_tokens)
    return engine.submit(GenerationRequest(prompt=tuple(prompt), params=how, **fields))


def evaluated(runtime):
    """Prompt tokens that were evaluated."""
    return sum(n for step in runtime.steps for _, n, output in step if output == "none" or n > 1)


@pytest.fixture
def runtime():
    return FakeRuntime(n_seq=N_SEQ, n_ctx=4096, can=SHARED)


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def alone(prompt, max_tokens=3):
    with fake_engine(FakeRuntime(n_ctx=4096)) as engine:
        return ask(engine, prompt, max_tokens).result(60).token_ids


def test_eight_clients_with_one_system_prompt_evaluate_it_once(engine, runtime):
    questions = [(*SYSTEM, n, n, n) for n in range(8)]
    brake = Brake(runtime)
    running = [ask(engine, questions[0])]
    brake.wait()
    running += [ask(engine, question) for question in questions[1:]]
    brake.release()
    done = [one.result(60) for one in running]
    assert evaluated(runtime) == 2000 + 8 * 3
    assert [one.usage.cached_tokens for one in done] == [0] + [2000] * 7
    assert [one.timings.prompt_n for one in done] == [2003] + [3] * 7
    assert [one.token_ids for one in done] == [alone(question) for question in questions]


def test_the_same_prompt_eight_times_is_evaluated_once_but_for_its_last_token(engine, runtime):
    brake = Brake(runtime)
    running = [ask(engine, SYSTEM) for _ in range(8)]
    brake.wait()
    brake.release()
    assert [one.result(60).usage.cached_tokens for one in running] == [0] + [1999] * 7
    assert evaluated(runtime) == 2000


def test_who_waits_for_a_prefix_has_a_slot_and_is_shown_in_prefill(engine, runtime):
    brake = Brake(runtime)
    first = ask(engine, (*SYSTEM, 1))
    brake.wait()
    second = ask(engine, (*SYSTEM, 2))
    assert len(brake.step()) == 1
    assert [slot.state for slot in engine.status().model.slots][:2] == ["prefill", "prefill"]
    assert (engine.status().running, engine.status().waiting) == (2, 0)
    brake.release()
    assert first.result(60).slot != second.result(60).slot


def test_a_short_common_beginning_is_not_waited_for(engine, runtime):
    brake = Brake(runtime)
    first = ask(engine, (*SYSTEM[: WORTH_COPYING - 1], *[1] * 900))
    brake.wait()
    second = ask(engine, (*SYSTEM[: WORTH_COPYING - 1], *[2] * 900))
    assert [seq for seq, _, _ in brake.step()] == [0, 1]
    brake.release()
    assert first.result(60)
    assert second.result(60).usage.cached_tokens == 0


def test_what_a_busy_slot_holds_is_copied(engine, runtime):
    brake = Brake(runtime)
    first = ask(engine, SYSTEM[:100], max_tokens=30)
    brake.wait()
    brake.step()
    second = ask(engine, (*SYSTEM[:100], 5))
    brake.release()
    assert second.result(60).usage.cached_tokens == 100
    assert runtime.copies == [(0, 1, 100)]
    assert second.result().token_ids == alone((*SYSTEM[:100], 5))
    assert first.result(60).token_ids == alone(SYSTEM[:100], 30)


def test_a_conversation_goes_on_in_its_slot_without_a_copy(engine, runtime):
    turn = ask(engine, SYSTEM[:50]).result(60)
    for _ in range(3):
        prompt = (*turn.prompt_token_ids, *turn.token_ids, 9)
        turn = ask(engine, prompt).result(60)
        assert (turn.slot, turn.usage.cached_tokens) == (0, len(prompt) - 2)
    assert runtime.copies == []


def test_another_conversation_copies_what_it_shares_and_leaves_the_first_whole(engine, runtime):
    first = ask(engine, SYSTEM[:300]).result(60)
    second = ask(engine, (*SYSTEM[:200], 5)).result(60)
    assert (first.slot, second.slot, second.usage.cached_tokens) == (0, 1, 200)
    again = ask(engine, (*SYSTEM[:300], 5)).result(60)
    assert (again.slot, again.usage.cached_tokens) == (0, 300)


def test_a_prompt_asked_again_takes_its_own_slot_not_that_of_another(runtime):
    runtime = FakeRuntime(n_seq=2, n_ctx=4096, can=SHARED)
    with fake_engine(runtime) as engine:
        first = ask(engine, SYSTEM[:300], max_tokens=80).result(60)
        second = ask(engine, SYSTEM[1:300], max_tokens=80).result(60)
        for one in (second, first, second):
            again = ask(engine, one.prompt_token_ids, max_tokens=80).result(60)
            assert again.slot == one.slot
            assert again.usage.cached_tokens == len(one.prompt_token_ids) - 1
        assert runtime.copies == []


def test_without_an_empty_slot_the_one_goes_that_loses_less(runtime):
    runtime = FakeRuntime(n_seq=2, n_ctx=4096, can=SHARED)
    with fake_engine(runtime) as engine:
        long = ask(engine, SYSTEM[:900]).result(60)
        short = ask(engine, (*SYSTEM[:300], *[1] * 100)).result(60)
        fork = ask(engine, (*SYSTEM[:900], 5)).result(60)
        assert fork.slot == long.slot
        fork = ask(engine, (*SYSTEM[:500], 5)).result(60)
        assert (fork.slot, fork.usage.cached_tokens) == (short.slot, 500)


def test_without_the_cache_nothing_is_copied_and_nobody_is_waited_for(engine, runtime):
    ask(engine, SYSTEM[:300]).result(60)
    brake = Brake(runtime)
    running = [ask(engine, SYSTEM[:300], cache_prompt=False) for _ in range(2)]
    brake.wait()
    brake.release()
    assert [one.result(60).usage.cached_tokens for one in running] == [0, 0]
    assert runtime.copies == []


def test_a_pinned_request_copies_into_its_slot(engine, runtime):
    ask(engine, SYSTEM[:300]).result(60)
    pinned = ask(engine, (*SYSTEM[:300], 5), id_slot=6).result(60)
    assert (pinned.slot, pinned.usage.cached_tokens) == (6, 300)


def follow(engine, runtime, followers=3):
    """A leader that stands in the middle of its prompt, and who waits for it."""
    brake = Brake(runtime)
    leader = ask(engine, (*SYSTEM, 0))
    brake.wait()
    others = [ask(engine, (*SYSTEM, n)) for n in range(1, followers + 1)]
    brake.step()
    brake.step()
    return brake, leader, others


def test_when_the_leader_is_cancelled_the_next_goes_on_from_what_it_had(engine, runtime):
    brake, leader, others = follow(engine, runtime)
    leader.cancel()
    brake.release()
    done = [one.result(60) for one in others]
    assert evaluated(runtime) == 2001  # and single tokens
    assert done[0].usage.cached_tokens in (1024, 1536)
    assert [one.usage.cached_tokens for one in done[1:]] == [2000, 2000]
    assert [one.token_ids for one in done] == [alone((*SYSTEM, n)) for n in (1, 2, 3)]
    with pytest.raises(Cancelled):
        leader.result(60)


def test_when_the_leader_fails_the_next_evaluates_the_prefix_for_all(engine, runtime):
    brake, leader, others = follow(engine, runtime)
    failures = [0]

    def fail(feeds):
        if failures:
            runtime.fail([failures.pop()])

    runtime.before_decode = fail
    brake.release()
    with pytest.raises(BackendError):
        leader.result(60)
    assert [one.result(60).usage.cached_tokens for one in others] == [0, 2000, 2000]


def test_who_waits_can_be_cancelled(engine, runtime):
    brake, leader, others = follow(engine, runtime)
    others[1].cancel()
    brake.release()
    with pytest.raises(Cancelled) as caught:
        others[1].result(60)
    assert caught.value.partial is None  # nothing ran
    assert leader.result(60)
    assert others[2].result(60).usage.cached_tokens == 2000


def test_waiting_for_a_prefix_counts_as_waiting_not_as_evaluating(engine, runtime):
    brake, leader, (other,) = follow(engine, runtime, followers=1)
    begin = clock()
    time.sleep(0.05)
    held = clock() - begin  # the leader stands in its prompt, the other waits for it
    brake.release()
    assert leader.result(60).timings.prefill_s >= held
    assert other.result(60).timings.queue_s >= held


def test_progress_of_one_that_waited_begins_with_what_was_copied(engine, runtime):
    brake = Brake(runtime)
    leader = ask(engine, (*SYSTEM, 0))
    brake.wait()
    other = ask(engine, (*SYSTEM, 1, 2), return_progress=True)
    brake.release()
    told = [chunk.progress for chunk in other if chunk.progress]
    assert [(one.cached, one.processed) for one in told] == [(2000, 2000), (2000, 2002)]
    assert leader.result(60)


def test_choices_and_other_requests_with_one_beginning_evaluate_it_once(engine, runtime):
    brake = Brake(runtime)
    first = ask(engine, (*SYSTEM, 0))
    brake.wait()
    how = SamplingParams(temperature=1.5, seed=3, max_tokens=3)
    request = GenerationRequest(prompt=(*SYSTEM, 1, 2), params=how)
    choices = engine.submit_choices(request, 3)
    brake.release()
    assert [one.result(60).usage.cached_tokens for one in choices] == [2000, 2001, 2001]
    assert first.result(60)
    assert evaluated(runtime) == 2001 + 2


def test_a_slot_whose_tokens_were_moved_serves_nobody(runtime):
    runtime = FakeRuntime(n_seq=2, n_ctx=256, can=SHARED)
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        long = ask(engine, SYSTEM[:100], max_tokens=400, context_policy="shift", n_keep=-1)
        brake.wait()
        while not runtime.shifts:
            brake.step()
        second = ask(engine, SYSTEM[:100])
        brake.release()
        assert second.result(60).usage.cached_tokens == 0
        assert long.result(60)
        assert_at_rest(engine)


def test_a_runtime_without_copies_keeps_to_idle_slots():
    runtime = FakeRuntime(n_seq=2, n_ctx=4096, can=("shared_batch",))
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        running = [ask(engine, (*SYSTEM, n)) for n in range(2)]
        brake.wait()
        brake.release()
        assert [one.result(60).usage.cached_tokens for one in running] == [0, 0]
