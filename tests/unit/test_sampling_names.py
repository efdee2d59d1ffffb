"""The names of samplers: every alias of the reference, letters, and what is no name."""

from __future__ import annotations

from typing import Any

import pytest

from nitrolib.errors import InvalidRequest
from nitrolib.sampling import DEFAULT_SAMPLERS, SamplingParams, parse_samplers
from nitrolib.sampling.params import SAMPLER_NAMES

ALIASES = {
    "penalties": ["Penalties"],
    "dry": ["DRY"],
    "top_n_sigma": ["top-n-sigma", "topnsigma", "Top_N_Sigma"],
    "top_k": ["top-k", "topk", "TOP_K", "TopK"],
    "typ_p": ["typ-p", "typp", "typ", "typical", "typical-p", "typical_p", "Typical_P"],
    "top_p": ["top-p", "topp", "nucleus", "NUCLEUS"],
    "min_p": ["min-p", "minp"],
    "xtc": ["XTC"],
    "temperature": ["temp", "Temperature", "TEMP"],
    "infill": ["INFILL"],
    "adaptive_p": ["adaptive-p", "adaptivep"],
}


def test_every_sampler_has_its_names() -> None:
    assert ALIASES.keys() == SAMPLER_NAMES
    for name, aliases in ALIASES.items():
        assert parse_samplers([name, *aliases]) == (name,) * (1 + len(aliases))


def test_a_string_is_one_sampler_a_letter() -> None:
    assert parse_samplers("edskypmxt") == DEFAULT_SAMPLERS
    assert parse_samplers("kpt") == ("top_k", "top_p", "temperature")
    assert parse_samplers("ia") == ("infill", "adaptive_p")
    assert parse_samplers("") == parse_samplers([]) == ()


def test_order_and_repetitions_are_kept() -> None:
    names = parse_samplers(["temperature", "top_k", "top-k"])
    assert names == ("temperature", "top_k", "top_k")
    assert SamplingParams(samplers=names).order == names
    assert SamplingParams().order == DEFAULT_SAMPLERS


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (["top_k", "tfs_z"], "samplers/1"),
        (["top_k", "top_k "], "samplers/1"),
        ([""], "samplers/0"),
        ([None], "samplers/0"),
        ([["top_k"]], "samplers/0"),
        ("kz", "samplers"),
        ("K", "samplers"),
        ("top_k", "samplers"),
        (5, "samplers"),
        ({"top_k": 1}, "samplers"),
        (None, "samplers"),
        (True, "samplers"),
    ],
)
def test_what_is_no_name_is_refused_where_it_stands(value: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match="must be names among") as caught:
        parse_samplers(value)
    assert caught.value.field == field
