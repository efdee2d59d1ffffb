"""A native call in which a long prompt is evaluated ends when nobody waits for it any more."""

from __future__ import annotations

import threading
import time

import pytest
from support.fake_runtime import SHARED, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.engine.alarm import Alarm
from nitrolib.engine.job import clock
from nitrolib.errors import Cancelled, DeadlineExceeded
from nitrolib.sampling import SamplingParams

LONG_S = 200  # what a native call takes that nobody interrupts: far more than any test may


class Native:
    """Every decode of a prompt takes LONG_S while `slow`, unless it is interrupted."""

    def __init__(self, runtime):
        self.runtime, self.slow = runtime, True
        self.inside = threading.Semaphore(0)
        runtime.before_decode = self

    def __call__(self, feeds):
        if self.slow and any(len(feed.tokens) > 1 for feed in feeds):
            self.inside.release()
            self.runtime.wait_for_interrupt(LONG_S)

    def entered(self):
        assert self.inside.acquire(timeout=60)


def ask(engine, prompt, max_tokens=3, **fields):
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=max_tokens)
    tokens = tuple(index % 250 for index in range(prompt))
    return engine.submit(GenerationRequest(prompt=tokens, params=how, **fields))


@pytest.fixture(params=[False, True], ids=["goes back", "recurrent"])
def runtime(request):
    can = set(SHARED) - ({"copy", "shift"} if request.param else set())
    return FakeRuntime(n_seq=2, n_ctx=4096, can=can, recurrent=request.param)


@pytest.fixture
def native(runtime):
    return Native(runtime)


@pytest.fixture
def engine(runtime, native):
    begin = time.monotonic()
    with fake_engine(runtime) as engine:
        yield engine
    assert time.monotonic() - begin < LONG_S / 2, "somebody waited for a native call"
    assert runtime.closed


def test_cancelling_a_prompt_ends_its_evaluation(engine, runtime, native):
    generation = ask(engine, 2000)
    native.entered()
    generation.cancel()
    with pytest.raises(Cancelled) as caught:
        generation.result(LONG_S / 2)
    assert caught.value.partial.token_ids == ()
    assert runtime.interrupts == 1
    assert_at_rest(engine)


def test_dropping_the_handle_does_so_too(engine, runtime, native):
    generation = ask(engine, 2000)
    native.entered()
    del generation
    assert_at_rest(engine)
    assert runtime.interrupts == 1


def test_a_deadline_ends_the_evaluation_of_a_prompt(engine, runtime, native):
    for timeout_s in (0.2, 1, 5, 25):  # a busy machine may need longer than that to begin
        generation = ask(engine, 2000, timeout_s=timeout_s)
        with pytest.raises(DeadlineExceeded):
            generation.result(LONG_S / 2)
        if native.inside.acquire(blocking=False):
            break
    assert runtime.interrupts == 1
    assert_at_rest(engine)


def test_unloading_does_not_wait_for_a_native_call(engine, runtime, native):
    generation = ask(engine, 2000)
    native.entered()
    engine.unload()
    with pytest.raises(Cancelled) as caught:
        generation.result(0)
    assert caught.value.reason == "unload"


def test_the_neighbours_of_an_interrupted_prompt_are_fed_again(engine, runtime, native):
    native.slow = False
    alone = [ask(engine, 5, 40, cache_prompt=False).result(60).token_ids]
    alone.append(ask(engine, 300, 3, cache_prompt=False).result(60).token_ids)
    talk = ask(engine, 5, 40, cache_prompt=False)
    chunks = iter(talk)
    next(chunks)
    native.slow = True
    other = ask(engine, 2000, cache_prompt=False)
    native.entered()
    native.slow = False
    other.cancel()
    assert talk.result(60).token_ids == alone[0]
    assert ask(engine, 300, cache_prompt=False).result(60).token_ids == alone[1]
    assert_at_rest(engine)


def test_cancelling_one_that_only_decodes_interrupts_nobody(engine, runtime, native):
    native.slow = False
    talk = ask(engine, 5, 2000)
    next(iter(talk))
    talk.cancel()
    assert_at_rest(engine)
    assert runtime.interrupts == 0


def test_a_deadline_that_is_far_away_interrupts_nothing(engine, runtime, native):
    native.slow = False
    assert ask(engine, 2000, timeout_s=1000).result(60)
    assert runtime.interrupts == 0


def test_a_message_that_came_before_a_long_call_is_read_before_it(engine, runtime, native):
    """A cancellation between the planning of a step and its native call is not lost."""
    scheduler = engine._model.scheduler
    inner = scheduler._planner.next
    held = []

    class Planner:
        def next(self, slots):
            step = inner(slots)
            if step.prefilling and held:
                held.pop().cancel()
            return step

    scheduler.call(lambda: setattr(scheduler, "_planner", Planner()))
    gate = threading.Event()
    scheduler._inbox.put(lambda: gate.wait(60))
    generation = ask(engine, 2000)
    held.append(generation)
    gate.set()
    with pytest.raises(Cancelled):
        generation.result(LONG_S / 2)
    assert runtime.steps == []


# ---- the alarm


def test_an_alarm_rings_at_its_moment_and_once():
    rung = threading.Semaphore(0)
    alarm = Alarm(rung.release)
    begin = clock()
    alarm.set(begin + 0.05)
    assert rung.acquire(timeout=60)
    assert clock() - begin >= 0.05
    assert not rung.acquire(timeout=0.1)
    alarm.set(clock() + 1000)
    alarm.set(clock())  # sooner than the thread would look again
    assert rung.acquire(timeout=60)
    alarm.close()
    alarm._thread.join(60)
    assert not alarm._thread.is_alive()


def test_an_alarm_that_was_unset_does_not_ring():
    rung = threading.Semaphore(0)
    alarm = Alarm(rung.release)
    for _ in range(100):
        with alarm._changed:  # else it might ring before it is unset, and rightly
            alarm.set(clock() + 0.02)
            alarm.unset()
    assert not rung.acquire(timeout=0.1)
    alarm.close()
    alarm.close()
    alarm.set(clock())
    assert not rung.acquire(timeout=0.05)


def test_an_alarm_that_is_never_set_has_no_thread():
    alarm = Alarm(lambda: None)
    alarm.close()
    assert alarm._thread is None
