"""Choices, shifted contexts and constraints on the real native library, one native thread."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.fake_runtime import assert_at_rest
from support.gguf_maker import make_llama
from support.models import EXACT

from nitrolib.backends import LoadOptions
from nitrolib.demo import model_path
from nitrolib.engine import Engine, GenerationRequest
from nitrolib.sampling import SamplingParams


@pytest.fixture(scope="module")
def path(tmp_path_factory, backend):
    folder = tmp_path_factory.mktemp("model")
    return make_llama(folder / "tiny.gguf", quant=EXACT[backend])


@pytest.fixture
def engine(path, backend):
    options = LoadOptions(n_parallel=2, ctx_len=512, threads=1, clean_cache_threshold=0)
    with Engine.open(path, options, backend=backend) as engine:
        yield engine
        engine.clear_cache()
        assert_at_rest(engine)


def request(seed=3, prompt=None, **fields):
    how = SamplingParams(temperature=1, seed=seed, max_tokens=12, ignore_eos=True)
    prompt = tuple(range(5, 155)) if prompt is None else prompt
    return GenerationRequest(**{"prompt": prompt, "params": how, **fields})


def test_choices_are_the_answers_to_their_seeds(engine):
    choices = [one.result(60) for one in engine.submit_choices(request(), 4)]
    engine.clear_cache()
    alone = [engine.submit(request(seed=3 + j)).result(60) for j in range(4)]
    assert [one.token_ids for one in choices] == [one.token_ids for one in alone]
    assert sum(one.usage.prompt_tokens - one.usage.cached_tokens for one in choices) == 150 + 3


def moves_cells(engine):
    """Whether a shift moves what was evaluated; else what is kept is evaluated again."""
    return "shift" in engine._model.runtime.capabilities


def test_a_shifted_answer_goes_on_as_one_from_the_kept_tokens_does(engine):
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=300, ignore_eos=True)
    done = engine.complete(range(5, 16), how, context_policy="shift", n_keep=3)
    whole = (*range(5, 16), *done.token_ids)
    keep, discard, full = 4, (255 - 4) // 2, 255
    assert (len(done.token_ids), done.truncated) == (300, True)
    assert done.tokens_cached == 11 + 299 - discard
    assert f"{discard} tokens after the first {keep} were dropped" in done.notes[0]
    held = engine.status().model.slots[done.slot].cached_tokens
    assert held == (0 if moves_cells(engine) else done.tokens_cached)
    kept = whole[:keep] + whole[keep + discard : full + 1]
    engine.clear_cache()
    fresh = engine.complete(kept, SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=55))
    # What was moved still knows what was dropped: the answer may go on otherwise.
    if not moves_cells(engine):
        assert fresh.token_ids == done.token_ids[245:300][: len(fresh.token_ids)]


def test_what_a_shift_left_in_the_cache_is_true(engine):
    """The slot's record after a shift serves the next prompt, or none; and changes nothing."""
    how = SamplingParams(temperature=0, repeat_penalty=1.0, max_tokens=300, ignore_eos=True)
    done = engine.complete(range(5, 16), how, context_policy="shift")
    whole = (*range(5, 16), *done.token_ids)
    held = whole[:1] + whole[128:-1]
    more = engine.complete((*held, 7), SamplingParams(temperature=0, max_tokens=12))
    assert more.usage.cached_tokens == (0 if moves_cells(engine) else len(held))
    engine.clear_cache()
    fresh = engine.complete((*held, 7), SamplingParams(temperature=0, max_tokens=12))
    assert fresh.token_ids == more.token_ids


# ---- constraints on the bundled model


@pytest.fixture(scope="module")
def demo(backend):
    options = LoadOptions(n_parallel=2, ctx_len=1024, threads=1, clean_cache_threshold=0)
    with Engine.open(model_path(), options, backend=backend) as engine:
        yield engine
        assert_at_rest(engine)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["cat", "dog"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 8},
    },
    "required": ["name", "kind", "legs"],
    "additionalProperties": False,
}


def test_answers_under_a_schema_are_valid_or_marked_incomplete(demo):
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("llguidance")
    how = [
        SamplingParams(
            temperature=1.5, seed=seed, json_schema=json.dumps(SCHEMA), max_tokens=120, n_probs=2
        )
        for seed in range(6)
    ]
    running = [demo.stream("An animal: ", one) for one in how]
    done = [one.result(60) for one in running]
    assert any(one.complete for one in done)
    for one in done:
        assert "".join(entry.text for entry in one.probs) == one.text
        if one.complete:
            assert one.finish_reason == "stop"
            jsonschema.validate(json.loads(one.text), SCHEMA)
        else:
            assert one.finish_reason == "length"


def test_a_constraint_that_allows_everything_changes_no_token(demo):
    pytest.importorskip("llguidance")
    free = SamplingParams(temperature=1, seed=5, max_tokens=40)
    held = replace(free, grammar="root ::= [^\\x00]*")
    answers = []
    for how in (free, held):
        demo.clear_cache()  # a prefix that was evaluated in company is rounded otherwise
        answers.append(demo.complete("Once", how).token_ids)
    assert answers[0] == answers[1]
