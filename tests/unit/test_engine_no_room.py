"""Slots that share the cells of one KV cache: who gives way when it is full, and what is told."""

from __future__ import annotations

import pytest
from support.fake_runtime import SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.errors import BackendError, Cancelled
from nitrolib.sampling import SamplingParams

NOTE = "the answer was cut: the KV cache has no room for more"


def ask(engine, prompt, max_tokens=10, first=0, **fields):
    """A request of so many prompt tokens."""
    how = SamplingParams(temperature=1, seed=5, max_tokens=max_tokens)
    tokens = (first, *(index % 250 for index in range(prompt - 1)))
    return engine.submit(GenerationRequest(prompt=tokens, params=how, **fields))


def crowded(room, n_seq=3, n_ctx=None, **options):
    """An engine whose slots have room for `room` tokens together."""
    runtime = FakeRuntime(n_seq=n_seq, n_ctx=n_ctx or room, can=SHARED, room=room)
    fields = {"shared_context": True, "ctx_len": room, **options}
    return runtime, fake_engine(runtime, **fields)


def alone(prompt, max_tokens=10, first=0):
    with fake_engine(FakeRuntime(n_ctx=4096)) as engine:
        return ask(engine, prompt, max_tokens, first).result(60)


def test_one_slot_may_hold_all_of_the_context():
    runtime, engine = crowded(200)
    with engine:
        done = ask(engine, 150, max_tokens=51).result(60)
        assert (len(done.token_ids), done.truncated) == (50, True)
        assert runtime.used() == 199


def test_idle_prefixes_go_first_the_oldest_before_all():
    runtime, engine = crowded(200)
    with engine:
        for first in (1, 2, 3):
            ask(engine, 50, 1, first).result(60)
        done = ask(engine, 120, 1, first=4).result(60)  # takes the first slot, and more
        assert done.token_ids == alone(120, 1, 4).token_ids
        assert [len(cells) for cells in runtime.cells] == [120, 0, 50]
        assert_at_rest(engine)


def test_who_came_last_is_set_back_and_goes_on_with_the_same_answer():
    runtime, engine = crowded(100)
    with engine:
        brake = Brake(runtime)
        running = [ask(engine, 20, 60, first) for first in (1, 2)]
        brake.release()
        done = [one.result(60) for one in running]
        assert [one.token_ids for one in done] == [alone(20, 60, n).token_ids for n in (1, 2)]
        assert [one.truncated for one in done] == [False, False]
        assert [one.notes for one in done] == [(), ()]
        assert_at_rest(engine)


def test_nothing_is_told_twice_of_an_answer_that_was_set_back():
    runtime, engine = crowded(100)
    with engine:
        brake = Brake(runtime)
        first = ask(engine, 20, 60, 1)
        second = ask(engine, 20, 60, 2, return_progress=True, timings_per_token=True)
        brake.release()
        chunks = list(second)
        done = second.result(60)
        assert len(runtime.steps) > 61  # it was set back
        assert "".join(chunk.text for chunk in chunks) == done.text
        assert tuple(i for chunk in chunks for i in chunk.token_ids) == done.token_ids
        told = [chunk.progress.processed for chunk in chunks if chunk.progress]
        assert told == sorted(set(told))
        assert done.timings.cache_n + done.timings.prompt_n == 20
        assert first.result(60)


def test_progress_is_told_once_of_a_prompt_that_was_set_back_half_evaluated():
    runtime, engine = crowded(200, n_seq=2, n_ctx=400, ctx_len=400)
    with engine:
        brake = Brake(runtime)
        first = ask(engine, 20, 20, 1)
        brake.wait()
        brake.step()
        second = ask(engine, 190, 3, 2, return_progress=True)
        brake.release()
        told = [chunk.progress.processed for chunk in second if chunk.progress]
        assert told == [0, 128, 190]
        assert engine.status().counters.set_back == 1
        done = second.result(60)
        assert done.token_ids == alone(190, 3, 2).token_ids
        assert (done.timings.cache_n, done.timings.prompt_n) == (0, 190)
        assert first.result(60)
        assert_at_rest(engine)


def until_set_back(engine, brake, n_running=2):
    """Let the loop run until somebody was set back: at first all run, then one waits."""
    brake.wait()
    while engine.status().running < n_running:
        brake.step()
    while not engine.status().waiting:
        brake.step()


def test_nobody_is_let_in_until_a_slot_is_given_back():
    """Else whoever was set back would take the room again, and nothing would ever be done."""
    runtime, engine = crowded(100)
    with engine:
        brake = Brake(runtime)
        first, second = ask(engine, 20, 60, 1), ask(engine, 20, 60, 2)
        until_set_back(engine, brake)
        late = ask(engine, 2, 2, 3)
        alone_from = len(runtime.steps)
        brake.release()
        slot = first.result(60).slot
        assert second.result(60)
        assert late.result(60)
        steps = runtime.steps[alone_from:]
        until = next(n for n, step in enumerate(steps) if [slot] != [seq for seq, _, _ in step])
        assert until > 5
        assert first.result().usage.completion_tokens == 60
        # from then on the first is done, and whoever was set back is evaluated again
        assert next(n for _, n, _ in steps[until]) > 20
        assert_at_rest(engine)


def test_a_prompt_waits_until_it_fits_beside_what_runs():
    runtime, engine = crowded(200)
    with engine:
        brake = Brake(runtime)
        first = ask(engine, 120, 20, 1)
        brake.wait()
        second = ask(engine, 120, 2, 2)
        brake.step()
        assert (engine.status().running, engine.status().waiting) == (1, 1)
        brake.release()
        assert second.result(60).token_ids == alone(120, 2, 2).token_ids
        assert first.result(60)
        assert max(len(step) for step in runtime.steps) == 1


def test_prompts_that_share_their_beginning_fit_together():
    runtime, engine = crowded(300, n_seq=4)
    with engine:
        brake = Brake(runtime)
        how = SamplingParams(temperature=0, max_tokens=3)
        prompts = [(*range(200), n, n) for n in range(4)]
        running = [engine.submit(GenerationRequest(prompt=one, params=how)) for one in prompts]
        brake.wait()
        brake.step()
        assert engine.status().running == 4
        brake.release()
        assert [one.result(60).usage.cached_tokens for one in running] == [0, 200, 200, 200]


def test_one_that_runs_alone_ends_with_what_it_has():
    _, engine = crowded(50, n_seq=2, n_ctx=100, ctx_len=100)
    with engine:
        done = ask(engine, 30, 90).result(60)
        assert (done.finish_reason, done.truncated, done.notes) == ("length", True, (NOTE,))
        assert done.token_ids == alone(30, 90).token_ids[: len(done.token_ids)]
        assert len(done.token_ids) == 50 - 30 + 1
        assert_at_rest(engine)


def test_a_prompt_that_finds_no_room_alone_ends_without_an_answer():
    _, engine = crowded(50, n_seq=2, n_ctx=100, ctx_len=100)
    with engine:
        done = ask(engine, 80).result(60)
        assert (done.finish_reason, done.text, done.notes) == ("length", "", (NOTE,))
        assert ask(engine, 20).result(60).notes == ()
        assert_at_rest(engine)


def test_an_embedding_that_finds_no_room_alone_fails():
    runtime = FakeRuntime(n_seq=2, n_ctx=100, room=30, can=("shared_batch",))
    with fake_engine(runtime) as engine:
        with pytest.raises(BackendError, match="cells"):
            engine.embed([[1] * 60])
        assert len(engine.embed([[1] * 20] * 5).vectors) == 5
        assert_at_rest(engine)


def test_one_that_was_set_back_can_be_cancelled_and_has_what_it_said():
    runtime, engine = crowded(100)
    with engine:
        brake = Brake(runtime)
        first, second = ask(engine, 20, 60, 1), ask(engine, 20, 60, 2)
        until_set_back(engine, brake)
        second.cancel()
        brake.release()
        with pytest.raises(Cancelled) as caught:
            second.result(60)
        assert len(caught.value.partial.token_ids) > 20
        assert first.result(60)
        assert_at_rest(engine)


def test_a_shift_and_a_full_cache_go_together():
    _, engine = crowded(100, n_seq=2)
    with engine:
        done = [ask(engine, 10, 300, n, context_policy="shift") for n in (1, 2)]
        with fake_engine(FakeRuntime(n_ctx=100)) as other:
            for n, one in zip((1, 2), done, strict=True):
                expected = ask(other, 10, 300, n, context_policy="shift").result(60)
                assert one.result(60).token_ids == expected.token_ids
        assert_at_rest(engine)
