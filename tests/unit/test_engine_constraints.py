"""Answers that must follow a grammar or a schema: where they end, and when they are complete."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.fake_runtime import Brake, FakeRuntime, assert_at_rest, fake_engine

from nitrolib.engine import GenerationRequest
from nitrolib.errors import Cancelled, InvalidRequest
from nitrolib.sampling import SamplingParams

pytest.importorskip("llguidance")

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"enum": ["Ann", "Bob"]}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


class Ending(FakeRuntime):
    """Ends as readily as it says anything else."""

    def logits(self, seq):
        logits = super().logits(seq)
        logits[257] = 3
        return logits


@pytest.fixture
def engine():
    with fake_engine(Ending(n_ctx=400)) as engine:
        yield engine
        assert_at_rest(engine)


def params(**changes):
    return SamplingParams(**{"temperature": 1.0, "seed": 1, **changes})


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_follows_its_schema(engine, seed):
    done = engine.complete("ab", params(json_schema=SCHEMA, seed=seed))
    assert done.complete == (done.finish_reason == "stop")
    if done.complete:
        found = json.loads(done.text)
        assert found["name"] in ("Ann", "Bob")
        assert isinstance(found["age"], int)
        assert done.notes == ()
    else:
        assert done.truncated
        assert "before its grammar or schema was complete" in done.notes[-1]


def test_an_answer_follows_its_grammar_at_every_temperature(engine):
    for temperature in (0.0, 0.7, 3.0):
        how = params(grammar='root ::= "yes" | "no"', temperature=temperature)
        done = engine.complete("ab", how)
        assert done.text in ("yes", "no")
        assert (done.finish_reason, done.stop, done.stop_type) == ("stop", None, "eos")
        assert done.complete


def test_an_end_token_is_legal_only_where_the_grammar_may_end(engine):
    texts = {
        engine.complete((seed,), params(grammar='root ::= "abc" "d"*', seed=seed)).text
        for seed in range(20)
    }
    assert all(text == "abc" + "d" * (len(text) - 3) for text in texts)
    assert "abc" in texts
    assert len(texts) > 1


def test_it_ends_when_nothing_may_follow_also_without_end_tokens(engine):
    done = engine.complete("ab", params(grammar='root ::= "yes"', ignore_eos=True))
    assert (done.text, done.finish_reason, done.complete) == ("yes", "stop", True)
    assert done.token_ids == tuple(b"yes")


def test_a_limit_that_cuts_it_marks_it_incomplete(engine):
    done = engine.complete("ab", params(grammar='root ::= "yes"', max_tokens=2))
    assert (done.text, done.finish_reason, done.complete) == ("ye", "length", False)
    assert engine.complete("ab", params(grammar='root ::= "yes"', max_tokens=3)).complete


def test_a_limit_where_it_might_end_leaves_it_complete(engine):
    how = params(grammar='root ::= "a"+', max_tokens=4, ignore_eos=True)
    done = engine.complete("ab", how)
    assert (done.text, done.finish_reason, done.complete) == ("aaaa", "length", True)


def test_a_stop_string_that_cuts_it_marks_it_incomplete(engine):
    done = engine.complete("ab", params(grammar='root ::= "yes"', stop=("es",)))
    assert (done.text, done.stop, done.complete) == ("y", "es", False)


def test_an_answer_without_a_constraint_is_complete(engine):
    assert engine.complete("ab", params(max_tokens=2)).complete


def test_a_cancelled_one_is_marked_too():
    runtime = FakeRuntime()
    with fake_engine(runtime) as engine:
        brake = Brake(runtime)
        generation = engine.stream("ab", params(grammar='root ::= "yes"'))
        brake.wait()
        brake.step()
        generation.cancel()
        brake.release()
        with pytest.raises(Cancelled) as caught:
            generation.result(60)
        assert not caught.value.partial.complete


def test_the_prompt_is_no_part_of_it(engine):
    assert engine.complete("yes", params(grammar='root ::= "no"')).text == "no"


@pytest.mark.parametrize(
    ("field", "value"),
    [("grammar", "root ::= ("), ("grammar", "leaf ::= 'x'"), ("json_schema", '{"type": 3}')],
)
def test_a_bad_one_is_refused_before_it_is_queued(engine, field, value):
    with pytest.raises(InvalidRequest) as caught:
        engine.stream("ab", params(**{field: value}))
    assert caught.value.field == field
    assert engine.status().running == 0


def test_each_choice_has_its_own(engine):
    request = GenerationRequest(prompt=(1, 2), params=params(grammar='root ::= [a-z] [0-9] "!"'))
    texts = [one.result(60).text for one in engine.submit_choices(request, 6)]
    assert all(text[2:] == "!" and text[0].islower() and text[1].isdigit() for text in texts)
    assert len(set(texts)) > 1


def test_what_was_compiled_goes_with_the_model():
    from nitrolib.sampling import constraint

    runtime = Ending()
    with fake_engine(runtime) as engine:
        engine.complete("ab", params(grammar='root ::= "a"'))
        assert id(runtime.vocabulary) in constraint._KEPT
    assert id(runtime.vocabulary) not in constraint._KEPT


# ---- the sampler's other needs


def test_probabilities_after_sampling_are_those_the_token_was_drawn_with(engine):
    how = params(n_probs=3, post_sampling_probs=True, max_tokens=5, top_k=2, repeat_penalty=1.0)
    for entry in engine.complete("ab", how).probs:
        assert entry.logprob is None
        assert 0 < entry.prob <= 1
        assert len(entry.top) <= 2
        assert sum(one.prob for one in entry.top) == pytest.approx(1)
        assert entry.prob == {one.id: one.prob for one in entry.top}[entry.id]
        assert all(one.logprob is None for one in entry.top)


def test_a_greedy_token_has_probability_one_after_sampling(engine):
    how = params(n_probs=4, post_sampling_probs=True, max_tokens=3, temperature=0)
    for entry in engine.complete("ab", how).probs:
        assert entry.prob == 1
        assert [(one.id, one.prob) for one in entry.top] == [(entry.id, 1)]


def test_probabilities_under_a_grammar_are_raw_before_and_legal_after(engine):
    raw = params(n_probs=260, grammar='root ::= "yes"')
    assert len(engine.complete("ab", raw).probs[0].top) == 260
    after = params(n_probs=260, grammar='root ::= "yes"', post_sampling_probs=True)
    assert [one.id for one in engine.complete("ab", after).probs[0].top] == [ord("y")]


def test_dry_finds_its_breakers_in_the_vocabulary():
    """A loop of three bytes is broken by DRY, and not where one of them is a breaker."""

    class Loop(FakeRuntime):
        def logits(self, seq):
            row = np.full(260, -9, np.float32)
            row[97 + len(self.cells[seq]) % 3] = 5
            row[120] = 0
            return row

    with fake_engine(Loop()) as engine:
        how = {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 30, "dry_multiplier": 9.0}
        assert "x" in engine.complete("..", SamplingParams(**how)).text
        broken = SamplingParams(**how, dry_sequence_breakers=("a", "b", "c"))
        assert "x" not in engine.complete("..", broken).text
