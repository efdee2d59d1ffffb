"""Loading, unloading, closing, dropping, forking, leaving: nobody hangs, nothing stays behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.fake_runtime import Brake, FakeRuntime, assert_at_rest, fake_engine
from support.waiting import when

from nitrolib.backends import LoadOptions
from nitrolib.engine import CacheCleaningPolicy, Engine
from nitrolib.errors import (
    Cancelled,
    InvalidRequest,
    ModelAlreadyLoaded,
    ModelFileError,
    ModelNotLoaded,
)
from nitrolib.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=50)
TESTS = Path(__file__).parents[1]


class Loader:
    """Makes a fake runtime a load, and remembers them; a path that begins with "bad" fails."""

    def __init__(self):
        self.runtimes = []
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, path, options, backend):
        self.entered.set()
        assert self.go.wait(60)
        if path.startswith("bad"):
            raise ModelFileError("it is damaged", path=path)
        runtime = FakeRuntime(n_seq=options.n_parallel)
        self.runtimes.append(runtime)
        return runtime


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def engine(loader):
    with Engine(loader=loader) as engine:
        yield engine


COLD = LoadOptions(warm_up=False)


# ---- load


def test_load_returns_the_status_and_a_second_load_is_refused(engine):
    status = engine.load("a.gguf", COLD)
    assert (status.path, status.backend, status.n_parallel) == ("a.gguf", "fake", 1)
    with pytest.raises(ModelAlreadyLoaded) as caught:
        engine.load("b.gguf", COLD)
    assert caught.value.path == "a.gguf"
    assert engine.status().model.path == "a.gguf"


def test_a_failed_load_leaves_the_engine_empty_and_usable(engine):
    with pytest.raises(ModelFileError):
        engine.load("bad.gguf", COLD)
    status = engine.status()
    assert (status.model, status.loading) == (None, False)
    with pytest.raises(ModelNotLoaded):
        engine.complete("x")
    engine.load("good.gguf", COLD)
    assert engine.complete("x", GREEDY).text


def test_a_provisional_model_gives_way_and_its_requests_end(engine, loader):
    engine.load("demo.gguf", LoadOptions(provisional=True, warm_up=False))
    brake = Brake(loader.runtimes[0])
    generation = engine.stream("x", GREEDY)
    brake.wait()
    brake.release()
    assert engine.load("asked.gguf", COLD).provisional is False
    assert generation.done()
    assert loader.runtimes[0].closed
    with pytest.raises(ModelAlreadyLoaded):
        engine.load("third.gguf", COLD)


def test_a_provisional_model_is_gone_even_when_the_new_load_fails(engine, loader):
    engine.load("demo.gguf", LoadOptions(provisional=True, warm_up=False))
    with pytest.raises(ModelFileError):
        engine.load("bad.gguf", COLD)
    assert engine.status().model is None
    assert loader.runtimes[0].closed


def test_status_answers_while_a_load_runs_and_other_calls_say_so(engine, loader):
    loader.go.clear()
    thread = threading.Thread(target=engine.load, args=("a.gguf", COLD))
    thread.start()
    assert loader.entered.wait(60)
    status = engine.status()
    assert (status.loading, status.model) == (True, None)
    with pytest.raises(ModelNotLoaded, match="being loaded"):
        engine.complete("x")
    loader.go.set()
    thread.join()
    assert engine.status().loading is False
    assert engine.status().model is not None


def test_of_many_loads_at_once_one_wins_and_the_others_are_refused(engine, loader):
    outcomes = []

    def load(number):
        try:
            outcomes.append(engine.load(f"{number}.gguf", COLD).path)
        except ModelAlreadyLoaded:
            outcomes.append(None)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sum(one is not None for one in outcomes) == 1
    assert len(loader.runtimes) == 1


def test_warm_up_is_not_counted_and_leaves_no_prefix(engine, loader):
    status = engine.load("a.gguf", LoadOptions())
    assert loader.runtimes[0].steps[0] == [(0, 6, "logits")]
    assert (status.chats_since_clean, status.slots[0].cached_tokens) == (0, 0)
    assert engine.complete("Hello", GREEDY).usage.cached_tokens == 0


def test_a_failed_warm_up_is_a_note_and_a_warning_not_an_error(engine, loader, caplog):
    inner = FakeRuntime(n_ctx=3)
    engine._loader = lambda *_: inner
    status = engine.load("a.gguf", LoadOptions())
    assert "warm-up" in status.notes[-1]
    assert "warm-up" in caplog.text
    assert_at_rest(engine)


def test_bad_engine_arguments_are_refused():
    for wrong in (-1, 1.5, None, True):
        with pytest.raises(InvalidRequest) as caught:
            Engine(max_queue=wrong)
        assert caught.value.field == "max_queue"


# ---- unload, close


def release_when_asked_to_stop(engine, brake):
    """The call that asks for the stop waits for the loop."""
    scheduler = engine._model.scheduler
    when(lambda: not scheduler._inbox.empty(), brake.release)


def test_unload_ends_running_and_waiting_requests_with_what_there_was(engine, loader):
    engine.load("a.gguf", COLD)
    loader.runtimes[0].script = dict.fromkeys(range(500), ord("a"))
    brake = Brake(loader.runtimes[0])
    running, waiting = engine.stream("x", GREEDY), engine.stream("y", GREEDY)
    reading = iter(running)
    brake.wait()
    brake.step()
    first = next(reading).text
    release_when_asked_to_stop(engine, brake)
    assert engine.unload() is True
    with pytest.raises(Cancelled) as caught:
        list(reading)
    partial = caught.value.partial
    assert caught.value.reason == "unload"
    assert partial.text.startswith(first)
    assert partial.finish_reason is None
    with pytest.raises(Cancelled) as caught:
        waiting.result(60)
    assert (caught.value.reason, caught.value.partial) == ("unload", None)
    assert loader.runtimes[0].closed
    assert engine.unload() is False


def test_held_back_text_is_in_the_partial_and_in_the_chunks(engine, loader):
    engine.load("a.gguf", COLD)
    loader.runtimes[0].script = dict(enumerate(b"one EN", start=2)) | {8: ord("E"), 9: ord("N")}
    brake = Brake(loader.runtimes[0])
    params = SamplingParams(temperature=0, repeat_penalty=1.0, stop=("END",), max_tokens=50)
    generation = engine.stream("x", params)
    brake.wait()
    for _ in range(6):
        brake.step()
    generation.cancel()
    brake.release()
    text = "".join(chunk.text for chunk in generation)
    with pytest.raises(Cancelled) as caught:
        generation.result(60)
    assert text == caught.value.partial.text
    assert text.startswith("one EN")


def test_unload_waits_for_callers_inside_tokenize(engine, loader):
    engine.load("a.gguf", COLD)
    inside, go = threading.Event(), threading.Event()
    loader.runtimes[0].before_tokenize = lambda _: (inside.set(), go.wait(60))
    ids = []
    caller = threading.Thread(target=lambda: ids.append(engine.tokenize("abc")))
    caller.start()
    assert inside.wait(60)
    unloading = threading.Thread(target=engine.unload)
    unloading.start()
    time.sleep(0.05)
    assert not loader.runtimes[0].closed
    go.set()
    caller.join()
    unloading.join()
    assert ids == [[97, 98, 99]]
    assert loader.runtimes[0].closed


def test_close_is_unload_for_good_and_safe_to_call_twice(loader):
    engine = Engine(loader=loader)
    engine.load("a.gguf", COLD)
    brake = Brake(loader.runtimes[0])
    generation = engine.stream("x", GREEDY)
    brake.wait()
    release_when_asked_to_stop(engine, brake)
    engine.close()
    engine.close()
    with pytest.raises(Cancelled) as caught:
        generation.result(60)
    assert caught.value.reason == "shutdown"
    with pytest.raises(ModelNotLoaded, match="closed"):
        engine.load("b.gguf", COLD)
    assert engine.status().model is None


def test_the_cleaning_count_starts_anew_with_every_load(loader):
    policy = CacheCleaningPolicy(3)
    with Engine(loader=loader, cleaning=policy) as engine:
        engine.load("a.gguf", COLD)
        engine.chat([{"role": "user", "content": "x"}], GREEDY)
        assert policy.chats_since_clean == 1
        engine.unload()
        assert policy.chats_since_clean == 0


def test_two_engines_live_side_by_side():
    with fake_engine(FakeRuntime()) as one, fake_engine(FakeRuntime()) as other:
        assert one.complete("x", GREEDY).text == other.complete("x", GREEDY).text
        one.unload()
        assert other.complete("x", GREEDY).text


# ---- dropped, forked, left


def test_a_dropped_engine_leaves_no_thread_and_no_runtime_behind():
    runtime = FakeRuntime()
    engine = fake_engine(runtime)
    thread = engine._model.scheduler._thread
    del engine
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
    assert runtime.closed


def test_a_generation_keeps_its_engine_alive():
    runtime = FakeRuntime()
    chunks = list(fake_engine(runtime).stream("x", GREEDY))
    assert chunks[-1].finish_reason == "length"


def test_hundreds_of_generations_leave_nothing_behind(engine, loader):
    engine.load("a.gguf", COLD)
    params = SamplingParams(temperature=0, max_tokens=2)
    for _ in range(50):
        engine.complete("x", params)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(500):
        engine.complete("x", params)
    loader.runtimes[0].steps.clear()
    gc.collect()
    assert len(gc.get_objects()) - before < 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork in a process with threads
def test_a_forked_child_gets_a_clear_error_and_does_not_hang(engine):
    engine.load("a.gguf", COLD)
    running = engine.stream("x", SamplingParams(temperature=0, max_tokens=400))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with pytest.raises(ModelNotLoaded, match="fork"):
                engine.complete("x")
            assert engine.status().model is None
            engine.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert running.result(60)


def leave(code):
    start = """
import contextlib, sys, time, threading
sys.path[:0] = [{tests!r}, {root!r}]
from support.fake_runtime import FakeRuntime, fake_engine
from nitrolib.errors import Cancelled
from nitrolib.sampling import SamplingParams
runtime = FakeRuntime(n_ctx=100000)
runtime.before_decode = lambda _: time.sleep(0.01)
engine = fake_engine(runtime)
generation = engine.stream("x", SamplingParams(temperature=0))
reading = iter(generation)
next(reading)
def wait():
    with contextlib.suppress(Cancelled):
        generation.result()
"""
    text = start.format(tests=str(TESTS), root=str(TESTS.parent)) + code
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "code",
    [
        "",
        "sys.exit(3)",
        "raise KeyError('mine')",
        "keep = [engine, generation, reading]; engine.me = keep",
        "threading.Thread(target=wait, daemon=True).start(); time.sleep(0.05)",
        "del engine",
    ],
    ids=["plain", "exit", "error", "cycle", "waiter", "dropped"],
)
def test_leaving_the_interpreter_with_a_running_generation_neither_hangs_nor_crashes(code):
    run = leave(code)
    assert run.returncode == {"sys.exit(3)": 3, "raise KeyError('mine')": 1}.get(code, 0)
    expected = "KeyError: 'mine'" if "raise" in code else ""
    assert run.stderr.strip().splitlines()[-1:] == ([expected] if expected else []), run.stderr


def test_a_thread_that_waits_for_a_result_lets_the_process_end():
    run = leave("threading.Thread(target=lambda: (time.sleep(0.2), engine.close())).start()")
    assert run.returncode == 0, run.stderr
