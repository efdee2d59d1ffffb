"""Several generations read at once: every chunk once, in order, as it comes."""

from __future__ import annotations

import pytest
from support.fake_runtime import Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.engine.interleave import interleave, paced
from nitrolib.errors import Cancelled, InvalidRequest
from nitrolib.sampling import SamplingParams

PROMPT = tuple(range(1, 40))


def request(max_tokens=20, **fields):
    how = SamplingParams(temperature=1.5, seed=7, max_tokens=max_tokens, ignore_eos=True)
    return GenerationRequest(prompt=PROMPT, params=how, **fields)


@pytest.mark.parametrize("n_seq", [1, 3])
@pytest.mark.parametrize("n", [1, 4])
def test_every_generation_is_told_whole_and_in_order(n, n_seq):
    with fake_engine(FakeRuntime(n_seq=n_seq)) as engine:
        generations = engine.submit_choices(request(), n)
        texts, ends = [""] * n, [0] * n
        for index, chunk in interleave(generations):
            texts[index] += chunk.text
            ends[index] += chunk.finish_reason is not None
        assert texts == [one.result(60).text for one in generations]
        assert ends == [1] * n
        assert_at_rest(engine)


def test_chunks_that_came_before_the_reading_are_not_lost():
    with fake_engine(FakeRuntime(n_seq=2)) as engine:
        generations = engine.submit_choices(request(), 2)
        whole = [one.result(60) for one in generations]
        told = list(interleave(generations))
        for index in (0, 1):
            text = "".join(chunk.text for at, chunk in told if at == index)
            assert text == whole[index].text


def test_those_that_run_side_by_side_are_told_side_by_side():
    runtime = FakeRuntime(n_seq=2)
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)  # until both are there
        generations = [engine.submit(request(200)) for _ in range(2)]
        brake.release()
        order = [index for index, _ in interleave(generations)]
        for index in (0, 1):
            assert order.index(index) < len(order) - 1 - order[::-1].index(1 - index)


def test_leaving_early_cancels_all_of_them():
    with fake_engine(FakeRuntime(n_seq=2, n_ctx=10**6)) as engine:
        generations = [engine.submit(request(None)) for _ in range(2)]
        reader = interleave(generations)
        next(reader)
        reader.close()
        for one in generations:
            with pytest.raises(Cancelled):
                one.result(60)
        assert_at_rest(engine)


def test_the_first_error_is_raised_and_ends_the_others():
    with fake_engine(FakeRuntime(n_seq=2, n_ctx=10**6)) as engine:
        generations = [engine.submit(request(None)) for _ in range(2)]
        reader = interleave(generations)
        next(reader)
        engine.unload()
        with pytest.raises(Cancelled) as caught:
            list(reader)
        assert caught.value.reason == "unload"


def test_one_that_its_caller_cancels_just_ends():
    with fake_engine(FakeRuntime(n_seq=2)) as engine:
        generations = [engine.submit(request(200)) for _ in range(2)]
        generations[0].cancel()
        told = list(interleave(generations))
        assert told[-1][0] == 1
        assert generations[1].result(60).finish_reason == "length"


def test_a_generation_is_read_once():
    with fake_engine(FakeRuntime()) as engine:
        generations = [engine.submit(request())]
        list(interleave(generations))
        with pytest.raises(InvalidRequest):
            list(interleave(generations))


@pytest.mark.parametrize("n", [1, 2])
def test_silence_is_told(n):
    runtime = FakeRuntime(n_seq=2)
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        reader = paced(engine.submit_choices(request(5), n), 0.01)
        assert [next(reader), next(reader)] == [None, None]
        brake.release()
        told = [found for found in reader if found is not None]
        ends = [index for index, chunk in told if chunk.finish_reason is not None]
        assert sorted(ends) == list(range(n))
        assert_at_rest(engine)
