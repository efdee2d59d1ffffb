"""Constraints hold on real models: the bundled one, and one of random weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.json_schemas import ENFORCED
from support.random_answers import problems

from nitrolib import LoadOptions, SamplingParams
from nitrolib.backends import load
from nitrolib.backends.base import Feed
from nitrolib.demo import model_path
from nitrolib.sampling import Sampler
from nitrolib.sampling.constraint import compile_constraint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nitrolib.backends.base import Runtime

LIMIT = 100
# Half of the seeds on each backend: what is tried here is not the arithmetic.
SEEDS = {"ctransformers": (0, 1), "llama-cpp-python": (2, 3)}


@pytest.fixture(scope="module", params=["demo", "random"])
def runtime(
    request: pytest.FixtureRequest, tmp_path_factory: Any, backend: str
) -> Iterator[Runtime]:
    if request.param == "demo":
        path = model_path()
    else:
        path = make_llama(tmp_path_factory.mktemp("models") / "random.gguf")
    options = LoadOptions(threads=1, ngl=0, ctx_len=256, warm_up=False)
    opened = load(path, options, backend)
    yield opened
    opened.close()


def generate(runtime: Runtime, prompt: str, params: SamplingParams) -> tuple[str, bool, bool]:
    """The answer, whether it came to its end, and whether it may end where it stopped."""
    compiled = compile_constraint(params, runtime.vocabulary)
    assert compiled is not None
    constraint = compiled.start()
    sampler = Sampler(params, runtime.info.n_vocab, runtime.n_ctx, constraint=constraint)
    fed = runtime.tokenize(prompt)
    text = b""
    runtime.keep(0, 0)
    for _ in range(LIMIT):
        runtime.decode([Feed(0, fed)])
        token = sampler.sample(runtime.logits(0))
        sampler.accept([token])
        if token not in runtime.vocabulary.eog:  # it may have a text
            text += runtime.vocabulary.pieces[token]
        if token in runtime.vocabulary.eog or constraint.finished:
            return text.decode(), True, constraint.may_end
        fed = [token]
    return text.decode(errors="replace"), False, constraint.may_end


@pytest.mark.slow
def test_finished_answers_to_every_schema_validate_at_a_high_temperature(
    runtime: Runtime, backend: str
) -> None:
    finished = 0
    for number, (name, schema) in enumerate(ENFORCED.items()):
        for seed in SEEDS[backend]:
            params = SamplingParams(
                json_schema=json.dumps(schema), temperature=1.5, seed=number * 4 + seed
            )
            text, ended, may_end = generate(runtime, "Answer in JSON: ", params)
            if ended:
                finished += 1
                assert may_end, name
                assert problems(schema, json.loads(text)) == [], name
    assert finished > len(ENFORCED) / 2


def test_a_grammar_is_followed_to_its_end(runtime: Runtime) -> None:
    params = SamplingParams(grammar='root ::= ("yes" | "no") "!"', temperature=1.5, seed=3)
    text, ended, _ = generate(runtime, "Is it?", params)
    assert ended
    assert text in ("yes!", "no!")


def test_greedy_answers_follow_too(runtime: Runtime) -> None:
    schema = {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 2, "maxItems": 2}
    params = SamplingParams(json_schema=json.dumps(schema), temperature=0)
    text, ended, _ = generate(runtime, "Colours: ", params)
    assert ended
    assert problems(schema, json.loads(text)) == []
