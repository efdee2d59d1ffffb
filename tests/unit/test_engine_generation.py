"""What a generation yields and how its handle behaves, on the fake runtime."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from support.fake_runtime import BOS, EOS, Brake, FakeRuntime, assert_at_rest, fake_engine, settle

from nitrolib.engine import GenerationRequest
from nitrolib.errors import (
    Cancelled,
    ContextOverflow,
    InvalidRequest,
    ModelNotLoaded,
    Unsupported,
)
from nitrolib.prompt import Prompt, Segment
from nitrolib.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=12)


def says(text, at=3, end=EOS):
    """A script that answers a prompt of `at` tokens with `text`, then ends."""
    script = dict(enumerate(text.encode(), start=at))
    return {**script, at + len(text.encode()): end}


@pytest.fixture
def runtime():
    return FakeRuntime()


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        if engine.status().model is not None:
            assert_at_rest(engine)


def greedy(**changes):
    return SamplingParams(**{"temperature": 0, "repeat_penalty": 1.0, **changes})


# ---- how it ends


def test_an_end_token_ends_with_stop_and_is_counted_but_not_shown(engine, runtime):
    runtime.script = says("ok")
    done = engine.complete("ab", greedy())
    assert (done.text, done.finish_reason, done.stop) == ("ok", "stop", None)
    assert done.token_ids == (*b"ok", EOS)
    assert done.prompt_token_ids == (BOS, *b"ab")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (3, 3)


def test_every_eog_token_ends(engine, runtime):
    runtime.script = says("x", end=259)
    assert engine.complete("ab", greedy()).finish_reason == "stop"


def test_ignore_eos_goes_on(engine, runtime):
    runtime.script = says("x")
    done = engine.complete("ab", greedy(ignore_eos=True, max_tokens=5))
    assert done.finish_reason == "length"
    assert EOS not in done.token_ids


def test_a_stop_string_is_cut_and_named(engine, runtime):
    runtime.script = says("one END two")
    done = engine.complete("ab", greedy(stop=("END",)))
    assert (done.text, done.finish_reason, done.stop) == ("one ", "stop", "END")
    assert done.token_ids == tuple(b"one END")


def test_max_tokens_ends_with_length_and_flushes_held_back_text(engine, runtime):
    runtime.script = says("one EN")
    done = engine.complete("ab", greedy(stop=("END",), max_tokens=6))
    assert (done.text, done.finish_reason, done.usage.completion_tokens) == ("one EN", "length", 6)


def test_an_end_token_flushes_held_back_text(engine, runtime):
    runtime.script = says("one EN")
    assert engine.complete("ab", greedy(stop=("END",))).text == "one EN"


def test_half_a_character_at_the_end_becomes_a_replacement_character(engine, runtime):
    runtime.script = {3: "é".encode()[0]}
    done = engine.complete("ab", greedy(max_tokens=1))
    assert done.text == "�"


def test_a_full_context_ends_with_length():
    runtime = FakeRuntime(n_ctx=10)
    with fake_engine(runtime) as engine:
        done = engine.complete("ab", greedy())
        assert (done.finish_reason, done.usage.completion_tokens) == ("length", 7)
        assert_at_rest(engine)


def test_a_prompt_of_n_ctx_less_one_gets_one_token():
    with fake_engine(FakeRuntime(n_ctx=10)) as engine:
        done = engine.complete("a" * 8, greedy())
        assert (done.finish_reason, done.usage.completion_tokens) == ("length", 1)


def test_leading_white_space_is_dropped_until_the_first_visible_character(engine, runtime):
    runtime.script = says(" \n  Hi  you")
    chunks = list(engine.stream("ab", greedy(), strip_leading_space=True))
    assert "".join(chunk.text for chunk in chunks) == "Hi  you"
    assert chunks[0].text == "H"


# ---- chunks


def test_the_completion_is_the_join_of_its_chunks(engine, runtime):
    runtime.script = says("grüße — ok END")
    generation = engine.stream("ab", greedy(stop=("END",)))
    chunks = list(generation)
    done = generation.result()
    assert "".join(chunk.text for chunk in chunks) == done.text == "grüße — ok "
    assert tuple(i for chunk in chunks for i in chunk.token_ids) == done.token_ids
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert all(chunk.text for chunk in chunks[:-1])
    assert (chunks[-1].finish_reason, chunks[-1].stop) == ("stop", "END")
    assert chunks[-1].usage == done.usage
    assert chunks[-1].timings == done.timings


def test_a_character_of_several_tokens_comes_in_one_chunk_with_all_its_ids(engine, runtime):
    runtime.script = says("€")
    first, *_ = engine.stream("ab", greedy())
    assert (first.text, first.token_ids) == ("€", tuple("€".encode()))


def test_chunks_that_came_before_the_reading_are_not_lost(engine):
    generation = engine.stream("ab", GREEDY)
    done = generation.result()
    assert "".join(chunk.text for chunk in generation) == done.text


def test_result_after_partial_reading_is_whole(engine):
    generation = engine.stream("ab", GREEDY)
    reading = iter(generation)
    first = next(reading)
    done = generation.result()
    assert done.usage.completion_tokens == 12
    assert done.text.startswith(first.text)


def test_a_generation_is_read_once(engine):
    generation = engine.stream("ab", GREEDY)
    list(generation)
    with pytest.raises(InvalidRequest, match="read once"):
        iter(generation)


def test_timings_are_there_and_not_negative(engine):
    timings = engine.complete("ab", GREEDY).timings
    assert timings.queue_s >= 0
    assert timings.prefill_s > 0
    assert timings.decode_s > 0


def test_notes_of_the_request_are_repeated(engine):
    assert engine.complete("ab", GREEDY, notes=("cut",)).notes == ("cut",)


# ---- cancelling


def test_cancel_ends_iteration_quietly_and_result_with_the_partial(engine, runtime):
    brake = Brake(runtime)
    generation = engine.stream("ab", GREEDY)
    reading = iter(generation)
    brake.wait()
    brake.step()
    got = next(reading).text
    generation.cancel()
    generation.cancel()
    brake.release()
    got += "".join(chunk.text for chunk in reading)
    with pytest.raises(Cancelled) as caught:
        generation.result()
    assert caught.value.reason == "caller"
    assert caught.value.partial.text == got
    assert caught.value.partial.finish_reason is None
    assert generation.done()


def test_leaving_the_loop_early_frees_the_slot(engine, runtime):
    brake = Brake(runtime)
    threading.Timer(0, brake.release).start()
    for _ in engine.stream("ab", greedy()):
        break
    _wait_for_rest(engine)


def test_closing_an_iterator_that_never_started_cancels(engine, runtime):
    brake = Brake(runtime)
    generation = engine.stream("ab", greedy())
    iter(generation).close()
    brake.release()
    with pytest.raises(Cancelled):
        generation.result(60)


def test_a_dropped_generation_is_cancelled(engine, runtime):
    brake = Brake(runtime)
    generation = engine.stream("ab", greedy())
    brake.wait()
    del generation
    gc.collect()
    brake.release()
    _wait_for_rest(engine)
    assert len(runtime.steps) <= 2


def test_the_context_manager_cancels_on_the_way_out(engine, runtime):
    brake = Brake(runtime)
    with engine.stream("ab", greedy()) as generation:
        brake.wait()
    brake.release()
    with pytest.raises(Cancelled):
        generation.result(60)


def test_cancel_after_the_end_changes_nothing(engine):
    generation = engine.stream("ab", GREEDY)
    generation.result()
    generation.cancel()
    assert generation.result().finish_reason == "length"


def test_result_times_out_and_the_generation_goes_on(engine, runtime):
    brake = Brake(runtime)
    generation = engine.stream("ab", GREEDY)
    with pytest.raises(TimeoutError):
        generation.result(0.01)
    brake.release()
    assert generation.result().finish_reason == "length"


def _wait_for_rest(engine):
    """The cancellation is a message: one more round trip through the loop and it is done."""
    engine.clear_cache()
    assert_at_rest(engine)


# ---- callbacks and asyncio


def test_done_callbacks_run_once_with_the_handle_before_and_after_the_end(engine):
    seen = []
    generation = engine.stream("ab", GREEDY)
    generation.add_done_callback(seen.append)
    generation.result()
    settle(engine)  # callbacks run after the outcome is set
    generation.add_done_callback(seen.append)
    assert seen == [generation, generation]


def test_a_failing_callback_is_logged_and_harms_nobody(engine, caplog):
    generation = engine.stream("ab", GREEDY)
    generation.add_done_callback(lambda _: 1 / 0)
    assert generation.result().finish_reason == "length"
    assert engine.complete("ab", GREEDY).finish_reason == "length"
    assert "ZeroDivisionError" in caplog.text


def test_waiting_inside_a_callback_is_refused_not_a_deadlock(engine, runtime):
    errors = []
    done = threading.Event()

    def callback(_):
        for wait in (engine.unload, engine.clear_cache, lambda: engine.complete("x", GREEDY)):
            with pytest.raises(InvalidRequest) as caught:
                wait()
            errors.append(caught.value)
        done.set()

    brake = Brake(runtime)
    generation = engine.stream("ab", GREEDY)
    generation.add_done_callback(callback)  # before the end, or it would be called right here
    brake.release()
    assert done.wait(60)
    assert len(errors) == 3
    engine.clear_cache()


def test_async_iteration_gives_the_same_chunks(engine):
    async def read():
        return [chunk async for chunk in engine.stream("ab", GREEDY)]

    chunks = asyncio.run(read())
    assert "".join(chunk.text for chunk in chunks) == engine.complete("ab", GREEDY).text


def test_async_readers_share_one_loop_and_no_thread_waits(engine):
    async def read(number):
        before = threading.active_count()
        text = "".join([chunk.text async for chunk in engine.stream(f"p{number}", GREEDY)])
        assert threading.active_count() <= before + 1  # what wakes the readers, once for all
        return text

    async def many():
        return await asyncio.gather(*(read(number) for number in range(20)))

    texts = asyncio.run(many())
    assert texts == [engine.complete(f"p{number}", GREEDY).text for number in range(20)]


def test_leaving_an_async_loop_early_cancels(engine, runtime):
    brake = Brake(runtime)
    threading.Timer(0, brake.release).start()

    async def read():
        async for _ in engine.stream("ab", greedy()):
            break

    asyncio.run(read())
    _wait_for_rest(engine)


def test_await_gives_the_completion_or_raises(engine):
    async def wait():
        done = await engine.stream("ab", GREEDY)
        generation = engine.stream("ab", greedy())
        generation.cancel()
        with pytest.raises(Cancelled):
            await generation
        return done

    assert asyncio.run(wait()) == _same_but_timings(engine)


def _same_but_timings(engine):
    class Equal:
        def __eq__(self, other):
            return other.text == engine.complete("ab", GREEDY).text

    return Equal()


# ---- what submit refuses, in the caller's thread


def refused(engine, kind, **request):
    fields = {"prompt": (BOS, 1, 2), "params": GREEDY, **request}
    with pytest.raises(kind) as caught:
        engine.submit(GenerationRequest(**fields))
    assert engine.status().waiting == engine.status().running == 0
    return caught.value


def test_ids_out_of_range_are_refused(engine):
    for wrong in (-1, 260, True, 1.0):
        error = refused(engine, InvalidRequest, prompt=(BOS, wrong))
        assert (error.field, error.value) == ("prompt", wrong)


def test_an_empty_prompt_is_refused(engine):
    assert refused(engine, InvalidRequest, prompt=()).field == "prompt"
    empty = Prompt((Segment("", special=False),), add_bos=False)
    assert refused(engine, InvalidRequest, prompt=empty).field == "prompt"


def test_a_slot_that_does_not_exist_is_refused(engine):
    assert refused(engine, InvalidRequest, id_slot=1).field == "id_slot"


def test_a_logit_bias_out_of_range_is_refused(engine):
    error = refused(engine, InvalidRequest, params=greedy(logit_bias=((260, 1.0),)))
    assert (error.field, error.value) == ("logit_bias", 260)


def test_a_parameter_that_is_not_honoured_is_refused(engine):
    error = refused(engine, Unsupported, params=greedy(samplers=("infill",)))
    assert (error.field, error.value) == ("samplers", ("infill",))


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(engine):
    error = refused(engine, ContextOverflow, prompt=(1,) * 512)
    assert (error.prompt_tokens, error.limit, error.at_least) == (512, 512, False)


def test_a_text_too_long_by_its_bytes_is_refused_without_tokenizing(engine, runtime):
    runtime.before_tokenize = lambda _: pytest.fail("tokenized")
    error = refused(engine, ContextOverflow, prompt=Prompt.plain("x" * 100_000))
    assert error.at_least
    assert 512 <= error.prompt_tokens <= 100_001


def test_what_is_no_prompt_is_refused(engine):
    for wrong in (None, 5, [1.5], [object()]):
        with pytest.raises(InvalidRequest):
            engine.complete(wrong, GREEDY)


def test_without_a_model_every_call_says_so(engine):
    engine.unload()
    for call in (
        lambda: engine.complete("x"),
        lambda: engine.stream("x"),
        lambda: engine.chat([{"role": "user", "content": "x"}]),
        lambda: engine.embed("x"),
        lambda: engine.tokenize("x"),
        lambda: engine.detokenize([1]),
        engine.clear_cache,
    ):
        with pytest.raises(ModelNotLoaded):
            call()
