"""Every sampler and the whole chain against the slow ones, and what must hold for any logits."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import slow_sampling as slow
from support.strategies import rows

from nitrolib.sampling import Sampler, SamplingParams
from nitrolib.sampling.bias import gather
from nitrolib.sampling.candidates import Candidates
from nitrolib.sampling.filters import min_p, top_k, top_p
from nitrolib.sampling.partial_sort import crossing, descending, largest, mass, shortlist
from nitrolib.sampling.penalties import Window, penalized
from nitrolib.sampling.rng import Uniform
from nitrolib.sampling.select import choose_few, dist
from nitrolib.sampling.temperature import temperature

many = settings(max_examples=500, deadline=None)
compared = settings(max_examples=2000, deadline=None)  # with a slow twin

Row = NDArray[np.float32]
shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.05, 0.5, 0.95, 0.999999, 1.0]))
ks = st.one_of(st.integers(-1, 100), st.integers(0, 4000))
keeps = st.integers(0, 50)
uniforms = st.floats(0, 1, exclude_max=True)
temperatures = st.one_of(st.floats(0.05, 5), st.just(1.0))


def plain(row: Row) -> slow.Plain:
    return list(enumerate(row.tolist()))


def listed(candidates: Candidates) -> slow.Plain:
    """Candidates in the order that counts, as the slow samplers have them."""
    candidates = candidates.in_order()
    size = candidates.logits.size
    return [(candidates.id_at(i), float(candidates.logits[i])) for i in range(size)]


def unless_close(sampler: Any, *args: Any, **kwargs: Any) -> Any:
    """The slow sampler's answer; a case that rounding decides is left out."""
    try:
        return sampler(*args, **kwargs)
    except slow.Close:
        assume(False)


@compared
@given(rows(), ks)
def test_top_k_is_the_slow_top_k(row: Row, k: int) -> None:
    assert listed(top_k(Candidates(None, row), k)) == slow.top_k(plain(row), k)


@compared
@given(rows(), shares, keeps)
def test_top_p_is_the_slow_top_p(row: Row, p: float, min_keep: int) -> None:
    expected = unless_close(slow.top_p, plain(row), p, min_keep)
    found = listed(top_p(Candidates(None, row), p, min_keep))
    if len(found) != len(expected):  # candidates of no weight at the end of a nucleus of all
        assert p > 1 - slow.MARGIN or found == expected
    assert found == expected[: len(found)]


@compared
@given(rows(), st.one_of(shares, st.floats(1, 2)), keeps)
def test_min_p_is_the_slow_min_p(row: Row, p: float, min_keep: int) -> None:
    expected = slow.min_p(plain(row), min(p, 1.0), min_keep)
    assert listed(min_p(Candidates(None, row), p, min_keep)) == expected


@compared
@given(rows(), st.one_of(temperatures, st.sampled_from([0.0, -1.0, 1e-300, 1e30])))
def test_temperature_is_the_slow_temperature(row: Row, t: float) -> None:
    # A temperature that overflows the logits is greedy.
    top = float(row.max())
    expected = slow.temperature(plain(row), t if t > 0 and math.isfinite(top / t) else 0)
    assert listed(temperature(Candidates(None, row), t)) == (plain(row) if t == 1 else expected)


@compared
@given(rows(), uniforms, temperatures, st.booleans())
def test_dist_is_the_slow_dist(row: Row, u: float, t: float, ranked: bool) -> None:
    order = slow.descending(plain(row)) if ranked else plain(row)
    expected = unless_close(slow.dist, slow.temperature(order, t), u)
    assert dist(Candidates(None, row, ranked), u, t) == expected
    scaled = temperature(Candidates(None, row, ranked), t)
    assert dist(scaled, u) == expected


@st.composite
def penalties(draw: st.DrawFn) -> SamplingParams:
    return SamplingParams(
        repeat_penalty=draw(st.one_of(st.just(1.0), st.floats(0.3, 3))),
        frequency_penalty=draw(st.one_of(st.just(0.0), st.floats(-2, 2))),
        presence_penalty=draw(st.one_of(st.just(0.0), st.floats(-2, 2))),
        repeat_last_n=draw(st.sampled_from([-1, 0, 1, 2, 7, 64, 500])),
    )


@st.composite
def histories(draw: st.DrawFn, n_vocab: int) -> list[int]:
    few = draw(st.lists(st.integers(0, n_vocab - 1), min_size=1, max_size=5))
    return draw(
        st.one_of(
            st.lists(st.sampled_from(few), max_size=80),
            st.lists(st.integers(0, n_vocab - 1), max_size=40),
        )
    )


@compared
@given(rows(max_size=200), penalties(), st.data())
def test_penalties_are_the_slow_penalties(
    row: Row, params: SamplingParams, data: st.DataObject
) -> None:
    history = data.draw(histories(row.size))
    size = 300 if params.repeat_last_n == -1 else params.repeat_last_n
    expected = slow.penalised(row.tolist(), history, params, 300)
    if size:
        window = Window(size)
        window.extend(history)
        row[window.ids] = penalized(row[window.ids], window.counts, params)
    assert row.tolist() == expected


@many
@given(st.lists(st.lists(st.integers(0, 9), max_size=60), max_size=8), st.integers(1, 80))
def test_a_window_counts_the_last_tokens_however_they_came(
    parts: list[list[int]], size: int
) -> None:
    window, history = Window(size), []
    for part in parts:
        window.extend(part)
        history += part
        counted = dict(zip(window.ids.tolist(), window.counts.tolist(), strict=True))
        assert counted == Counter(history[-size:])


@compared
@given(
    rows(max_size=50),
    st.lists(
        st.tuples(
            st.integers(0, 49), st.one_of(st.floats(-100, 100, width=16), st.just(-math.inf))
        ),
        max_size=6,
    ),
    st.sets(st.integers(0, 49), max_size=3),
)
def test_bias_is_the_slow_bias(row: Row, pairs: list[tuple[int, float]], banned: set[int]) -> None:
    params = SamplingParams(logit_bias=tuple(pair for pair in pairs if pair[0] < row.size))
    bans = tuple(token_id for token_id in banned if token_id < row.size)
    bias = gather(params.logit_bias, bans)
    changed = row.copy()
    changed[bias.ids] += bias.amounts.astype(np.float32)
    # Amounts for one id are summed before they are rounded, the slow ones after: one unit apart.
    assert changed.tolist() == pytest.approx(slow.biased(row.tolist(), params, bans), rel=1e-6)


@st.composite
def chains(draw: st.DrawFn) -> SamplingParams:
    return replace(
        draw(penalties()),
        top_k=draw(ks),
        top_p=draw(shares),
        min_p=draw(st.one_of(st.just(0.0), shares)),
        temperature=draw(st.one_of(temperatures, st.just(0.0))),
        seed=draw(st.integers(0, 2**32 - 2)),
    )


@many
@given(rows(), chains(), st.data())
def test_the_chain_is_the_slow_chain(row: Row, params: SamplingParams, data: st.DataObject) -> None:
    """Three tokens one after another, from the same row, which is left as it was."""
    n = row.size
    history = data.draw(histories(n))
    finite = np.isfinite(row).nonzero()[0].tolist()
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, n - 1), st.floats(-9, 9, width=16)), max_size=4)
    )
    banned = tuple(data.draw(st.lists(st.integers(0, n - 1), max_size=3)))
    assume(set(finite) - set(banned))
    params = replace(params, logit_bias=tuple(pairs))
    sampler = Sampler(params, n, 300, banned)
    uniform = slow.MersenneTwister(params.seed)
    sampler.accept(history)
    before = row.tobytes()
    for _ in range(3):
        expected = unless_close(
            slow.sample,
            row.tolist(),
            history,
            params,
            u=uniform.double(),
            context_length=300,
            banned=banned,
        )
        assert sampler.sample(row) == expected
        assert row.tobytes() == before
        sampler.accept([expected])
        history.append(expected)


@compared
@given(rows(max_size=100), shares, st.one_of(st.just(0.0), shares), temperatures, uniforms)
def test_few_candidates_in_floats_are_the_filters_on_arrays(
    row: Row, p: float, m: float, t: float, u: float
) -> None:
    ranked = top_k(Candidates(None, row), row.size).in_order()
    unless_close(slow.top_p, plain(row), p)
    left = min_p(top_p(ranked, p), m)
    unless_close(slow.dist, slow.temperature(listed(left), t), u)
    expected = dist(left, u, t)
    few = ranked.logits.tolist()
    assert ranked.id_at(choose_few(few, top_p=p, min_p=m, temperature=t, u=u)) == expected


@compared
@given(rows(min_size=2), st.data())
def test_the_shortlist_holds_the_largest_and_every_nan(row: Row, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, row.size - 1))
    if data.draw(st.booleans()):  # a grammar allows little
        legal = data.draw(st.sets(st.integers(0, row.size - 1), max_size=60))
        row[[i for i in range(row.size) if i not in legal]] = -math.inf
    expected = [token_id for token_id, _ in slow.top_k(plain(row), k)]
    assert largest(row, k).tolist() == sorted(expected)
    spoiled = data.draw(st.sets(st.integers(0, row.size - 1), max_size=3))
    row[list(spoiled)] = math.nan
    found = shortlist(row, k)
    assert spoiled <= set(found.tolist())
    assert (np.diff(found) > 0).all()


@many
@given(rows(max_size=60), st.sets(st.integers(0, 59), max_size=3))
def test_descending_keeps_ties_in_order_and_puts_nan_first(row: Row, spoiled: set[int]) -> None:
    row[[i for i in spoiled if i < row.size]] = math.nan
    nan = np.isnan(row).nonzero()[0].tolist()
    rest = [i for i, _ in slow.descending([c for c in plain(row) if not math.isnan(c[1])])]
    order = descending(row).tolist()
    assert sorted(order[: len(nan)]) == nan
    assert order[len(nan) :] == rest


@many
@given(rows(), st.floats(0, 1), temperatures)
def test_a_crossing_is_where_the_running_sum_reaches_the_target(
    row: Row, share: float, t: float
) -> None:
    top = float(row.max())
    target = share * mass(row, top, t)
    cut, nth = crossing(row, top, target, t)
    weights = np.sort(np.exp((row.astype(np.float64) - top) / t))[::-1]
    count = int((row > cut).sum()) + nth
    assert math.isfinite(cut)
    assert 1 <= nth <= int((row == cut).sum())
    assert weights[:count].sum() >= target * (1 - 1e-9)
    assert weights[: count - 1].sum() <= target * (1 + 1e-9)


@many
@given(rows(), ks, shares, shares, keeps)
def test_filters_keep_logits_enough_candidates_and_the_best(
    row: Row, k: int, p: float, m: float, min_keep: int
) -> None:
    whole = Candidates(None, row)
    best = max(plain(row), key=lambda candidate: candidate[1])[0]
    for left, least in (
        (top_k(whole, k), 1),
        (top_p(whole, p, min_keep), min_keep),
        (min_p(whole, m, min_keep), min_keep),
    ):
        kept = listed(left)
        assert set(kept) <= set(plain(row))
        assert len({token_id for token_id, _ in kept}) == len(kept) >= min(row.size, max(1, least))
        assert best in {token_id for token_id, _ in kept}


@many
@given(rows(bans=False), st.integers(1, 200), shares, st.floats(0.01, 1))
def test_a_looser_filter_keeps_a_superset(row: Row, k: int, p: float, m: float) -> None:
    def ids(candidates: Candidates) -> set[int]:
        return {token_id for token_id, _ in listed(candidates)}

    whole = Candidates(None, row)
    assert ids(top_k(whole, k)) <= ids(top_k(whole, k + 5))
    assert ids(top_p(whole, p)) <= ids(top_p(whole, min(1.0, p + 0.1)))
    assert ids(min_p(whole, m)) <= ids(min_p(whole, m / 2))


@many
@given(rows(max_size=200), st.integers(-64, 64), st.floats(0.01, 1))
def test_min_p_looks_at_differences_alone(row: Row, shift: int, p: float) -> None:
    row = np.round(row * 8) / 8  # the sum is exact
    before = listed(min_p(Candidates(None, row), p))
    after = listed(min_p(Candidates(None, row + np.float32(shift)), p))
    assume(all(abs(logit - row.max() - math.log(p)) > 1e-5 for _, logit in plain(row)))
    assert [token_id for token_id, _ in before] == [token_id for token_id, _ in after]


@many
@given(rows(), st.floats(0.05, 5))
def test_temperature_keeps_the_order(row: Row, t: float) -> None:
    scaled = temperature(Candidates(None, row), t).logits
    assert (np.diff(scaled[np.argsort(row, kind="stable")][np.isfinite(np.sort(row))]) >= 0).all()


@many
@given(rows(), uniforms)
def test_neutral_parameters_change_nothing(row: Row, u: float) -> None:
    whole = Candidates(None, row)
    for same in (top_k(whole, 0), top_p(whole, 1.0), min_p(whole, 0.0), temperature(whole, 1.0)):
        assert same is whole


@many
@given(st.integers(2, 1500), chains(), st.integers(0, 2**32 - 1))
def test_renaming_the_tokens_renames_the_answer(n: int, params: SamplingParams, seed: int) -> None:
    """Away from ties, and where the draw goes by rank."""
    rng = np.random.default_rng(seed)
    row = rng.normal(0, 3, n).astype(np.float32)
    assume(np.unique(row).size == n)
    params = replace(params, top_k=max(1, params.top_k), repeat_penalty=1.0, repeat_last_n=0)
    new_id = rng.permutation(n)
    renamed = np.empty_like(row)
    renamed[new_id] = row
    unless_close(slow.top_p, slow.top_k(plain(row), params.top_k), params.top_p)
    first = Sampler(params, n, 300).sample(row)
    assert Sampler(params, n, 300).sample(renamed) == new_id[first]


@many
@given(rows(max_size=300), chains(), rows(max_size=300))
def test_a_seed_fixes_the_tokens_whatever_else_runs(
    row: Row, params: SamplingParams, other_row: Row
) -> None:
    alone = Sampler(params, row.size, 300)
    expected = [alone.sample(row) for _ in range(3)]
    beside, other = Sampler(params, row.size, 300), Sampler(params, other_row.size, 300)
    found = []
    for _ in range(3):
        other.sample(other_row)
        found.append(beside.sample(row))
    assert found == expected


@many
@given(st.integers(0, 2**32 - 1))
def test_the_random_numbers_are_those_of_the_mersenne_twister(seed: int) -> None:
    uniform, twister = Uniform(seed), slow.MersenneTwister(seed)
    assert [uniform() for _ in range(3)] == [twister.double() for _ in range(3)]
