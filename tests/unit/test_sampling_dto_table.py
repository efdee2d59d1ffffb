"""One row for every field of SamplingParams: what changes when it is used, or the tests that prove
it where a sampler alone cannot show it. A new field fails until it has its row; the fields of a
request have a table of their own beside the REST tests."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.sampling import Breakers, Sampler, SamplingParams
from nitrolib.sampling.params import SAMPLER_NAMES

ROOT = Path(__file__).resolve().parents[2]


class Changes(NamedTuple):
    """Honoured by the sampler: with the values of `on`, these two values of the field give other
    tokens."""

    one: Any
    other: Any
    on: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Proved(NamedTuple):
    """Honoured outside of the sampler: the tests that fail if it is ignored."""

    tests: tuple[str, ...]


PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
DRY = {**PLAIN, "dry_multiplier": 2.0, "dry_allowed_length": 1}
ROWS: dict[str, Changes | Proved] = {
    "temperature": Changes(0.8, 1.5),
    "dynatemp_range": Changes(0.0, 0.7),
    "dynatemp_exponent": Changes(1.0, 3.0, {"dynatemp_range": 0.7}),
    "top_k": Changes(40, 2),
    "top_p": Changes(0.95, 0.3),
    "min_p": Changes(0.05, 0.5),
    "typical_p": Changes(1.0, 0.3),
    "top_n_sigma": Changes(-1.0, 0.5, PLAIN),
    "xtc_probability": Changes(0.0, 1.0),
    "xtc_threshold": Changes(0.1, 0.3, {"xtc_probability": 1.0}),
    "repeat_penalty": Changes(1.0, 1.8),
    "repeat_last_n": Changes(64, 0, {"repeat_penalty": 1.8}),
    "frequency_penalty": Changes(0.0, 1.0),
    "presence_penalty": Changes(0.0, 2.0),
    "dry_multiplier": Changes(0.0, 4.0, PLAIN),
    "dry_base": Changes(1.1, 9.0, {**DRY, "dry_allowed_length": 0}),
    "dry_allowed_length": Changes(1, 3, DRY),
    "dry_penalty_last_n": Changes(-1, 6, DRY),
    "dry_sequence_breakers": Proved(
        (
            "tests/unit/test_sampling_dry.py::test_a_breaker_of_the_sampler_ends_the_match",
            "tests/unit/test_sampling_dry.py::test_breakers_become_patterns_of_tokens",
        )
    ),
    "mirostat": Changes(1, 2),
    "mirostat_tau": Changes(5.0, 1.0, {"mirostat": 2}),
    "mirostat_eta": Changes(0.1, 1.0, {"mirostat": 2, "mirostat_tau": 1.0}),
    "min_keep": Changes(0, 30, {"top_p": 0.1}),
    "samplers": Changes(None, ("temperature", "top_p"), {"top_p": 0.5}),
    "seed": Changes(1, 2),
    "logit_bias": Changes((), ((7, 9.0),)),
    "ignore_eos": Proved(("tests/unit/test_engine_generation.py::test_ignore_eos_goes_on",)),
    "n_probs": Proved(
        ("tests/unit/test_engine_probs.py::test_the_numbers_are_those_of_the_raw_logits",)
    ),
    "post_sampling_probs": Proved(
        (
            "tests/unit/test_engine_constraints.py::"
            "test_probabilities_after_sampling_are_those_the_token_was_drawn_with",
        )
    ),
    "grammar": Proved(
        (
            "tests/unit/test_engine_constraints.py::"
            "test_an_answer_follows_its_grammar_at_every_temperature",
            "tests/unit/test_sampling_legality.py::test_the_token_is_always_legal",
        )
    ),
    "json_schema": Proved(
        ("tests/unit/test_engine_constraints.py::test_an_answer_follows_its_schema",)
    ),
    "max_tokens": Proved(
        (
            "tests/unit/test_engine_generation.py::"
            "test_max_tokens_ends_with_length_and_flushes_held_back_text",
        )
    ),
    "stop": Proved(("tests/unit/test_engine_generation.py::test_a_stop_string_is_cut_and_named",)),
    "n_indent": Proved(
        (
            "tests/unit/test_engine_ending.py::"
            "test_a_line_indented_too_little_ends_the_text_before_its_first_character",
        )
    ),
    "t_max_predict_ms": Proved(
        ("tests/unit/test_engine_ending.py::test_the_time_limit_ends_the_answer_with_a_newline",)
    ),
}


def test_every_field_has_a_row() -> None:
    assert list(ROWS) == [field.name for field in dataclasses.fields(SamplingParams)]


def tokens(params: SamplingParams) -> list[int]:
    """Sixty tokens with a vocabulary of fifty, after a prompt that repeats itself."""
    rng = np.random.default_rng(5)
    sampler = Sampler(params, 50, 100, breakers=Breakers(frozenset(), {}))
    sampler.accept_prompt([1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3] * 4)
    found = []
    for _ in range(60):
        token = sampler.sample(rng.normal(0, 1.5, 50).astype(np.float32))
        sampler.accept([token])
        found.append(token)
    return found


@pytest.mark.parametrize("field", [name for name, row in ROWS.items() if isinstance(row, Changes)])
def test_the_field_changes_the_tokens(field: str) -> None:
    row = ROWS[field]
    assert isinstance(row, Changes)
    values = {"seed": 3, "repeat_penalty": 1.0, **row.on}
    one, again, other = (
        tokens(SamplingParams(**{**values, field: value}))
        for value in (row.one, row.one, row.other)
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize("field", [name for name, row in ROWS.items() if isinstance(row, Proved)])
def test_the_tests_that_prove_the_field_are_there(field: str) -> None:
    row = ROWS[field]
    assert isinstance(row, Proved)
    for test in row.tests:
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        if name:
            defined = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
            assert name in {function.name for function in defined}
    assert any(field in (ROOT / test.partition("::")[0]).read_text("utf-8") for test in row.tests)


def test_the_samplers_that_are_not_there_are_refused() -> None:
    for name in sorted(SAMPLER_NAMES - set(SamplingParams().order)):
        with pytest.raises(Unsupported) as caught:
            Sampler(SamplingParams(samplers=("top_k", name)), 50, 100)
        assert caught.value.field == "samplers"
    with pytest.raises(InvalidRequest):
        SamplingParams(samplers=("tfs_z",))
