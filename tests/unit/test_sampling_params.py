"""SamplingParams takes what is in range, refuses the rest by name, and nothing is ignored."""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.sampling import SamplingParams, check_supported, check_vocabulary, clean_stops

FIELDS = [field.name for field in dataclasses.fields(SamplingParams)]

# Field: values that are right, values that are not. Every field is here; wrong types that no field
# takes are tried on all of them.
CASES: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0, 0.0, 1, 2.5, 1e30], [-0.1, -1, 1e39]),
    "dynatemp_range": ([0, 0.5], [-0.5]),
    "dynatemp_exponent": ([0, 1, 2.5], [-1.0]),
    "top_k": ([-1, 0, 1, 40, 2**31 - 1], [-2, 2**31, 10**5000, 1.0, 40.5]),
    "top_p": ([0, 0.0, 0.5, 1, 1.0], [-0.001, 1.001, 2]),
    "min_p": ([0, 0.05, 1.0], [-0.1, 1.1]),
    "typical_p": ([0, 0.5, 1], [-0.1, 1.1]),
    "top_n_sigma": ([-1, 0, 1.5], []),
    "xtc_probability": ([0, 0.5, 1], [-0.1, 1.1]),
    "xtc_threshold": ([0, 0.1, 1], [-0.1, 1.1]),
    "repeat_penalty": ([0.5, 1, 1.1, 50], [0, 0.0, -1, 1e-39, 5e-324, 1e39]),
    "repeat_last_n": ([-1, 0, 64, 100_000], [-2, 2**31, 64.0]),
    "frequency_penalty": ([-2, 0, 0.5, 5], [1e39]),
    "presence_penalty": ([-2, 0, 0.5, 5], [-1e39]),
    "dry_multiplier": ([-0.5, 0, 0.8], []),
    "dry_base": ([1, 1.75], [0.99, -1]),
    "dry_allowed_length": ([0, 2], [-1, 2.0]),
    "dry_penalty_last_n": ([-1, 0, 64], [-2, 1.0]),
    "dry_sequence_breakers": ([("\n",), ("\n", "")], [(), ["\n"], "\n", ("\n", 1)]),
    "mirostat": ([0, 1, 2], [-1, 3, 1.0]),
    "mirostat_tau": ([0, 5], [-1]),
    "mirostat_eta": ([0, 0.1], [-0.1]),
    "min_keep": ([0, 5], [-1, 1.5]),
    "samplers": ([None, (), ("top_k", "temperature"), ("top_k", "top_k")], [("topk",), ["top_k"]]),
    "seed": ([-1, 0, 42, 2**32 - 1, 2**40, -(2**40), 10**5000], [1.5, "42"]),
    "logit_bias": (
        [(), ((0, 1.5), (0, -math.inf)), ((7, 100),)],
        [
            ((0, math.inf),),
            ((0, math.nan),),
            ((-1, 1.0),),
            ((1.0, 1.0),),
            ((0, 1.0, 2.0),),
            ((0, True),),
            ((0, False),),
            ((True, 1.0),),
            ([0, 1.0],),
            [(0, 1.0)],
            {0: 1.0},
            ((0, 1e39),),
            (("0", 1.0),),
        ],
    ),
    "ignore_eos": ([True, False], [0, 1]),
    "n_probs": ([0, 10], [-1, 1.0]),
    "post_sampling_probs": ([True, False], [0, 1]),
    "grammar": ([None, "", 'root ::= "a"'], [b"root"]),
    "json_schema": ([None, "{}"], [{}]),
    "max_tokens": ([None, 0, 1, 2**31 - 1], [-1, 2**31, 5.0]),
    "stop": ([(), ("a",), ("a", "a")], ["a", ["a"], ("",), ("a", ""), (1,), ("a" * 65_537,)]),
    "n_indent": ([0, 4], [-1, 4.0]),
    "t_max_predict_ms": ([-1, 0, 1000], [-2, 1.0]),
}


def test_every_field_has_its_cases_and_a_line_of_documentation() -> None:
    assert list(CASES) == FIELDS
    lines = (inspect.getdoc(SamplingParams) or "").splitlines()
    for field in FIELDS:
        assert any(line.startswith(f"{field} (") for line in lines)


@pytest.mark.parametrize("field", FIELDS)
def test_values_in_range_are_kept_as_they_are(field: str) -> None:
    for value in CASES[field][0]:
        kept = getattr(SamplingParams(**{field: value}), field)
        assert kept == value
        assert type(kept) is type(value)


@pytest.mark.parametrize("field", FIELDS)
def test_other_values_are_refused_by_name(field: str) -> None:
    no_field_takes = [object(), b"1", 1j, np.zeros(2), {}, math.nan, math.inf, -math.inf, [None]]
    if not isinstance(getattr(SamplingParams(), field), bool):
        no_field_takes += [True, False]
    if not any(value is None for value in CASES[field][0]):
        no_field_takes.append(None)
    for value in CASES[field][1] + no_field_takes:
        with pytest.raises(InvalidRequest) as caught:
            SamplingParams(**{field: value})
        error = caught.value
        assert error.field == field
        assert error.value is value
        assert error.allowed
        assert str(error).startswith(f"{field} must be {error.allowed}, got ")
        assert len(str(error)) < 700


def test_grammar_and_schema_together_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="not both") as caught:
        SamplingParams(grammar="root ::= [a-z]", json_schema="{}")
    assert caught.value.field == "grammar"
    SamplingParams(grammar="", json_schema="{}")


def test_the_defaults_are_those_of_the_dto() -> None:
    params = SamplingParams()
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.8, 40, 0.95, 0.05)
    assert (params.repeat_penalty, params.repeat_last_n, params.seed) == (1.1, 64, -1)
    assert (params.typical_p, params.mirostat_tau, params.mirostat_eta) == (1, 5, 0.1)
    assert (params.dry_base, params.dry_penalty_last_n) == (1.75, -1)
    assert params.dry_sequence_breakers == ("\n", ":", '"', "*")
    check_supported(params)


def test_params_are_frozen_hashable_replaceable_and_travel() -> None:
    params = SamplingParams(seed=3, stop=("x",), logit_bias=((1, -math.inf),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.seed = 4  # type: ignore[misc]
    assert dataclasses.replace(params, top_k=5).top_k == 5
    with pytest.raises(InvalidRequest):
        dataclasses.replace(params, top_k=-5)
    assert pickle.loads(pickle.dumps(params)) == params
    assert len({params, dataclasses.replace(params)}) == 1


HONOURED = {
    "temperature": 0.0,
    "dynatemp_range": 0.5,
    "dynatemp_exponent": 2.0,
    "top_k": 0,
    "top_p": 0.5,
    "min_p": 0.0,
    "typical_p": 0.9,
    "top_n_sigma": 1.0,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.3,
    "repeat_penalty": 1.5,
    "repeat_last_n": -1,
    "frequency_penalty": 1.0,
    "presence_penalty": 1.0,
    "dry_base": 2.0,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 10,
    "dry_sequence_breakers": (".",),
    "mirostat": 2,
    "mirostat_tau": 3.0,
    "mirostat_eta": 0.2,
    "min_keep": 1,
    "seed": 7,
    "logit_bias": ((1, 2.0),),
    "ignore_eos": True,
    "max_tokens": 5,
    "stop": ("END",),
    "n_probs": 1,
    "n_indent": 1,
    "t_max_predict_ms": 1,
}
# Not honoured, values of it that change nothing, and what makes a sampler honour it.
REFUSED: dict[str, tuple[Any, list[Any], str]] = {
    "samplers": (("top_k", "infill"), [None, (), ("top_k",), ("temperature", "dry")], ""),
    "dry_multiplier": (0.8, [0], "breakers"),
    "post_sampling_probs": (True, [False], "keep_survivors"),
    "grammar": ('root ::= "a"', [None, ""], "constraint"),
    "json_schema": ("{}", [None], "constraint"),
}


def test_each_field_is_honoured_or_refused() -> None:
    assert HONOURED.keys() | REFUSED.keys() == set(FIELDS)


def test_what_is_honoured_is_supported() -> None:
    check_supported(SamplingParams(**HONOURED))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", REFUSED)
def test_what_is_not_honoured_is_refused_unless_it_changes_nothing(field: str) -> None:
    value, neutral, needed = REFUSED[field]
    with pytest.raises(Unsupported) as caught:
        check_supported(SamplingParams(**{field: value}))
    assert (caught.value.field, caught.value.value) == (field, value)
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)
    for other in neutral:
        check_supported(SamplingParams(**{field: other}))
    for given in ("breakers", "constraint", "keep_survivors"):
        if given == needed:
            check_supported(SamplingParams(**{field: value}), [given])
        else:
            with pytest.raises(Unsupported):
                check_supported(SamplingParams(**{field: value}), [given])


@pytest.mark.parametrize(
    "off", [{"dry_penalty_last_n": 0}, {"samplers": ("top_k",)}, {"mirostat": 1}]
)
def test_dry_that_another_field_switches_off_needs_nothing(off: dict[str, Any]) -> None:
    check_supported(SamplingParams(dry_multiplier=0.8, **off))


def test_a_bias_of_a_token_that_is_not_there_is_refused() -> None:
    params = SamplingParams(logit_bias=((5, 1.0), (10, -math.inf)))
    check_vocabulary(params, 11)
    with pytest.raises(InvalidRequest, match=r"token 10.* last token is 9") as caught:
        check_vocabulary(params, 10)
    assert (caught.value.field, caught.value.value) == ("logit_bias", 10)


def test_clean_stops_drops_empty_and_repeated_strings_in_order() -> None:
    assert clean_stops(["b", "", "a", "b", " ", ""]) == ("b", "a", " ")
    assert clean_stops(()) == ()
    SamplingParams(stop=clean_stops(["", "x", "x"]))
