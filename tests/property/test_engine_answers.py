"""A streamed answer is the whole answer: the same text, end, counts and probabilities."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_runtime import FakeRuntime, assert_at_rest, fake_engine

from nitrolib.backends import LoadOptions
from nitrolib.demo import model_path
from nitrolib.engine import Engine, GenerationRequest
from nitrolib.sampling import SamplingParams

N_CTX = 96
GRAMMARS = ['root ::= [a-c]+ "\\n" " "+ [^a]*'] if find_spec("llguidance") else []


class Chatty(FakeRuntime):
    """Says few different bytes, so that stop strings, newlines and half characters are frequent."""

    def logits(self, seq):
        logits = super().logits(seq)
        logits[list(b"abc \n" + "é€".encode())] += 9
        logits[257] += 24
        return logits


@pytest.fixture(scope="module")
def chatty():
    with fake_engine(Chatty(n_ctx=N_CTX)) as engine:
        yield engine
        assert_at_rest(engine)


@pytest.fixture(scope="module")
def demo(backend):
    options = LoadOptions(ctx_len=N_CTX, threads=1, warm_up=False, clean_cache_threshold=0)
    with Engine.open(model_path(), options, backend=backend) as engine:
        yield engine
        assert_at_rest(engine)


params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    seed=st.integers(0, 2**31),
    top_k=st.sampled_from([0, 1, 5, 40]),
    top_p=st.sampled_from([0.5, 0.95, 1.0]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    max_tokens=st.one_of(st.none(), st.integers(0, 40), st.just(150)),
    stop=st.lists(st.text("abcé \n", min_size=1, max_size=3), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    n_probs=st.integers(0, 4),
    post_sampling_probs=st.booleans(),
    mirostat=st.sampled_from([0, 0, 0, 1, 2]),
    xtc_probability=st.sampled_from([0.0, 0.0, 0.5]),
    dry_multiplier=st.sampled_from([0.0, 0.0, 0.8]),
    dynatemp_range=st.sampled_from([0.0, 0.5]),
    grammar=st.sampled_from([None, None, *GRAMMARS]),
    n_indent=st.sampled_from([0, 0, 1, 2]),
)


def ends(request):
    """A shifting answer without a limit may go on for ever."""
    if request.context_policy == "shift" and request.params.max_tokens is None:
        return replace(request, params=replace(request.params, max_tokens=200))
    return request


requests = st.builds(
    GenerationRequest,
    prompt=st.lists(st.integers(3, 200), min_size=1, max_size=80).map(tuple),
    params=params,
    context_policy=st.sampled_from(["error", "error", "shift"]),
    n_keep=st.integers(-1, 20),
    strip_leading_space=st.booleans(),
    timings_per_token=st.booleans(),
    return_progress=st.booleans(),
).map(ends)


def told(completion):
    """All of a completion that does not depend on time."""
    return (
        completion.text,
        completion.token_ids,
        completion.finish_reason,
        completion.stop,
        completion.stop_type,
        completion.usage,
        completion.probs,
        completion.truncated,
        completion.complete,
        completion.tokens_cached,
        completion.notes,
    )


def streamed_equals_whole(engine, request):
    # Not from the cache: both evaluate the same tokens in the same parts.
    request = replace(request, cache_prompt=False)
    whole = engine.submit(replace(request, return_progress=False)).result(60)
    generation = engine.submit(request)
    chunks = list(generation)
    done = generation.result()
    assert told(done) == told(whole)
    last = chunks[-1]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert tuple(i for chunk in chunks for i in chunk.token_ids) == whole.token_ids
    assert tuple(entry for chunk in chunks for entry in chunk.probs) == whole.probs
    assert (last.finish_reason, last.stop, last.usage) == (
        whole.finish_reason,
        whole.stop,
        whole.usage,
    )
    assert {chunk.finish_reason for chunk in chunks[:-1]} <= {None}
    assert all(chunk.text or chunk.progress for chunk in chunks[:-1])
    assert all(chunk.timings is not None for chunk in chunks) or not request.timings_per_token
    if request.params.n_probs:
        assert "".join(entry.text for entry in whole.probs) == whole.text
    processed = [chunk.progress.processed for chunk in chunks if chunk.progress]
    assert processed == sorted(set(processed))
    assert processed[-1:] == [len(request.prompt)] * request.return_progress
    assert len(whole.token_ids) == whole.usage.completion_tokens
    assert not any(stop in whole.text for stop in request.params.stop)
    return whole


quick = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500
)


@quick
@given(requests)
def test_a_streamed_answer_equals_the_whole_one(chatty, request):
    streamed_equals_whole(chatty, request)


@settings(quick, max_examples=250)  # on each backend
@given(requests)
def test_a_streamed_answer_of_the_demo_model_equals_the_whole_one(demo, request):
    whole = streamed_equals_whole(demo, request)
    for entry in whole.probs:
        if request.params.post_sampling_probs:
            assert 0 < entry.prob <= 1
            assert sum(one.prob for one in entry.top) <= 1 + 1e-5
        else:
            assert entry.logprob <= 0
            assert len(entry.top) == request.params.n_probs
            assert np.exp([one.logprob for one in entry.top]).sum() <= 1 + 1e-5
