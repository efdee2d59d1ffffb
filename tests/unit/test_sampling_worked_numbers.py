"""Worked numbers, computed by hand and checked against llama.cpp's samplers (6 decimals): each
sampler, the whole chain, and the draws of known seeds."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nitrolib.sampling import Sampler, SamplingParams, chain
from nitrolib.sampling.bias import gather
from nitrolib.sampling.candidates import Candidates
from nitrolib.sampling.filters import min_p, top_k, top_p
from nitrolib.sampling.penalties import Window, penalized
from nitrolib.sampling.rng import Uniform
from nitrolib.sampling.select import choose_few, dist
from nitrolib.sampling.temperature import temperature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nitrolib.sampling.chain import Wide as Step

B = [2.0, 1.0, 0.5, 0.0, -1.0]
U = [0.0, 2.0, -1.0, 1.0, 0.5]  # B in another order
INF = math.inf
SOFTMAX_B = [0.563021, 0.207124, 0.125627, 0.076197, 0.028031]
EVERY = [0, 1, 2, 3, 4]
P4 = [0.1, 0.2, 0.3, 0.4]


def of(logits: Sequence[float]) -> Candidates:
    return Candidates(None, np.array(logits, np.float32))


def of_probabilities(probabilities: Sequence[float]) -> Candidates:
    return Candidates(None, np.log(np.array(probabilities, np.float64)))


def ids(candidates: Candidates) -> list[int]:
    candidates = candidates.in_order()
    return [candidates.id_at(i) for i in range(candidates.logits.size)]


def probabilities(candidates: Candidates) -> list[float]:
    logits = candidates.in_order().logits.astype(np.float64)
    weights = np.exp(logits - logits.max())
    return (weights / weights.sum()).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("logits", "step", "survivors", "expected"),
    [
        (B, partial(top_k, k=2), [0, 1], [0.731059, 0.268941]),
        (U, partial(top_k, k=3), [1, 3, 4], [0.628532, 0.231224, 0.140244]),
        (B, partial(top_k, k=0), EVERY, SOFTMAX_B),
        (B, partial(top_k, k=99), EVERY, SOFTMAX_B),
        (U, partial(top_k, k=99), [1, 3, 4, 0, 2], SOFTMAX_B),
        (U, partial(top_k, k=0), EVERY, [0.076197, 0.563021, 0.028031, 0.207124, 0.125627]),
        (B, partial(top_p, p=0.6), [0, 1], [0.731059, 0.268941]),
        (B, partial(top_p, p=0.9), [0, 1, 2, 3], [0.579259, 0.213097, 0.12925, 0.078394]),
        (B, partial(top_p, p=0.5, min_keep=3), [0, 1, 2], [0.628532, 0.231224, 0.140244]),
        (B, partial(top_p, p=0.0), [0], [1.0]),
        (B, partial(top_p, p=-1.0), [0], [1.0]),
        (B, partial(top_p, p=0.5, min_keep=9), EVERY, SOFTMAX_B),
        (B, partial(min_p, p=0.2), [0, 1, 2], [0.628532, 0.231224, 0.140244]),
        (B, partial(min_p, p=0.05), [0, 1, 2, 3], [0.579259, 0.213097, 0.12925, 0.078394]),
        (B, partial(min_p, p=0.5, min_keep=4), [0, 1, 2, 3],
         [0.579259, 0.213097, 0.12925, 0.078394]),
        ([0, 2, 2, 1], partial(min_p, p=1.0), [1, 2], [0.5, 0.5]),
        (U, partial(min_p, p=0.05), [0, 1, 3, 4], [0.078394, 0.579259, 0.213097, 0.12925]),
        (B, partial(min_p, p=1.5), [0], [1.0]),
        (B, partial(temperature, t=0.5), EVERY, [0.829245, 0.112226, 0.041286, 0.015188, 0.002055]),
        (B, partial(temperature, t=2.0), EVERY, [0.374545, 0.227173, 0.176922, 0.137787, 0.083572]),
        (B, partial(temperature, t=0.0), EVERY, [1, 0, 0, 0, 0]),
        (B, partial(temperature, t=-1.0), EVERY, [1, 0, 0, 0, 0]),
        ([1, 1, 1], partial(temperature, t=0.0), [0, 1, 2], [1, 0, 0]),
    ],
)  # fmt: skip
def test_a_sampler_leaves_these_survivors(
    logits: list[float], step: Step, survivors: list[int], expected: list[float]
) -> None:
    left = step(of(logits))
    assert ids(left) == survivors
    assert probabilities(left) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (partial(temperature, t=1.0), P4),
        (partial(temperature, t=0.0), [0, 0, 0, 1]),
        (partial(top_k, k=1), [1]),
        (partial(top_k, k=3), [0.44444, 0.33333, 0.22222]),
        (partial(top_k, k=4), [0.4, 0.3, 0.2, 0.1]),
        (partial(top_k, k=0), P4),
        (partial(top_p, p=0), [1]),
        (partial(top_p, p=0.7 - 1e-12), [0.571429, 0.428571]),  # 0.4 + 0.3 reaches 0.7
        (partial(top_p, p=0.8), [0.44444, 0.33333, 0.22222]),
        (partial(top_p, p=1.0), P4),
        (partial(min_p, p=0.0), P4),
        (partial(min_p, p=0.24), P4),
        (partial(min_p, p=0.26), [2 / 9, 3 / 9, 4 / 9]),
        (partial(min_p, p=0.49), [2 / 9, 3 / 9, 4 / 9]),
        (partial(min_p, p=0.51), [3 / 7, 4 / 7]),
        (partial(min_p, p=0.74), [3 / 7, 4 / 7]),
        (partial(min_p, p=0.76), [1]),
        (partial(min_p, p=1.0), [1]),
        (partial(min_p, p=1.05), [1]),
    ],
)
def test_the_cases_of_llama_cpps_sampling_test(step: Step, expected: list[float]) -> None:
    assert probabilities(step(of_probabilities(P4))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("p", [0.01 * i for i in range(1, 100)])
def test_min_p_decides_between_neighbouring_float32(p: float) -> None:
    """Whichever of the two the cut would be rounded to."""
    cut = 2.0 + math.log(p)
    above = np.float32(cut)
    if float(above) < cut:
        above = np.nextafter(above, np.float32(3))
    below = np.nextafter(above, np.float32(-9))
    assert float(below) < cut <= float(above)
    assert ids(min_p(of([2.0, float(below), float(above)]), p)) == [0, 2]


K, P, M = (
    partial(top_k, k=100),
    partial(top_p, p=0.8, min_keep=1),
    partial(min_p, p=0.1, min_keep=1),
)


@pytest.mark.parametrize(
    ("queue", "size", "lowest"),
    [
        ([partial(top_k, k=10000)], 10000, 0),
        ([partial(top_k, k=1)], 1, 9999),
        ([K], 100, 9900),
        ([partial(top_p, p=1.0, min_keep=1)], 10000, 0),
        ([partial(top_p, p=0.0, min_keep=1)], 1, 9999),
        ([partial(top_p, p=0.0003, min_keep=1)], 2, 9998),
        ([P], 5528, 4472),
        ([partial(min_p, p=1.0, min_keep=1)], 1, 9999),
        ([partial(min_p, p=9997.9 / 9999, min_keep=1)], 2, 9998),
        ([M], 9000, 1000),
        ([partial(min_p, p=1e-12, min_keep=1)], 9999, 1),
        ([K, P], 80, 9920),
        ([K, M], 100, 9900),
        ([P, K], 100, 9900),
        ([P, M], 5528, 4472),
        ([M, K], 100, 9900),
        ([M, P], 5440, 4560),
        ([partial(min_p, p=9997.9 / 9999, min_keep=1), P], 2, 9998),
        ([K, P, M], 80, 9920),
        ([K, M, P], 80, 9920),
        ([M, K, P], 80, 9920),
        ([P, K, M], 100, 9900),
        ([P, M, K], 100, 9900),
        ([M, P, K], 100, 9900),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_queues_of_samplers_on_ten_thousand_tokens(
    queue: list[Step], size: int, lowest: int, dtype: type
) -> None:
    logits = np.full(10_000, -INF)
    logits[1:] = np.log(np.arange(1, 10_000))
    candidates = Candidates(None, logits.astype(dtype))
    for step in queue:
        candidates = step(candidates)
    assert (candidates.logits.size, min(ids(candidates))) == (size, lowest)
    assert max(ids(candidates)) == 9999


@pytest.mark.parametrize(
    ("settings", "history", "after", "expected"),
    [
        ((64, 1.5, 0, 0), [0, 1, 1, 4], [1.333333, 0.666667, 0.5, 0, -1.5],
         [0.440445, 0.226132, 0.191417, 0.1161, 0.025905]),
        ((64, 1, 0.5, 0), [0, 1, 1, 4], [1.5, 0, 0.5, 0, -1.5],
         [0.536502, 0.11971, 0.197368, 0.11971, 0.026711]),
        ((64, 1.1, 0.2, 0.3), [0, 1, 1, 4], [1.318182, 0.209091, 0.5, 0, -1.6],
         [0.477841, 0.15762, 0.210839, 0.127881, 0.025819]),
        ((2, 1.5, 0, 0), [0, 1, 1, 4], [2, 0.666667, 0.5, 0, -1.5],
         [0.605232, 0.159537, 0.135045, 0.081909, 0.018276]),
    ],
)  # fmt: skip
def test_penalties_on_b(
    settings: tuple[int, float, float, float],
    history: list[int],
    after: list[float],
    expected: list[float],
) -> None:
    logits = penalise(B, history, *settings)
    assert logits.tolist() == pytest.approx(after, abs=5e-7)
    assert probabilities(of(logits)) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("settings", "history", "expected"),
    [
        ((50, 0, 0), [0], [0, 0.25, 0.25, 0.25, 0.25]),
        ((50, 0, 0), [0, 1, 2], [0, 0, 0, 0.5, 0.5]),
        ((50, 0, 0), [0, 1, 2, 0, 0], [0, 0, 0, 0.5, 0.5]),
        ((1, 5, 5), [0], [0.000011, 0.249997, 0.249997, 0.249997, 0.249997]),
        ((1, 5, 5), [0, 1, 2], [0.000023, 0.000023, 0.000023, 0.499966, 0.499966]),
        ((1, 5, 5), [0, 1, 2, 0, 0], [0, 0.000023, 0.000023, 0.499977, 0.499977]),
    ],
)
def test_penalties_of_llama_cpps_sampling_test(
    settings: tuple[float, float, float], history: list[int], expected: list[float]
) -> None:
    logits = penalise(np.log([0.2] * 5).tolist(), history, len(history), *settings)
    assert probabilities(of(logits)) == pytest.approx(expected, abs=1e-5)


def penalise(
    logits: list[float],
    history: list[int],
    last_n: int,
    repeat: float,
    frequency: float,
    presence: float,
) -> np.ndarray:
    params = SamplingParams(
        repeat_last_n=last_n,
        repeat_penalty=repeat,
        frequency_penalty=frequency,
        presence_penalty=presence,
    )
    row, window = np.array(logits), Window(last_n)
    window.extend(history)
    row[window.ids] = penalized(row[window.ids], window.counts, params)
    return row


@pytest.mark.parametrize(
    ("pairs", "after"),
    [
        (((1, 1.5), (0, -INF)), [-INF, 2.5, 0.5, 0, -1]),
        (((1, 1.0), (1, 1.0)), [2, 3, 0.5, 0, -1]),
        (((0, -INF), (0, 100.0)), [-INF, 1, 0.5, 0, -1]),
    ],
)
def test_bias_on_b(pairs: tuple[tuple[int, float], ...], after: list[float]) -> None:
    bias = gather(pairs, ())
    row = np.array(B)
    row[bias.ids] += bias.amounts
    assert row.tolist() == after


# The chain: each order and the whole of it.
L8 = [2, 1.5, 1.2, 1, 0.5, 0, -1, -2]


def through(params: SamplingParams, candidates: Candidates) -> Candidates:
    for step in chain.steps(chain.plan(params).tail, params, 0, {}):
        candidates = step.wide(candidates)
    return candidates


def test_top_k_top_p_temperature_in_the_default_order() -> None:
    left = through(SamplingParams(top_k=5, top_p=0.8, min_p=0.0), of(L8))
    left = temperature(left, 0.8)
    assert ids(left) == [0, 1, 2, 3]
    assert probabilities(left) == pytest.approx([0.456695, 0.244451, 0.168009, 0.130845], abs=5e-7)


def test_the_order_of_the_steps_matters() -> None:
    left = top_p(top_k(temperature(of(L8), 0.8), 5), 0.8)
    assert ids(left) == [0, 1, 2]
    assert probabilities(left) == pytest.approx([0.525447, 0.281252, 0.193301], abs=5e-7)


def test_the_whole_chain_draws_by_the_worked_probabilities() -> None:
    params = SamplingParams(
        repeat_penalty=1.1, top_k=5, top_p=0.9, min_p=0.3, temperature=0.8, seed=42
    )
    expected = [0.407401, 0.273711, 0.188118, 0.130769]
    row = penalise([float(logit) for logit in L8], [0, 0, 3], 64, 1.1, 0, 0)
    assert row.tolist() == pytest.approx([1.818182, 1.5, 1.2, 0.909091, 0.5, 0, -1, -2], abs=5e-7)
    left = through(params, of(row))
    assert probabilities(top_k(of(row), 5)) == pytest.approx(
        [0.340494, 0.2477, 0.1835, 0.137182, 0.091124], abs=5e-7
    )
    assert ids(left) == [0, 1, 2, 3]
    assert probabilities(temperature(left, 0.8)) == pytest.approx(expected, abs=5e-7)
    # The sampler itself: every draw falls where the cumulative probabilities say.
    sampler, uniform = Sampler(params, 8, 100), Uniform(42)
    sampler.accept([0, 0, 3])
    logits = np.array(L8, np.float32)
    for _ in range(2000):
        assert sampler.sample(logits) == int(np.searchsorted(np.cumsum(expected), uniform()))


CUMULATIVE = [(0, 0), (0.5, 0), (0.6, 1), (0.8, 2), (0.9, 3), (0.98, 4)]


@pytest.mark.parametrize(("u", "token"), CUMULATIVE)
@pytest.mark.parametrize("ranked", [False, True])
def test_dist_takes_the_first_whose_sum_reaches_u(u: float, token: int, ranked: bool) -> None:
    assert dist(of(B)._replace(ranked=ranked), u) == token
    assert choose_few(list(B), top_p=1, min_p=0, temperature=1, u=u) == token


def test_dist_walks_unranked_candidates_in_their_order() -> None:
    # softmax(U), added up: .076197 .639218 .667249 .874373 1
    picks = [dist(of(U), u) for u in (0.05, 0.1, 0.65, 0.7, 0.9)]
    assert picks == [0, 1, 2, 3, 4]
    ranked = [dist(of(U)._replace(ranked=True), u) for u, _ in CUMULATIVE]
    assert ranked == [1, 1, 3, 4, 0, 2]


def test_a_draw_of_zero_never_takes_a_banned_token() -> None:
    assert dist(of([-INF, 1, 0]), 0.0) == 1


def test_seed_42_gives_the_doubles_of_mt19937() -> None:
    uniform = Uniform(42)
    found = [uniform() for _ in range(4)]
    assert found == pytest.approx([0.796543, 0.183435, 0.779691, 0.59685], abs=5e-7)
    raw = [1608637542, 3421126067, 4083286876, 787846414]
    assert found[:2] == [(raw[0] + raw[1] * 2**32) / 2**64, (raw[2] + raw[3] * 2**32) / 2**64]


@pytest.mark.parametrize(
    ("seed", "picks"), [(42, [2, 0, 2, 1, 0, 0, 0, 0]), (1, [4, 3, 0, 4, 0, 0, 0, 1])]
)
@pytest.mark.parametrize("k", [0, 5])
def test_known_seeds_pick_known_tokens(seed: int, picks: list[int], k: int) -> None:
    params = SamplingParams(seed=seed, top_k=k, top_p=1, min_p=0, temperature=1, repeat_penalty=1)
    sampler = Sampler(params, 5, 100)
    assert [sampler.sample(np.array(B, np.float32)) for _ in picks] == picks


def test_the_stream_is_that_of_numpys_legacy_generator() -> None:
    for seed in (0, 4242, 2**32 - 2):
        data = np.random.RandomState(seed).bytes(80)
        expected = [int.from_bytes(data[i : i + 8], "little") / 2**64 for i in range(0, 80, 8)]
        uniform = Uniform(seed)
        assert [uniform() for _ in range(10)] == expected


def test_a_lone_candidate_consumes_a_draw_too() -> None:
    params = SamplingParams(seed=4242, top_k=0, top_p=1, min_p=0, temperature=1, repeat_penalty=1)
    flat = np.zeros(256, np.float32)
    alone, pair = flat - np.inf, flat - np.inf
    alone[3] = pair[3] = pair[4] = 0
    first, second = Sampler(params, 256, 100), Sampler(params, 256, 100)
    assert first.sample(alone.astype(np.float32)) == 3
    assert second.sample(pair.astype(np.float32)) in {3, 4}
    assert [first.sample(flat) for _ in range(4)] == [second.sample(flat) for _ in range(4)]
