"""Slots that share one evaluation: what a step holds, and how long anybody waits for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_runtime import SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.engine.planning import BESIDE_DECODES, share
from nitrolib.sampling import SamplingParams


def ask(engine, prompt, *, max_tokens=4, first=0, **fields):
    """A greedy request with a prompt of so many tokens, unlike that of another `first`."""
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=max_tokens)
    tokens = (first, *(index % 250 for index in range(prompt - 1)))
    return engine.submit(GenerationRequest(prompt=tokens, params=how, **fields))


@pytest.fixture
def setup():
    made = []

    def make(n_seq=1, *, n_ctx=4096, brake=True, n_batch=512, **options):
        runtime = FakeRuntime(n_seq=n_seq, n_ctx=n_ctx, n_batch=n_batch, can=SHARED)
        engine = fake_engine(runtime, **options)
        made.append((runtime, engine))
        return runtime, engine, Brake(runtime) if brake else None

    yield make
    for runtime, engine in made:
        if isinstance(runtime.before_decode, Brake):
            runtime.before_decode.release()
        for job in list(engine._model.scheduler._jobs):
            job.outbox.wait(60)
        engine._model.scheduler.call(lambda: None)
        assert_at_rest(engine)
        engine.close()


def test_while_nobody_decodes_a_prompt_fills_the_batch(setup):
    runtime, engine, _ = setup(brake=False)
    ask(engine, 1100, max_tokens=1).result(60)
    assert runtime.steps == [[(0, 512, "none")], [(0, 512, "none")], [(0, 76, "logits")]]


def test_decoding_slots_come_first_in_slot_order_and_a_prompt_takes_the_rest(setup):
    _, engine, brake = setup(3)
    held = [ask(engine, 3, first=n, max_tokens=9) for n in range(2)]
    brake.wait()
    while brake.step() != [(0, 1, "logits"), (1, 1, "logits")]:
        pass
    held.append(ask(engine, 300, first=7, max_tokens=2))
    decodes = [(0, 1, "logits"), (1, 1, "logits")]
    assert brake.step() == [*decodes, (2, BESIDE_DECODES, "none")]
    assert brake.step() == [*decodes, (2, BESIDE_DECODES, "none")]
    assert brake.step() == [*decodes, (2, 300 - 2 * BESIDE_DECODES, "logits")]
    assert brake.step() == [*decodes, (2, 1, "logits")]
    brake.release()
    assert all(one.result(60) for one in held)


def test_a_decode_beside_a_long_prompt_never_waits_longer_than_one_part(setup):
    runtime, engine, brake = setup(2)
    talk = ask(engine, 3, max_tokens=60)
    brake.wait()
    brake.step()
    other = ask(engine, 2000, first=7, max_tokens=1)
    brake.release()
    other.result(60)
    talk.result(60)
    beside = [step for step in runtime.steps if any(seq == 1 for seq, _, _ in step)]
    assert len(beside) == -(-2000 // BESIDE_DECODES)
    assert all(step[0] == (0, 1, "logits") and len(step) == 2 for step in beside)


def test_prompts_share_the_room_in_the_order_of_admission(setup):
    _, engine, brake = setup(4)
    talk = ask(engine, 3, max_tokens=40)
    brake.wait()
    held = [ask(engine, n, first=n, max_tokens=1) for n in (200, 20, 201)]
    assert brake.step() == [
        (0, 1, "logits"), (1, 54, "none"), (2, 20, "logits"), (3, 54, "none"),
    ]  # fmt: skip
    assert brake.step() == [(0, 1, "logits"), (1, 64, "none"), (3, 64, "none")]
    brake.release()
    assert all(one.result(60) for one in [talk, *held])


def test_prompts_share_a_whole_batch_while_nobody_decodes(setup):
    _, engine, brake = setup(2, n_batch=100)
    held = [ask(engine, 80, first=1)]
    brake.wait()
    held.append(ask(engine, 90, first=2))
    brake.let_go()
    assert brake.wait() == [(0, 1, "logits"), (1, 90, "logits")]
    brake.release()
    assert all(one.result(60) for one in held)


def test_a_step_never_holds_more_than_the_batch(setup):
    runtime, engine, _ = setup(4, n_batch=10, brake=False)
    held = [ask(engine, 30, first=n) for n in range(6)]
    assert all(one.result(60) for one in held)
    assert max(sum(n for _, n, _ in step) for step in runtime.steps) == 10


def test_who_gets_no_part_of_a_small_batch_waits_and_the_others_get_theirs(setup):
    _, engine, brake = setup(2, n_batch=1)
    held = [ask(engine, 30, first=1, max_tokens=1)]
    brake.wait()
    held.append(ask(engine, 2, first=2, max_tokens=1))
    assert [brake.step() for _ in range(3)] == [
        [(1, 1, "none")], [(1, 1, "logits")], [(0, 1, "none")],
    ]  # fmt: skip
    brake.release()
    assert all(one.result(60) for one in held)


def test_slots_take_turns_where_a_batch_holds_fewer_than_decode(setup):
    runtime, engine, _ = setup(5, n_batch=2, brake=False)
    held = [ask(engine, 2, first=n, max_tokens=20) for n in range(5)]
    assert all(len(one.result(60).token_ids) == 20 for one in held)
    assert all(len(step) <= 2 for step in runtime.steps)


def test_without_continuous_batching_a_prompt_waits_until_nobody_decodes(setup):
    _, engine, brake = setup(2, cont_batching=False)
    first = ask(engine, 3, max_tokens=5)
    brake.wait()
    brake.step()
    second = ask(engine, 3, first=9)
    assert [brake.step() for _ in range(3)] == [[(0, 1, "logits")]] * 3
    brake.release()
    assert first.result(60)
    assert second.result(60)


def test_requests_give_the_same_tokens_alone_and_in_company(setup):
    _, engine, _ = setup(4, brake=False)
    alone = {n: ask(engine, 90 + n, first=n, max_tokens=20).result(60).token_ids for n in range(6)}
    together = {n: ask(engine, 90 + n, first=n, max_tokens=20) for n in (5, 1, 3, 0, 4, 2)}
    assert {n: one.result(60).token_ids for n, one in together.items()} == alone


@given(st.integers(0, 600), st.lists(st.integers(1, 300), max_size=9))
def test_room_is_shared_fairly_and_whole(room, needs):
    parts = share(room, needs)
    assert sum(parts) == min(room, sum(needs))
    for part, need in zip(parts, needs, strict=True):
        assert 0 <= part <= need
        assert part == need or part + 1 >= max(parts)  # who wants more has no less than others


@pytest.mark.parametrize(
    ("room", "needs", "parts"),
    [(128, [500, 500, 500], [43, 43, 42]), (2, [9, 9, 9], [1, 1, 0]), (10, [2, 9], [2, 8])],
)
def test_what_cannot_be_divided_goes_to_who_came_first(room, needs, parts):
    assert share(room, needs) == parts
