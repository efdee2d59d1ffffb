"""The probabilities an answer comes with: one entry a step, with the text the step sent."""

from __future__ import annotations

import numpy as np
import pytest
from support.fake_runtime import BOS, EOS, Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.backends.base import Feed
from nitrolib.engine import probs
from nitrolib.errors import Cancelled, InvalidRequest
from nitrolib.sampling import SamplingParams


@pytest.fixture
def runtime():
    return FakeRuntime()


@pytest.fixture
def engine(runtime):
    with fake_engine(runtime) as engine:
        yield engine
        assert_at_rest(engine)


def greedy(**changes):
    return SamplingParams(**{"temperature": 0, "repeat_penalty": 1.0, "n_probs": 3, **changes})


def says(text, at=3, end=EOS):
    script = dict(enumerate(text.encode(), start=at))
    return {**script, at + len(text.encode()): end}


def texts(done):
    return [entry.text for entry in done.probs]


def test_every_sampled_token_has_an_entry_the_end_token_too(engine, runtime):
    runtime.script = says("abc")
    done = engine.complete("ab", greedy())
    assert [entry.id for entry in done.probs] == [*b"abc", EOS]
    assert texts(done) == ["a", "b", "c", ""]


def test_nothing_comes_unasked(engine):
    generation = engine.stream("ab", greedy(n_probs=0, max_tokens=4))
    assert not any(chunk.probs for chunk in generation)
    assert generation.result().probs == ()


def test_the_numbers_are_those_of_the_raw_logits(engine, runtime):
    """Not of the biased, penalised, truncated ones: a banned token keeps its own."""
    history = [BOS, *b"ab"]
    other = FakeRuntime()
    other.decode([Feed(0, history)])
    raw = other.logits(0).astype(np.float64)
    raw -= raw.max() + np.log(np.exp(raw - raw.max()).sum())
    best = np.argsort(-raw)[:5]
    how = greedy(
        n_probs=5,
        max_tokens=1,
        temperature=0.1,
        top_k=2,
        repeat_penalty=2.0,
        logit_bias=((int(best[0]), -np.inf), (7, 100.0)),
    )
    (entry,) = engine.complete("ab", how).probs
    assert entry.id == 7
    assert entry.logprob == pytest.approx(raw[7], abs=1e-5)
    assert entry.prob is None
    assert [one.id for one in entry.top] == best.tolist()
    assert [one.logprob for one in entry.top] == pytest.approx(raw[best], abs=1e-5)
    assert [one.piece for one in entry.top] == [bytes((i,)) for i in best]


def test_as_many_come_as_were_asked_for_and_never_more_than_there_are(engine):
    assert len(engine.complete("ab", greedy(max_tokens=1)).probs[0].top) == 3
    assert len(engine.complete("ab", greedy(n_probs=999, max_tokens=1)).probs[0].top) == 260


def test_a_character_of_several_tokens_has_one_entry_with_all_of_it(engine, runtime):
    runtime.script = says("€x")
    done = engine.complete("ab", greedy())
    assert texts(done) == ["€", "x", ""]
    assert done.probs[0].id == "€".encode()[-1]


def test_half_a_character_at_the_limit_has_an_entry(engine, runtime):
    runtime.script = says("a€")
    done = engine.complete("ab", greedy(max_tokens=3))
    assert texts(done) == ["a", "�"]


def test_text_held_back_goes_with_the_step_that_releases_it(engine, runtime):
    runtime.script = says("aENx")
    assert texts(engine.complete("ab", greedy(stop=("END",)))) == ["a", "", "", "ENx", ""]


def test_text_held_back_at_the_end_goes_with_the_last_step(engine, runtime):
    runtime.script = says("aEN")
    assert texts(engine.complete("ab", greedy(stop=("END",)))) == ["a", "", "", "EN"]
    assert texts(engine.complete("ab", greedy(stop=("END",), max_tokens=2))) == ["a", "E"]


def test_the_steps_that_spelled_a_stop_string_are_cut(engine, runtime):
    runtime.script = says("aEND")
    done = engine.complete("ab", greedy(stop=("END",)))
    assert texts(done) == ["a"]
    assert done.token_ids == tuple(b"aEND")


def test_a_stop_string_that_begins_anew_leaves_what_was_sent(engine, runtime):
    runtime.script = says("aENEND")
    done = engine.complete("ab", greedy(stop=("END",)))
    assert texts(done) == ["a", "", "", "EN"]
    assert done.text == "aEN"


def test_leading_white_space_that_is_dropped_has_entries_without_text(engine, runtime):
    runtime.script = says(" \nHi")
    done = engine.complete("ab", greedy(), strip_leading_space=True)
    assert texts(done) == ["", "", "H", "i", ""]


def test_chunks_bring_the_entries_of_their_text(engine, runtime):
    runtime.script = says("aENx€END")
    generation = engine.stream("ab", greedy(stop=("END",)))
    chunks = list(generation)
    done = generation.result()
    assert tuple(entry for chunk in chunks for entry in chunk.probs) == done.probs
    for chunk in chunks:
        assert "".join(entry.text for entry in chunk.probs) == chunk.text
    assert "".join(texts(done)) == done.text == "aENx€"


def test_a_cancelled_answer_has_the_entries_of_its_text(engine, runtime):
    runtime.script = says("xEEEEEEEE")
    brake = Brake(runtime)
    generation = engine.stream("ab", greedy(stop=("EEEEEEEEEEEE",)))
    for _ in range(5):
        brake.wait()
        brake.let_go()
    brake.wait()
    generation.cancel()
    brake.release()
    with pytest.raises(Cancelled) as caught:
        generation.result()
    partial = caught.value.partial
    assert len(partial.text) == len(partial.probs) >= 2
    assert "".join(texts(partial)) == partial.text


def test_more_probabilities_than_memory_should_hold_are_refused(engine, monkeypatch):
    monkeypatch.setattr(probs, "MAX_ENTRIES", 100)
    engine.complete("ab", greedy(n_probs=10, max_tokens=10))
    with pytest.raises(InvalidRequest) as caught:
        engine.complete("ab", greedy(n_probs=11, max_tokens=10))
    assert (caught.value.field, caught.value.value) == ("n_probs", 11)
    with pytest.raises(InvalidRequest):
        engine.complete("ab", greedy(n_probs=1))  # as many tokens as the context holds
