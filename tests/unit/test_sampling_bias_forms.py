"""Every form of a logit bias, and what is none."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nitrolib.errors import InvalidRequest
from nitrolib.sampling import SamplingParams, parse_logit_bias

INF = math.inf


def letters(text: str) -> list[int]:
    """One token a letter: its code."""
    return list(text.encode())


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        ({}, ()),
        ([], ()),
        ([[40, 1.5], ["ab", False]], ((40, 1.5), (97, -INF), (98, -INF))),
        ({"40": 1.5, "ab": False}, ((40, 1.5), (97, -INF), (98, -INF))),
        ({40: 2}, ((40, 2.0),)),
        ({"0": 1, "+1": 2, "007": 3}, ((0, 1.0), (1, 2.0), (7, 3.0))),
        ([["40", 1]], ((52, 1.0), (48, 1.0))),  # in a pair a string is a text
        ({" 4": 1}, ((32, 1.0), (52, 1.0))),
        ([[1, 1], [1, 1.5], [1, False]], ((1, 1.0), (1, 1.5), (1, -INF))),
        ({"aa": -3}, ((97, -3.0), (97, -3.0))),
        ([[99, 250], [98, -250.0]], ((99, 250.0), (98, -250.0))),  # no clamp to 100
        (((1, 0),), ((1, 0.0),)),
    ],
)
def test_each_form_gives_pairs(value: Any, pairs: tuple[tuple[int, float], ...]) -> None:
    assert parse_logit_bias(value, letters, 100) == pairs
    assert SamplingParams(logit_bias=parse_logit_bias(value, letters, 100)).logit_bias == pairs


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, "logit_bias"),
        ("abc", "logit_bias"),
        (5, "logit_bias"),
        ([5], "logit_bias/0"),
        ([[1, 1], [1]], "logit_bias/1"),
        ([[1, 2, 3]], "logit_bias/0"),
        (["ab"], "logit_bias/0"),
        ([[1, True]], "logit_bias/0"),
        ([[1, None]], "logit_bias/0"),
        ([[1, "1"]], "logit_bias/0"),
        ([[1, math.nan]], "logit_bias/0"),
        ([[1, math.inf]], "logit_bias/0"),
        ([[1, 1e39]], "logit_bias/0"),
        ([[1, 10**400]], "logit_bias/0"),
        ([[100, 1]], "logit_bias/0"),
        ([[-1, 1]], "logit_bias/0"),
        ([[1.0, 1]], "logit_bias/0"),
        ([[True, 1]], "logit_bias/0"),
        ([[None, 1]], "logit_bias/0"),
        ([["", 1]], "logit_bias/0"),
        ({"": 1}, "logit_bias/"),
        ({"100": 1}, "logit_bias/100"),
        ({"-1": 1}, "logit_bias/-1"),
        ({"ab": True}, "logit_bias/ab"),
        ({"ab": [1]}, "logit_bias/ab"),
    ],
)
def test_what_llama_cpp_would_skip_is_refused_where_it_stands(value: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_logit_bias(value, letters, 100)
    error = caught.value
    assert error.field == field
    assert error.allowed
    assert str(error).startswith(f"{field} must be {error.allowed}, got ")
    assert len(str(error)) < 700
