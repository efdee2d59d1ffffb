"""What slots hold, saved, put back and erased."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from support.fake_runtime import SHARED, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest, SlotState
from nitrolib.errors import Conflict, InvalidRequest, Unsupported
from nitrolib.sampling import SamplingParams

PROMPT = tuple(range(100))


def ask(engine, prompt=PROMPT, **fields):
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=5)
    return engine.submit(GenerationRequest(prompt=prompt, params=how, **fields))


@pytest.fixture
def runtime():
    return FakeRuntime(n_seq=2, can=("lora", *SHARED), lora=(1.0,))


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def test_a_prompt_goes_on_from_what_was_restored(engine):
    done = ask(engine, id_slot=0).result(60)
    state = engine.save_slot(0)
    assert state.tokens == (*done.prompt_token_ids, *done.token_ids[:-1])
    engine.clear_cache()
    engine.restore_slot(1, state)
    assert engine.status().model.slots[1].cached_tokens == 104
    again = ask(engine).result(60)
    assert (again.slot, again.usage.cached_tokens) == (1, 99)
    assert again.token_ids == done.token_ids


def test_what_was_restored_serves_only_its_own_strengths(engine):
    ask(engine, id_slot=0, lora=((0, 0.5),)).result(60)
    state = engine.save_slot(0)
    assert state.lora == (0.5,)
    engine.clear_cache()
    engine.restore_slot(0, state)
    assert ask(engine, id_slot=0, lora=((0, 0.5),)).result(60).usage.cached_tokens == 99
    engine.restore_slot(0, state)
    assert ask(engine, id_slot=0).result(60).usage.cached_tokens == 0


def test_an_empty_slot_is_saved_and_restored_too(engine):
    state = engine.save_slot(0)
    assert state.tokens == ()
    ask(engine, id_slot=0).result(60)
    engine.restore_slot(0, state)
    assert engine.status().model.slots[0].cached_tokens == 0


def test_erasing_tells_how_much_there_was(engine):
    ask(engine, id_slot=1).result(60)
    assert engine.erase_slot(1) == 104
    assert engine.erase_slot(1) == 0
    assert ask(engine, id_slot=1).result(60).usage.cached_tokens == 0


def test_a_state_that_does_not_fit_is_refused_and_the_slot_is_empty(engine):
    ask(engine, id_slot=0).result(60)
    state = engine.save_slot(0)
    with pytest.raises(InvalidRequest) as caught:
        engine.restore_slot(0, replace(state, state=b"damaged"))
    assert caught.value.field == "state"
    assert engine.status().model.slots[0].cached_tokens == 0


@pytest.mark.parametrize(
    "changes",
    [{"tokens": (1, 2, 999)}, {"tokens": (1,) * 600}, {"lora": ()}, {"tokens": ("a",)}],
)
def test_what_cannot_fit_never_reaches_the_backend(engine, changes):
    ask(engine, id_slot=0).result(60)
    state = engine.save_slot(0)
    with pytest.raises(InvalidRequest) as caught:
        engine.restore_slot(0, replace(state, **changes))
    assert caught.value.field == "state"
    assert engine.status().model.slots[0].cached_tokens == 104
    with pytest.raises(InvalidRequest):
        engine.restore_slot(0, b"not a state")


def test_a_busy_slot_is_left_alone(engine, runtime):
    brake = Brake(runtime)
    generation = ask(engine, id_slot=0)
    brake.wait()
    errors = []

    def call(function, *arguments):
        try:
            function(*arguments)
        except Conflict as error:
            errors.append(error.slot)

    calls = [
        (engine.save_slot, 0),
        (engine.restore_slot, 0, SlotState((), b"")),
        (engine.erase_slot, 0),
    ]
    threads = [threading.Thread(target=call, args=one) for one in calls]
    [thread.start() for thread in threads]
    while engine._model.scheduler._inbox.qsize() < 3:
        time.sleep(0.001)
    brake.step()
    [thread.join(60) for thread in threads]
    assert errors == [0, 0, 0]
    brake.release()
    assert generation.result(60)


@pytest.mark.parametrize("number", [-1, 2, True, "0", None])
def test_a_slot_that_does_not_exist_is_refused(engine, number):
    calls = (engine.save_slot, engine.erase_slot, lambda n: engine.restore_slot(n, None))
    for call in calls:
        with pytest.raises(InvalidRequest) as caught:
            call(number)
        assert (caught.value.field, caught.value.value) == ("id_slot", number)


def test_a_backend_that_cannot_save_says_so_and_erases_all_the_same():
    with fake_engine(FakeRuntime()) as engine:
        ask(engine).result(60)
        with pytest.raises(Unsupported):
            engine.save_slot(0)
        with pytest.raises(Unsupported):
            engine.restore_slot(0, SlotState((), b""))
        assert engine.erase_slot(0) == 104
