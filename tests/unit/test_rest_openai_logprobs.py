"""Log probabilities of the older completions: parallel lists that fit the text."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from nitrolib.adapters.rest.openai.logprobs import LogprobTable
from nitrolib.engine.request import TokenProb, TokenProbs

PIECES = [b" a", b"b", b"\xe2\x82", b"", b" a"]
VOCABULARY: Any = SimpleNamespace(pieces=PIECES, special={"</s>": 3})


def step(token: int, text: str, *top: int, logprob: float = -0.5) -> TokenProbs:
    listed = tuple(
        TokenProb(one, PIECES[one], -float(place), None) for place, one in enumerate(top, 1)
    )
    return TokenProbs(id=token, text=text, logprob=logprob, top=listed)


def test_the_lists_are_parallel_and_the_places_are_those_in_the_text() -> None:
    table = LogprobTable(VOCABULARY, 1)
    first = table.of([step(0, " a", 0), step(1, "b", 1)])
    assert first["tokens"] == [" a", "b"]
    assert first["token_logprobs"] == [-0.5, -0.5]
    assert first["text_offset"] == [0, 2]
    assert table.of([step(0, " a", 0)])["text_offset"] == [3]


def test_the_token_chosen_is_always_among_the_listed() -> None:
    (top,) = LogprobTable(VOCABULARY, 1).of([step(1, "b", 0, 1)])["top_logprobs"]
    assert top == {" a": -1.0, "b": -0.5}
    (top,) = LogprobTable(VOCABULARY, 0).of([step(1, "b", 0)])["top_logprobs"]
    assert top == {"b": -0.5}


def test_half_characters_and_control_tokens_have_names() -> None:
    (top,) = LogprobTable(VOCABULARY, 2).of([step(3, "", 3, 2)])["top_logprobs"]
    assert top == {"</s>": -1.0, "bytes:\\xe2\\x82": -2.0}


def test_of_tokens_with_one_text_the_likeliest_counts() -> None:
    (top,) = LogprobTable(VOCABULARY, 2).of([step(0, " a", 4, 0)])["top_logprobs"]
    assert top == {" a": -1.0}


def test_probabilities_after_sampling_become_logarithms() -> None:
    none = TokenProb(1, b"b", None, 0.0)
    entry = TokenProbs(id=0, text=" a", prob=0.25, top=(TokenProb(0, b" a", None, 0.25), none))
    found = LogprobTable(VOCABULARY, 2).of([entry])
    assert found["token_logprobs"] == [pytest.approx(math.log(0.25))]
    assert found["top_logprobs"][0]["b"] < -1e38
