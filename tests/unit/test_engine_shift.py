"""A full context that makes room: what goes, what stays, what is evaluated again and told."""

from __future__ import annotations

import pytest
from support.fake_runtime import (
    BOS,
    EOS,
    Brake,
    FakeRuntime,
    assert_at_rest,
    expire,
    fake_engine,
)

from nitrolib.engine import GenerationRequest
from nitrolib.engine.room import Discard, plan_shift
from nitrolib.errors import (
    BackendError,
    Cancelled,
    ContextOverflow,
    DeadlineExceeded,
    InvalidRequest,
)
from nitrolib.sampling import SamplingParams

PROMPT = (BOS, *range(10))


@pytest.fixture(
    params=[(), ("shift",), ("repeat",), ("shift", "repeat")],
    ids=["evaluates", "moves", "repeats, evaluates", "repeats, moves"],
)
def runtime(request):
    return FakeRuntime(n_ctx=256, can=request.param)


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def greedy(**changes):
    return SamplingParams(**{"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 300, **changes})


def shifted(engine, params=None, prompt=PROMPT, **fields):
    return engine.complete(prompt, params or greedy(), context_policy="shift", **fields)


# ---- the numbers


@pytest.mark.parametrize(
    ("n_keep", "keep", "discard", "cached"),
    [(0, 1, 127, 183), (5, 6, 124, 186), (-1, 12, 121, 189)],
)
def test_the_numbers_are_those_of_the_reference_server(
    engine, runtime, n_keep, keep, discard, cached
):
    """A context of 256, a prompt of 11 tokens, 300 generated."""
    done = shifted(engine, n_keep=n_keep)
    assert len(done.token_ids) == 300
    assert done.tokens_cached == cached
    assert (done.truncated, done.finish_reason) == (True, "length")
    said = [*PROMPT, *done.token_ids[:-1]]
    if runtime.shifts:
        assert runtime.shifts == [(keep, keep + discard)]
    else:
        assert runtime.cells[0] == said[:keep] + said[keep + discard :]


@pytest.mark.parametrize(
    ("held", "n_ctx", "prompt", "n_keep", "add_bos", "expected"),
    [
        (255, 256, 11, 0, True, Discard(1, 128)),
        (255, 256, 11, 0, False, Discard(0, 127)),
        (255, 256, 250, -1, True, Discard(251, 253)),
        (255, 256, 254, -1, True, Discard(252, 253)),  # capped at all but four
        (255, 256, 11, 10_000, True, Discard(252, 253)),
        (1, 2, 1, 0, True, None),
        (2, 3, 1, 0, False, Discard(0, 1)),
    ],
)
def test_what_is_kept_and_what_goes(held, n_ctx, prompt, n_keep, add_bos, expected):
    assert plan_shift(held, n_ctx, prompt, n_keep, add_bos=add_bos) == expected


# ---- going on


def test_it_goes_on_from_what_was_kept(runtime):
    """The fake's logits depend on every token held: a fresh engine given the kept tokens as a
    prompt says the same."""
    with fake_engine(runtime) as engine:
        done = shifted(engine)
    whole = [*PROMPT, *done.token_ids]
    kept = tuple(whole[:1] + whole[128:256])  # 245 sampled tokens fill it; the last was not fed yet
    with fake_engine(FakeRuntime(n_ctx=256)) as engine:
        again = engine.complete(kept, greedy(max_tokens=55))
    assert again.token_ids == done.token_ids[245:]


def test_it_shifts_as_often_as_it_must(engine, runtime):
    done = shifted(engine, greedy(max_tokens=1000))
    assert len(done.token_ids) == 1000
    # 245 until it is full, then 127 and more halves of what is not kept
    assert done.tokens_cached == 11 + 999 - 6 * 127
    (note,) = done.notes
    assert "(shifts: 6): 762 tokens after the first 1 were dropped" in note
    assert ("762 evaluated again" in note) == (not runtime.shifts)


def test_no_shift_when_the_last_token_fills_the_context(engine, runtime):
    done = shifted(engine, greedy(max_tokens=245))
    assert (len(done.token_ids), done.truncated, done.notes) == (245, False, ())
    assert shifted(engine, greedy(max_tokens=246)).truncated


def test_a_prompt_longer_than_what_is_left_of_it_goes_on(engine, runtime):
    done = shifted(engine, greedy(max_tokens=96), prompt=tuple(i % 250 for i in range(226)))
    assert (len(done.token_ids), done.truncated) == (96, True)
    assert done.usage.prompt_tokens == 226
    assert len(done.prompt_token_ids) == 226


def test_without_max_tokens_it_goes_on_until_the_model_ends(engine, runtime):
    runtime.script = {200: EOS}
    request = GenerationRequest(prompt=PROMPT, params=greedy(max_tokens=None))
    assert engine.submit(request).result(60).finish_reason == "stop"
    runtime.script = {}
    endless = engine.stream(PROMPT, greedy(max_tokens=None), context_policy="shift")
    assert sum(len(chunk.token_ids) for chunk, _ in zip(endless, range(1000), strict=False)) >= 1000
    endless.cancel()
    with pytest.raises(Cancelled):
        endless.result(60)
    engine.clear_cache()


def test_by_default_nothing_shifts(engine):
    done = engine.complete(PROMPT, greedy())
    assert (len(done.token_ids), done.truncated, done.tokens_cached) == (245, True, 255)


def test_a_context_too_small_to_shift_ends():
    with fake_engine(FakeRuntime(n_ctx=2)) as engine:
        done = shifted(engine, prompt=(5,))
        assert (len(done.token_ids), done.finish_reason, done.truncated) == (1, "length", True)
    with fake_engine(FakeRuntime(n_ctx=4)) as engine:
        assert len(shifted(engine, prompt=(5,)).token_ids) == 300


def test_a_prompt_that_does_not_fit_is_refused_all_the_same(engine):
    with pytest.raises(ContextOverflow):
        shifted(engine, prompt=(5,) * 256)


@pytest.mark.parametrize(
    ("field", "value"),
    [("context_policy", "drop"), ("n_keep", -2), ("n_keep", 1.0), ("n_keep", True)],
)
def test_bad_values_are_refused(engine, field, value):
    with pytest.raises(InvalidRequest) as caught:
        engine.stream(PROMPT, greedy(), **{field: value})
    assert (caught.value.field, caught.value.value) == (field, value)


def test_a_chat_may_shift(engine):
    request = engine.chat_request([{"role": "user", "content": "Hi"}], context_policy="shift")
    assert request.context_policy == "shift"


# ---- the record, company, every other end


def test_the_record_of_an_evaluated_shift_serves_and_one_that_was_moved_does_not(runtime):
    with fake_engine(runtime) as engine:
        done = shifted(engine)
        held = list(runtime.cells[0])
        moved = bool(runtime.shifts)
        assert len(held) == (0 if moved else done.tokens_cached)
        again = engine.complete((*(held or PROMPT), 5), greedy(max_tokens=3))
        assert again.usage.cached_tokens == (0 if moved else len(held))


def test_shifting_beside_others_changes_nothing_for_anybody():
    alone = {}
    with fake_engine(FakeRuntime(n_ctx=128)) as engine:
        for first in range(3):
            alone[first] = shifted(engine, prompt=(first, *PROMPT)).token_ids
    with fake_engine(FakeRuntime(n_seq=3, n_ctx=128)) as engine:
        running = {
            first: engine.stream((first, *PROMPT), greedy(), context_policy="shift")
            for first in range(3)
        }
        assert {first: one.result(60).token_ids for first, one in running.items()} == alone
        assert_at_rest(engine)


def reevaluating():
    """An engine that stands in the middle of evaluating again what a shift left."""
    runtime = FakeRuntime(n_ctx=256)
    engine = fake_engine(runtime)
    brake = Brake(runtime)
    generation = engine.stream(PROMPT, greedy(), context_policy="shift", timeout_s=1000)
    feeds = brake.wait()
    for _ in range(1000):
        if len(runtime.cells[0]) > 200:
            break
        feeds = brake.step()
    while feeds[0][1] == 1:
        feeds = brake.step()
    brake.step()
    return runtime, engine, brake, generation


def test_it_is_evaluated_again_in_parts_and_shown_as_such():
    runtime, engine, brake, generation = reevaluating()
    assert engine.status().model.slots[0].state == "prefill"
    brake.release()
    generation.result(60)
    engine.close()
    parts = [step[0][1:] for step in runtime.steps]
    at = parts.index((63, "none"))  # from position 1, cut at multiples of 64
    assert parts[at : at + 3] == [(63, "none"), (64, "none"), (1, "logits")]


def test_it_can_be_cancelled_in_the_middle_of_that():
    _, engine, brake, generation = reevaluating()
    generation.cancel()
    brake.release()
    with pytest.raises(Cancelled) as caught:
        generation.result(60)
    assert len(caught.value.partial.token_ids) == 245
    assert caught.value.partial.truncated
    engine.clear_cache()
    assert_at_rest(engine)
    engine.close()


def test_its_deadline_is_kept_in_the_middle_of_that():
    _, engine, brake, generation = reevaluating()
    expire(engine)
    brake.release()
    with pytest.raises(DeadlineExceeded):
        generation.result(60)
    engine.close()


def test_a_failure_in_the_middle_of_that_ends_this_request_alone():
    runtime, engine, brake, generation = reevaluating()
    runtime.before_decode = lambda feeds: runtime.fail([0]) if not generation.done() else None
    brake.release()  # only now, or the answer could be whole before
    with pytest.raises(BackendError):
        generation.result(60)
    assert engine.complete(PROMPT, greedy(max_tokens=3)).finish_reason == "length"
    engine.close()


def test_progress_tells_of_the_prompt_alone(engine):
    generation = engine.stream(PROMPT, greedy(), context_policy="shift", return_progress=True)
    told = [chunk.progress.processed for chunk in generation if chunk.progress]
    assert told == [0, 11]
    assert generation.result().timings.prompt_n == 11
