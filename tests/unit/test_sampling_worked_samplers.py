"""Worked numbers of typical, top-n-sigma, XTC, dynatemp and mirostat, computed by hand and checked
against llama.cpp's samplers (6 decimals): on arrays, and on a few candidates as lists."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nitrolib.sampling import SamplingParams
from nitrolib.sampling.candidates import Candidates
from nitrolib.sampling.few import Few
from nitrolib.sampling.filters import min_p, min_p_few, top_k, top_k_few, top_p, top_p_few
from nitrolib.sampling.mirostat import Mirostat, zipf_count
from nitrolib.sampling.rng import Uniform, Uniform32
from nitrolib.sampling.sigma import deviation, top_n_sigma, top_n_sigma_few, top_n_sigma_top_k
from nitrolib.sampling.temperature import Heat, heated, heated_few
from nitrolib.sampling.typical import typical, typical_few
from nitrolib.sampling.xtc import Xtc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

B = [2.0, 1.0, 0.5, 0.0, -1.0]
T = np.log([0.4, 0.3, 0.15, 0.1, 0.05]).tolist()
INF = math.inf
SOFTMAX_B = [0.563021, 0.207124, 0.125627, 0.076197, 0.028031]
EVERY = [0, 1, 2, 3, 4]
P4 = [0.1, 0.2, 0.3, 0.4]
Q4 = [0.4, 0.3, 0.2, 0.1]

Listed = list[tuple[int, float]]


def softmax(logits: Sequence[float]) -> list[float]:
    weights = np.exp(np.array(logits, np.float64) - max(logits))
    return (weights / weights.sum()).tolist()  # type: ignore[no-any-return]


def wide(logits: Sequence[float], step: Callable[[Candidates], Candidates]) -> Listed:
    left = step(Candidates(None, np.array(logits, np.float64))).in_order()
    return [(left.id_at(i), float(left.logits[i])) for i in range(left.logits.size)]


def few(logits: Sequence[float], step: Callable[[Few], None]) -> Listed:
    left = Few(list(range(len(logits))), [float(logit) for logit in logits])
    step(left)
    return list(zip(left.ids, left.logits, strict=True))


def both(
    logits: Sequence[float],
    on_many: Callable[[Candidates], Candidates],
    on_few: Callable[[Few], None],
    **fixed: float,
) -> Listed:
    """The sampler in both forms, which must agree."""
    found = wide(logits, partial(on_many, **fixed))
    twin = few(logits, partial(on_few, **fixed))
    assert [token_id for token_id, _ in twin] == [token_id for token_id, _ in found]
    values = [logit for _, logit in found]
    assert [logit for _, logit in twin] == pytest.approx(values, abs=1e-12)
    return found


FORMS: dict[str, tuple[Callable[..., Candidates], Callable[..., None]]] = {
    "top_k": (top_k, top_k_few),
    "top_p": (top_p, top_p_few),
    "min_p": (min_p, min_p_few),
    "typical": (typical, typical_few),
}


@pytest.mark.parametrize(
    ("logits", "name", "fixed", "survivors", "expected"),
    [
        (T, "typical", {"p": 0.5}, [1, 0], [0.428571, 0.571429]),
        (T, "typical", {"p": 0.2}, [1], [1.0]),
        (T, "typical", {"p": 0.5, "min_keep": 4}, [1, 0, 2, 3],
         [0.315789, 0.421053, 0.157895, 0.105263]),
        (B, "typical", {"p": 0.5}, [1, 0], [0.268941, 0.731059]),
        (B, "top_k", {"k": 2}, [0, 1], [0.731059, 0.268941]),
        (B, "top_k", {"k": 99}, EVERY, SOFTMAX_B),
        (B, "top_p", {"p": 0.6}, [0, 1], [0.731059, 0.268941]),
        (B, "top_p", {"p": 0.9}, [0, 1, 2, 3], [0.579259, 0.213097, 0.12925, 0.078394]),
        (B, "top_p", {"p": 0.5, "min_keep": 3}, [0, 1, 2], [0.628532, 0.231224, 0.140244]),
        (B, "top_p", {"p": 0.5, "min_keep": 9}, EVERY, SOFTMAX_B),
        (B, "min_p", {"p": 0.2}, [0, 1, 2], [0.628532, 0.231224, 0.140244]),
        (B, "min_p", {"p": 0.5, "min_keep": 4}, [0, 1, 2, 3],
         [0.579259, 0.213097, 0.12925, 0.078394]),
        ([0, 2, 2, 1], "min_p", {"p": 1.0}, [1, 2], [0.5, 0.5]),
    ],
)  # fmt: skip
def test_a_filter_leaves_these_survivors_in_both_forms(
    logits: list[float],
    name: str,
    fixed: dict[str, float],
    survivors: list[int],
    expected: list[float],
) -> None:
    left = both(logits, *FORMS[name], **fixed)
    assert [token_id for token_id, _ in left] == survivors
    assert softmax([logit for _, logit in left]) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [([0.97, 0.01, 0.01, 0.01], [0.97]), ([0.4, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2])],
)
def test_typical_of_llama_cpps_sampling_test(
    probabilities: list[float], expected: list[float]
) -> None:
    left = both(np.log(probabilities).tolist(), typical, typical_few, p=0.5)
    assert np.exp([logit for _, logit in left]).tolist() == pytest.approx(expected)


def test_typical_ranks_what_has_no_probability_last() -> None:
    left = both([-INF, *T, -INF], typical, typical_few, p=0.9999999, min_keep=6)
    assert [token_id for token_id, _ in left] == [2, 1, 3, 4, 5, 0]


@pytest.mark.parametrize(
    ("n", "after"),
    [
        (1, [2, 1, -INF, -INF, -INF]),  # equal to the cut is kept
        (0.5, [2, -INF, -INF, -INF, -INF]),
        (2, [2, 1, 0.5, 0, -INF]),
        (0, B),
        (-1, B),
    ],
)
def test_top_n_sigma_on_b(n: float, after: list[float]) -> None:
    assert both(B, top_n_sigma, top_n_sigma_few, n=n) == list(enumerate(after))
    banned = [*B, -INF]  # takes no part in mean and deviation
    assert both(banned, top_n_sigma, top_n_sigma_few, n=n) == list(enumerate([*after, -INF]))
    assert deviation(np.array(banned)) == pytest.approx(1)


@pytest.mark.parametrize(("n", "expected"), [(1, [0, 0, 0.428571, 0.571429]), (0, P4), (3, P4)])
def test_top_n_sigma_of_llama_cpps_sampling_test(n: float, expected: list[float]) -> None:
    left = both(np.log(P4).tolist(), top_n_sigma, top_n_sigma_few, n=n)
    assert softmax([logit for _, logit in left]) == pytest.approx(expected, abs=1e-5)


def test_a_lone_candidate_is_no_case_for_top_n_sigma() -> None:
    assert both([3.0], top_n_sigma, top_n_sigma_few, n=1) == [(0, 3.0)]


def test_top_n_sigma_before_top_k_in_one_masks_what_both_do() -> None:
    left = wide(B, partial(top_n_sigma_top_k, n=1, k=4))
    assert left == [(0, 2), (1, 1), (2, -INF), (3, -INF)]
    assert wide(B, partial(top_n_sigma_top_k, n=0, k=2)) == [(0, 2), (1, 1)]


def xtc(probability: float, threshold: float, min_keep: int = 0, seed: int = 0) -> Xtc:
    return Xtc(probability, threshold, min_keep, Uniform32(seed))


@pytest.mark.parametrize(
    ("threshold", "min_keep", "survivors", "expected"),
    [
        (0.1, 0, [2, 3, 4], [0.546549, 0.331499, 0.121952]),
        (0.2, 0, [1, 2, 3, 4], [0.473991, 0.28749, 0.174371, 0.064148]),
        (0.3, 0, EVERY, SOFTMAX_B),
        (0.1, 4, EVERY, SOFTMAX_B),
        (0.1, 3, [2, 3, 4], [0.546549, 0.331499, 0.121952]),
    ],
)
def test_xtc_on_b(
    threshold: float, min_keep: int, survivors: list[int], expected: list[float]
) -> None:
    left = wide(B, xtc(1.0, threshold, min_keep).wide)
    assert few(B, xtc(1.0, threshold, min_keep).few) == left
    assert [token_id for token_id, _ in left] == survivors
    assert softmax([logit for _, logit in left]) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.09, [0.1]), (0.19, [0.2, 0.1]), (0.29, [0.3, 0.2, 0.1]),
                                (0.39, Q4)],
)  # fmt: skip
def test_xtc_of_llama_cpps_sampling_test(threshold: float, expected: list[float]) -> None:
    logits = np.log(Q4).tolist()
    left = wide(logits, xtc(0.99, threshold).wide)
    assert few(logits, xtc(0.99, threshold).few) == left
    assert np.exp([logit for _, logit in left]).tolist() == pytest.approx(expected)


def test_xtc_draws_singles_of_its_own_generator_with_two_candidates_or_more() -> None:
    uniform = Uniform32(42)
    numbers = [uniform() for _ in range(4)]
    assert numbers == pytest.approx([0.37454, 0.796543, 0.950714, 0.183435], abs=5e-7)
    sampler = xtc(0.5, 0.1, seed=42)
    assert few([1.0], sampler.few) == [(0, 1.0)]  # takes no number
    dropped = [len(few(B, sampler.few)) < 5 for _ in range(4)]
    assert dropped == [True, False, False, True]
    again = xtc(0.5, 0.1, seed=42)
    assert [len(wide(B, again.wide)) < 5 for _ in range(4)] == dropped


def test_xtc_never_keeps_only_what_cannot_be_chosen() -> None:
    banned = [3.0, 2.0, -INF]
    assert few(banned, xtc(1.0, 0.0).few) == [(1, 2.0), (2, -INF)]
    assert wide(banned, xtc(1.0, 0.0).wide) == [(1, 2.0), (2, -INF)]


@pytest.mark.parametrize(
    ("logits", "heat", "in_effect", "expected"),
    [
        (B, Heat(0.8, 0.5, 1), 1.049634, [0.546042, 0.210605, 0.130794, 0.081229, 0.031329]),
        (B, Heat(0.8, 0.5, 2), 0.861951, [0.618066, 0.193724, 0.108457, 0.06072, 0.019032]),
        ([1, 1, 1, 1], Heat(0.8, 0.5, 1), 1.3, [0.25] * 4),
        ([3, 0, 0, 0], Heat(0.8, 0.5, 1), 0.681637, [0.964517, 0.011828, 0.011828, 0.011828]),
        ([3, -INF, -INF], Heat(0.5, 0.5, 1), 0, [1, 0, 0]),
        (B, Heat(0.5), 0.5, [0.829245, 0.112226, 0.041286, 0.015188, 0.002055]),
        (B, Heat(0.0), 0, [1, 0, 0, 0, 0]),
        ([7.0], Heat(0.5, 0.5, 1), 1, [1.0]),
    ],
)
def test_the_temperature_moves_with_the_entropy(
    logits: list[float], heat: Heat, in_effect: float, expected: list[float]
) -> None:
    candidates = Candidates(None, np.array(logits, np.float32))
    assert heat.of(candidates)[1] == pytest.approx(in_effect, abs=5e-7)
    on_few = Few(list(range(len(logits))), [float(logit) for logit in logits])
    assert heat.of_few(on_few) == pytest.approx(in_effect, abs=5e-7)
    left = both(logits, heated, heated_few, heat=heat)
    assert softmax([logit for _, logit in left]) == pytest.approx(expected, abs=5e-7)


def test_dynatemp_ranks_the_candidates_and_takes_no_number() -> None:
    left = both([0, 2, 1], heated, heated_few, heat=Heat(0.8, 0.1))
    assert [token_id for token_id, _ in left] == [1, 2, 0]


# Mirostat: logits B, tau 1, eta 0.5.


class Scripted:
    """Numbers that make `dist` pick known candidates."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def __call__(self) -> float:
        return self.numbers.pop(0)


def mirostat(version: int, *numbers: float) -> tuple[Mirostat, Scripted]:
    params = SamplingParams(mirostat=version, mirostat_tau=1, mirostat_eta=0.5, temperature=1)
    scripted = Scripted(*numbers)
    return Mirostat(params, 5, scripted), scripted  # type: ignore[arg-type]


def walk(state: Mirostat, kept: list[list[int]], picks: list[int], mus: list[float]) -> None:
    assert state.mu == 2
    for expected_kept, pick, mu in zip(kept, picks, mus, strict=True):
        token, left = state.choose(Candidates(None, np.array(B, np.float32)))
        left = left.in_order()
        assert [left.id_at(i) for i in range(left.logits.size)] == expected_kept
        assert token == pick
        assert state.mu == pytest.approx(mu, abs=5e-7)


def test_mirostat_2_on_b() -> None:
    state, uniform = mirostat(2, 0.9, 0.5)
    walk(state, [[0], [0, 1], [0], [0, 1]], [0, 1, 0, 0], [2.5, 2.052682, 2.552682, 2.826711])
    assert uniform.numbers == []  # a lone candidate takes none


def test_mirostat_1_on_b() -> None:
    state, uniform = mirostat(1, 0.9, 0.5)
    walk(state, [[0, 1], [0], [0, 1]], [1, 0, 0], [1.552682, 2.052682, 2.326711])
    assert uniform.numbers == []


@pytest.mark.parametrize(("mu", "kept"), [(1, 1), (2, 2), (3, 3), (10, 5)])
def test_mirostat_1_counts_by_zipfs_law(mu: float, kept: int) -> None:
    assert min(zipf_count(B, mu, 5), 5) == kept


def test_mirostat_1_where_the_law_has_no_exponent() -> None:
    assert zipf_count([1.0], 10, 5) == 1
    assert zipf_count([1.0, -INF, -INF], 10, 5) == 1  # infinite
    assert zipf_count([1.0] * 5, 10, 5) == 5  # 0: all ranks alike
    assert zipf_count([1.0] * 5, 0.1, 5) == 1
    harmonic = [-math.log(rank) for rank in range(1, 101)]  # exactly 1
    assert zipf_count(harmonic, 5, 1000) == int(2**5 / math.log(1000))
    assert zipf_count(harmonic, 10_000, 1000) == 1000
    assert zipf_count(harmonic, -10_000, 1000) == 1


def test_mirostat_at_temperature_0_keeps_the_best() -> None:
    for version in (1, 2):
        params = SamplingParams(mirostat=version, temperature=0)
        state = Mirostat(params, 5, Uniform(0))
        token, left = state.choose(Candidates(None, np.array([0, 3, 1, 3, 2], np.float32)))
        assert (token, left.logits.size) == (1, 1)
        assert state.mu == pytest.approx(10 + 0.1 * 5)
