"""The engine on llama-cpp-python: slots share every evaluation, and nobody's answer shows it.

The weights are F32: with quantised ones the kernels differ by the width of a batch, and the answer
may change where the two best logits are close.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from support.fake_runtime import assert_at_rest
from support.gguf_maker import make_llama

from nitrolib.backends import LoadOptions
from nitrolib.backends.base import Interrupted
from nitrolib.engine import Engine, GenerationRequest
from nitrolib.errors import BackendError, Cancelled
from nitrolib.sampling import Sampler, SamplingParams

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

N_SEQ = 8
SYSTEM = tuple(3 + index * 11 % 500 for index in range(300))


def greedy(**changes):
    fields = {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 40, "ignore_eos": True}
    return SamplingParams(**{**fields, **changes})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("model") / "tiny.gguf", quant="F32")


def opened(path, **options):
    fields = {"n_parallel": N_SEQ, "ctx_len": N_SEQ * 512, "threads": 1, **options}
    return Engine.open(path, LoadOptions(**fields), "llama-cpp-python")


@pytest.fixture(scope="module")
def shared(path):
    with opened(path) as engine:
        yield engine


@pytest.fixture
def engine(shared):
    yield shared
    shared.clear_cache()
    assert_at_rest(shared)


def ask(engine, prompt, params=None, **fields):
    return engine.submit(
        GenerationRequest(prompt=tuple(prompt), params=params or greedy(), **fields)
    )


@pytest.fixture(scope="module")
def alone(shared):
    """Eight prompts, and what each gives with nobody beside it, from an empty cache. Left out are
    prompts after which two logits come closer than the arithmetic is exact: how tokens are grouped
    moves a logit by about 0.001, so such an answer may change, and rightly."""
    answers, gaps = {}, []
    inner = Sampler.sample

    def sample(self, row):
        second, best = np.partition(row, -2)[-2:]
        gaps.append(best - second)
        return inner(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "sample", sample)
        for j in itertools.count():
            prompt = tuple(3 + (i * 7 + j * 13) % 500 for i in range(20 + j * 97 % 280))
            shared.clear_cache()
            gaps.clear()
            tokens = ask(shared, prompt).result(60).token_ids
            if min(gaps) > 0.01:
                answers[prompt] = tokens
            if len(answers) == N_SEQ:
                break
    return answers


def test_a_request_alone_gives_the_tokens_it_gives_among_seven_others(engine, alone):
    together = [ask(engine, prompt) for prompt in alone]
    assert [one.result(60).token_ids for one in together] == list(alone.values())
    again = [ask(engine, prompt) for prompt in reversed(alone)]
    assert [one.result(60).token_ids for one in again] == list(alone.values())[::-1]
    assert all(one.result().usage.cached_tokens for one in again)


def test_requests_that_come_and_go_at_any_time_disturb_nobody(engine, alone):
    outcomes = {}

    def client(number):
        prompt = list(alone)[number]
        time.sleep(number * 0.01)
        for _ in range(3):
            outcomes.setdefault(number, []).append(ask(engine, prompt).result(60).token_ids)
            for chunk in ask(engine, prompt[::-1]):
                if chunk.text:
                    break

    threads = [threading.Thread(target=client, args=(n,)) for n in range(N_SEQ)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert outcomes == {n: [alone[prompt]] * 3 for n, prompt in enumerate(alone)}


def test_eight_clients_with_one_system_prompt_evaluate_it_once(engine):
    together = [ask(engine, (*SYSTEM, 5 + n)) for n in range(N_SEQ)]
    done = [one.result(60) for one in together]
    assert sorted(one.usage.cached_tokens for one in done)[1:] == [300] * 7
    for n, one in enumerate(done):
        fresh = ask(engine, (*SYSTEM, 5 + n), cache_prompt=False).result(60)
        assert fresh.token_ids == one.token_ids


def test_ten_turns_evaluate_only_what_is_new(engine):
    said = SYSTEM[:20]
    for turn in range(10):
        done = ask(engine, said, greedy(max_tokens=15)).result(60)
        new = 5 if turn else 20
        assert done.timings.prompt_n == new + (1 if turn else 0)  # the last token was never fed
        said = (*said, *done.token_ids, 7, 8, 9, 10, 11)


def test_a_full_shared_cache_sets_back_and_gives_the_same_tokens(path, alone):
    with opened(path, ctx_len=512, shared_context=True) as engine:
        few = list(alone)[:6]
        together = [ask(engine, prompt, greedy(max_tokens=40)) for prompt in few]
        assert [one.result(60).token_ids for one in together] == [alone[prompt] for prompt in few]
        assert not any(one.result().truncated for one in together)
        long = ask(engine, SYSTEM, greedy(max_tokens=None)).result(60)
        assert long.usage.total_tokens == 512
        engine.clear_cache()
        assert_at_rest(engine)


def test_an_answer_outgrows_its_context_beside_others(engine, alone):
    prompt, *rest = alone
    endless = ask(engine, prompt, greedy(max_tokens=1000), context_policy="shift")
    others = [ask(engine, one) for one in rest]
    assert [one.result(60).token_ids for one in others] == [alone[one] for one in rest]
    done = endless.result(60)
    assert (len(done.token_ids), done.truncated) == (1000, True)
    assert done.token_ids[:40] == alone[prompt]


@pytest.mark.parametrize("how", ["cancel", "deadline", "unload"])
def test_a_long_prompt_is_left_in_the_middle_of_its_one_evaluation(tmp_path, how):
    path = make_llama(tmp_path / "wide.gguf", shape="15M", n_ctx_train=2048)
    begin = time.perf_counter()
    assert not left_early(path, None, 0)
    whole = time.perf_counter() - begin
    # A busy machine may be late with one of them: before the evaluation or after it.
    assert any(left_early(path, how, whole * part) for part in (0.25, 0.5, 0.4, 0.3, 0.6, 0.7))


def left_early(path, how, wait):
    """Whether a prompt of 2,000 tokens that is left so was left within its evaluation: after so
    many seconds of it, or so many seconds after it was asked where a deadline leaves it."""
    options = {"n_parallel": 1, "ctx_len": 2048, "n_batch": 2048, "warm_up": False}
    inside, outcomes = threading.Event(), []
    with opened(path, **options) as engine:
        runtime = engine._model.scheduler.runtime
        decode = runtime.decode

        def watched(feeds):
            inside.set()
            try:
                decode(feeds)
            except Interrupted:
                outcomes.append("interrupted")
                raise
            outcomes.append("whole")

        runtime.decode = watched
        prompt = [3 + index % 400 for index in range(2000)]
        late = {"timeout_s": wait} if how == "deadline" else {}
        generation = ask(engine, prompt, greedy(max_tokens=1), **late)
        if how in ("cancel", "unload"):
            inside.wait(60)
            time.sleep(wait)
            (generation.cancel if how == "cancel" else engine.unload)()
        with suppress(Cancelled):  # or it was whole before
            generation.result(120)
    return outcomes == ["interrupted"]


@pytest.mark.parametrize("params", [greedy(), greedy(temperature=0.8, seed=1)])
def test_logits_that_are_not_finite_fail_their_request_alone(engine, monkeypatch, params):
    runtime = engine._model.scheduler.runtime
    decode = runtime.decode
    both_asked = threading.Event()  # or the first could be done before the second comes

    def poisoned(feeds):
        both_asked.wait(60)
        decode(feeds)
        if len(feeds) == 2 and len(feeds[1].tokens) == 1:
            runtime._logits[1, 3] = np.nan

    monkeypatch.setattr(runtime, "decode", poisoned)
    sound, broken = (ask(engine, range(3, 3 + n), params) for n in (9, 12))
    both_asked.set()
    with pytest.raises(BackendError, match="NaN"):
        broken.result(60)
    assert sound.result(60).usage.completion_tokens == 40
    assert runtime.length(1 - sound.result().slot) == 0  # nobody goes on from NaN
