"""Logprobs of raw logits against numbers worked out by hand and a slow twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitrolib.sampling.logprobs import LOG_ZERO, LogProbs


def scores(logits, token, n):
    row = np.array(logits, np.float32)
    before = row.copy()
    found = LogProbs(row.size)(row, token, n)
    assert np.array_equal(row, before)
    return found


def test_logits_that_are_logarithms_of_probabilities_come_back():
    found = scores(np.log([0.1, 0.2, 0.3, 0.4]), 1, 3)
    assert found.own == pytest.approx(math.log(0.2))
    assert found.ids == [3, 2, 1]
    assert found.logprobs == pytest.approx([math.log(p) for p in (0.4, 0.3, 0.2)])


def test_a_constant_added_to_all_logits_changes_nothing():
    assert scores([1000, 1001], 0, 2) == scores([0, 1], 0, 2)


def test_probability_nought_has_a_finite_logarithm():
    found = scores([0, -math.inf, 1], 1, 3)
    assert found.own == LOG_ZERO == found.logprobs[2]
    assert found.ids == [2, 0, 1]


def test_equal_tokens_come_in_order_of_their_ids_and_the_first_win():
    assert scores([1, 2, 2, 2, 0], 0, 2).ids == [1, 2]


def test_no_more_come_than_there_are_and_none_when_none_are_wanted():
    assert len(scores([1, 2, 3], 0, 99).ids) == 3
    assert scores([1, 2, 3], 0, 0)[1:] == ([], [])


def test_one_object_serves_many_rows():
    score = LogProbs(3)
    one, other = np.array([0, 1, 2], np.float32), np.array([5, 0, 0], np.float32)
    first = score(one, 0, 2)
    score(other, 0, 2)
    assert score(one, 0, 2) == first


@settings(max_examples=2000, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3000),
    st.integers(1, 30),
    st.sampled_from([0.01, 1.0, 30.0]),
    st.booleans(),
)
def test_scores_equal_those_of_a_full_sort_in_double_precision(seed, size, n, scale, rounded):
    rng = np.random.default_rng(seed)
    row = rng.normal(0, scale, size).astype(np.float32)
    if rounded:  # many equal logits
        row = np.round(row).astype(np.float32)
    token = int(rng.integers(size))
    found = LogProbs(size)(row, token, n)
    exact = row.astype(np.float64)
    exact -= exact.max() + math.log(math.fsum(np.exp(exact - exact.max())))
    order = sorted(range(size), key=lambda i: (-row[i], i))[:n]
    assert found.ids == order
    assert found.logprobs == pytest.approx(exact[order].tolist(), abs=1e-5)
    assert found.own == pytest.approx(exact[token], abs=1e-5)
