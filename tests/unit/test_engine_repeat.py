"""Steps that are alike: while nothing else is to be done every slot goes on by one token."""

from __future__ import annotations

import threading

import pytest
from support.fake_runtime import EOS, SHARED, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.errors import BackendError, Cancelled, DeadlineExceeded
from nitrolib.sampling import SamplingParams


def ask(engine, first=0, *, max_tokens=40, **fields):
    params = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=max_tokens)
    return engine.submit(GenerationRequest(prompt=(first, 1, 2), params=params, **fields))


def _length(generation):
    return sum(len(chunk.token_ids) for chunk in _read(generation))


def _read(generation):
    try:
        yield from generation
    except BackendError:
        return


class Counted(FakeRuntime):
    """Counts what it is asked to repeat, and runs `before_repeat` with the count before each."""

    def __init__(self, **fields):
        super().__init__(can=SHARED, **fields)
        self.repeats = 0
        self.before_repeat = lambda _: None

    def repeat(self, tokens):
        self.repeats += 1
        self.before_repeat(self.repeats)
        return super().repeat(tokens)


def answers(n_seq, *, repeat=True, **fields):
    without = () if repeat else ("repeat",)
    with fake_engine(FakeRuntime(n_seq=n_seq, can=SHARED, without=without)) as engine:
        running = [ask(engine, n, max_tokens=10 + 3 * n, **fields) for n in range(n_seq)]
        return [one.result(60).token_ids for one in running]


@pytest.mark.parametrize("n_seq", [1, 2, 5])
def test_the_tokens_are_those_of_whole_turns(n_seq):
    assert answers(n_seq) == answers(n_seq, repeat=False)


def test_one_answer_is_two_whole_turns_and_the_rest_alike():
    runtime = Counted()
    with fake_engine(runtime) as engine:
        done = ask(engine).result(60)
        assert len(done.token_ids) == 40
        assert runtime.repeats == 38  # but for the prompt and the first token that was fed
        assert engine.status().counters.decodes == 40
        assert engine.status().counters.busy_slots == 40
        assert done.tokens_cached == 42
        assert_at_rest(engine)


def test_a_request_that_comes_is_let_in_at_the_next_step():
    runtime, joined = Counted(n_seq=2), []
    with fake_engine(runtime) as engine:

        def join(count):
            if count == 5:
                joined.append(ask(engine, 9))

        runtime.before_repeat = join
        first = ask(engine).result(60)
        second = joined[0].result(60)
        fed = [len(step) for step in runtime.steps]
        assert fed.index(2) == 7  # the prompt, a token, five that were alike: then both
        assert len(first.token_ids) == len(second.token_ids) == 40
        assert_at_rest(engine)


def test_who_ends_leaves_and_the_others_go_on_alike():
    runtime = Counted(n_seq=3, script={10: EOS})
    runtime.choice = lambda cells: EOS if cells[0] == 1 and len(cells) == 12 else None
    with fake_engine(runtime) as engine:
        running = [ask(engine, n) for n in range(3)]
        lengths = [len(one.result(60).token_ids) for one in running]
        assert lengths == [40, 10, 40]
        assert runtime.repeats > 30
        assert_at_rest(engine)


def test_cancelling_ends_it_at_the_next_step():
    runtime, held = Counted(n_seq=2), []
    with fake_engine(runtime) as engine:

        def cancel(count):
            if count == 5:
                held[0].cancel()

        go = threading.Event()
        runtime.before_decode = lambda _: go.wait(60)
        runtime.before_repeat = cancel
        held.extend([ask(engine, 0), ask(engine, 1)])
        go.set()
        with pytest.raises(Cancelled) as raised:
            held[0].result(60)
        assert len(raised.value.partial.token_ids) <= 12
        assert len(held[1].result(60).token_ids) == 40
        assert_at_rest(engine)


def test_a_deadline_ends_it_between_two_steps():
    runtime, late = Counted(), threading.Event()
    with fake_engine(runtime) as engine:
        runtime.before_repeat = lambda count: late.wait(1.5) if count == 5 else None
        with pytest.raises(DeadlineExceeded) as raised:
            ask(engine, timeout_s=1.0, max_tokens=400).result(60)
        assert len(raised.value.partial.token_ids) == 7
        assert_at_rest(engine)


def test_a_repeat_that_fails_ends_who_failed_and_nobody_else():
    runtime = Counted(n_seq=2)
    with fake_engine(runtime) as engine:
        runtime.before_repeat = lambda count: runtime.fail([0]) if count == 5 else None
        running = [ask(engine, n) for n in range(2)]
        failed, sound = sorted(running, key=_length)
        with pytest.raises(BackendError) as raised:
            failed.result(60)
        assert raised.value.failed == (0,)
        assert len(sound.result(60).token_ids) == 40
        assert_at_rest(engine)


def test_an_unforeseen_error_ends_all_and_the_next_request_runs():
    runtime = Counted(n_seq=2)

    def fail(count):
        if count == 5:
            raise ZeroDivisionError

    with fake_engine(runtime) as engine:
        runtime.before_repeat = fail
        go = threading.Event()
        runtime.before_decode = lambda _: go.wait(60)
        running = [ask(engine, n) for n in range(2)]
        go.set()
        for one in running:
            with pytest.raises(BackendError, match="ZeroDivisionError"):
                one.result(60)
        assert len(ask(engine, 5).result(60).token_ids) == 40
        assert_at_rest(engine)
