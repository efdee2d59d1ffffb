"""Every sampler of the whole chain in both its forms, DRY, mirostat, and the chain in any order,
against the slow ones."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import slow_sampling as slow
from support.strategies import rows

from nitrolib.errors import BackendError
from nitrolib.sampling import DEFAULT_SAMPLERS, Breakers, BreakerTable, Sampler, SamplingParams
from nitrolib.sampling.candidates import Candidates
from nitrolib.sampling.dry import Dry
from nitrolib.sampling.few import Few
from nitrolib.sampling.filters import min_p_few, top_k_few, top_p_few
from nitrolib.sampling.mirostat import Mirostat
from nitrolib.sampling.partial_sort import prefix_above
from nitrolib.sampling.rng import Uniform
from nitrolib.sampling.sigma import top_n_sigma, top_n_sigma_few
from nitrolib.sampling.temperature import Heat, heated, heated_few
from nitrolib.sampling.typical import typical, typical_few
from nitrolib.sampling.xtc import Xtc

if TYPE_CHECKING:
    from collections.abc import Callable

many = settings(max_examples=2000, deadline=None)

Row = NDArray[np.float32]
shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
keeps = st.one_of(st.just(0), st.integers(0, 50))
uniforms = st.floats(0, 1, exclude_max=True)
temperatures = st.one_of(st.floats(0.05, 5), st.just(1.0), st.just(0.0))
few_rows = rows(max_size=60)
some_rows = st.one_of(few_rows, rows())


def plain(row: Row) -> slow.Plain:
    return list(enumerate(row.tolist()))


def wide(row: Row, step: Callable[..., Candidates], **fixed: Any) -> slow.Plain:
    left = step(Candidates(None, row), **fixed).in_order()
    return [(left.id_at(i), float(left.logits[i])) for i in range(left.logits.size)]


def few(row: Row, step: Callable[..., None], **fixed: Any) -> slow.Plain:
    left = Few(list(range(row.size)), row.tolist())
    step(left, **fixed)
    return list(zip(left.ids, left.logits, strict=True))


def same(found: slow.Plain, expected: slow.Plain) -> bool:
    """Equal, or equal but for candidates of no weight at the end: where the sum of all that have
    any falls short of the target by rounding."""
    shorter = min(len(found), len(expected))
    rest = found[shorter:] + expected[shorter:]
    top = max(logit for _, logit in expected)
    return found[:shorter] == expected[:shorter] and all(
        math.exp(logit - top) < slow.MARGIN for _, logit in rest
    )


def unless_close(sampler: Any, *args: Any, **kwargs: Any) -> Any:
    """The slow sampler's answer; a case that rounding decides is left out."""
    try:
        return sampler(*args, **kwargs)
    except slow.Close:
        assume(False)


@many
@given(few_rows, st.integers(-1, 70), shares, shares, keeps)
def test_filters_on_few_are_the_slow_filters(
    row: Row, k: int, p: float, m: float, min_keep: int
) -> None:
    assert few(row, top_k_few, k=k) == slow.top_k(plain(row), k)
    assert few(row, min_p_few, p=m, min_keep=min_keep) == slow.min_p(plain(row), m, min_keep)
    nucleus = unless_close(slow.top_p, plain(row), p, min_keep)
    assert same(few(row, top_p_few, p=p, min_keep=min_keep), nucleus)


@many
@given(some_rows, shares, keeps)
def test_typical_is_the_slow_typical(row: Row, p: float, min_keep: int) -> None:
    assume(p < 1)
    expected = unless_close(slow.typical, plain(row), p, min_keep)
    assert same(few(row, typical_few, p=p, min_keep=min_keep), expected)
    assert same(wide(row, typical, p=p, min_keep=min_keep), expected)


@many
@given(st.integers(1, 3000), st.floats(0, 1), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_a_prefix_above_is_that_of_a_sort(n: int, share: float, least: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys, weights = np.abs(np.round(rng.normal(0, 3, n), 1)), rng.random(n)
    order = np.argsort(keys, kind="stable")
    sums = weights[order].cumsum()
    target = share * sums[-1]
    assume(np.abs(sums - target).min() > 1e-9)
    count = max(int((sums <= target).sum()) + 1, least)
    assert prefix_above(keys, weights, target, least).tolist() == order[:count].tolist()


@many
@given(some_rows, st.one_of(st.floats(-1, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0])))
def test_top_n_sigma_is_the_slow_top_n_sigma(row: Row, n: float) -> None:
    expected = unless_close(slow.top_n_sigma, plain(row), n)
    assert wide(row, top_n_sigma, n=n) == expected
    assert few(row, top_n_sigma_few, n=n) == expected


@many
@given(some_rows, st.floats(0.01, 1), st.floats(0, 0.5), keeps, uniforms)
def test_xtc_is_the_slow_xtc(
    row: Row, probability: float, threshold: float, min_keep: int, u: float
) -> None:
    expected = unless_close(slow.xtc, plain(row), probability, threshold, min_keep, u)
    sampler = Xtc(probability, threshold, min_keep, lambda: u)  # type: ignore[arg-type]
    assert wide(row, sampler.wide) == expected
    assert few(row, sampler.few) == expected


@many
@given(some_rows, temperatures, st.one_of(st.just(0.0), st.floats(0, 3)), st.floats(0, 4))
def test_dynatemp_is_the_slow_dynatemp(row: Row, t: float, spread: float, e: float) -> None:
    expected, in_effect = unless_close(slow.dynatemp, plain(row), t, spread, e)
    heat = Heat(t, spread, e)
    _, found = heat.of(Candidates(None, row))
    assert math.isclose(found, in_effect, rel_tol=1e-9, abs_tol=1e-12)
    on_few = Few(list(range(row.size)), row.tolist())
    assert math.isclose(heat.of_few(on_few), in_effect, rel_tol=1e-9, abs_tol=1e-12)
    assert on_few.ids == [token_id for token_id, _ in expected]
    assert max(0.0, t - spread) - 1e-9 <= found <= t + spread + 1e-9 or row.size == 1
    if in_effect > 0.01:
        scaled = [logit for _, logit in slow.temperature(expected, in_effect)]
        for result in (wide(row, heated, heat=heat), few(row, heated_few, heat=heat)):
            assert [token_id for token_id, _ in result] == [token_id for token_id, _ in expected]
            assert np.allclose([logit for _, logit in result], scaled, rtol=1e-6)


@many
@given(rows(max_size=300), st.integers(1, 2), st.floats(0, 12), st.floats(0, 1), st.data())
def test_mirostat_is_the_slow_mirostat(
    row: Row, version: int, tau: float, eta: float, data: st.DataObject
) -> None:
    params = SamplingParams(
        mirostat=version,
        mirostat_tau=tau,
        mirostat_eta=eta,
        temperature=data.draw(temperatures),
        seed=data.draw(st.integers(0, 1000)),
    )
    fast = Mirostat(params, row.size, Uniform(params.seed))
    plain_one = slow.Mirostat(params, row.size)
    twister = slow.MersenneTwister(params.seed)
    for _ in range(3):
        expected = unless_close(plain_one.sample, row.tolist(), twister.double)
        token, left = fast.choose(Candidates(None, row))
        assert token == expected
        assert math.isclose(fast.mu, plain_one.mu, rel_tol=1e-6, abs_tol=1e-6)
        assert left.logits.size >= 1
        fast.mu = plain_one.mu  # so that rounding does not add up


tokens = st.integers(0, 5)


@st.composite
def dry_params(draw: st.DrawFn) -> SamplingParams:
    return SamplingParams(
        dry_multiplier=draw(st.one_of(st.just(0.8), st.floats(-3, 3))),
        dry_base=draw(st.one_of(st.just(1.75), st.just(1.0), st.floats(1, 3))),
        dry_allowed_length=draw(st.integers(0, 4)),
        dry_penalty_last_n=draw(st.one_of(st.just(-1), st.integers(1, 90))),
    )


@st.composite
def breaker_patterns(draw: st.DrawFn) -> Breakers:
    tails = st.lists(tokens, min_size=1, max_size=4).map(tuple)
    return Breakers(
        frozenset(draw(st.sets(tokens, max_size=2))),
        draw(
            st.dictionaries(tokens, st.lists(tails, min_size=1, max_size=3).map(tuple), max_size=3)
        ),
    )


@many
@given(
    dry_params(),
    breaker_patterns(),
    st.lists(st.one_of(st.lists(tokens, max_size=3), st.lists(tokens, max_size=90)), max_size=5),
)
def test_dry_is_the_slow_dry_however_the_tokens_came(
    params: SamplingParams, breakers: Breakers, parts: list[list[int]]
) -> None:
    context_length = 70
    size = 70 if params.dry_penalty_last_n == -1 else params.dry_penalty_last_n
    state, history = Dry(params, size, breakers), []
    tails = {head: list(found) for head, found in breakers.tails.items()}
    for part in parts:
        state.extend(part)
        history += part
        ids, amounts = state.penalties()
        found = dict(zip(ids.tolist(), amounts.tolist(), strict=True))
        expected = slow.dry(history, params, context_length, set(breakers.single), tails)
        if params.dry_multiplier == 0:
            assert set(found.values()) <= {0.0}
        else:
            assert found.keys() == expected.keys()
            assert all(math.isclose(found[i], expected[i], rel_tol=1e-12) for i in found)


pieces = st.lists(st.text("abc", max_size=6).map(str.encode), min_size=1, max_size=30)


@many
@given(pieces, st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=3))
def test_breakers_are_those_of_the_definition(vocabulary: list[bytes], texts: list[str]) -> None:
    def tokenize(text: str) -> list[int]:
        return list(text.encode())

    compiled = BreakerTable(vocabulary, tokenize).compile(texts)
    single, tails = set(), {}
    for text in texts:
        for token, piece in enumerate(map(bytes.decode, vocabulary)):
            if text in piece:
                single.add(token)
                continue
            for start in range(len(piece)):
                rest = piece[start:]
                if text.startswith(rest) and len(rest) < len(text):
                    tails.setdefault(token, set()).add(tuple(tokenize(text[len(rest) :])))
    assert compiled.single == single
    assert {head: set(found) for head, found in compiled.tails.items()} == tails
    assert all(len(set(found)) == len(found) for found in compiled.tails.values())


@st.composite
def orders(draw: st.DrawFn) -> tuple[str, ...] | None:
    return draw(
        st.one_of(
            st.none(),
            st.permutations(DEFAULT_SAMPLERS).map(tuple),
            st.lists(st.sampled_from(DEFAULT_SAMPLERS), max_size=12).map(tuple),
        )
    )


def off_or(strategy: st.SearchStrategy[float], off: float) -> st.SearchStrategy[float]:
    return st.one_of(st.just(off), strategy)


@st.composite
def chains(draw: st.DrawFn) -> SamplingParams:
    return replace(
        draw(dry_params()),
        samplers=draw(orders()),
        dry_multiplier=draw(off_or(st.floats(0.1, 3), 0.0)),
        temperature=draw(temperatures),
        dynatemp_range=draw(off_or(st.floats(0, 2), 0.0)),
        dynatemp_exponent=draw(st.floats(0.1, 3)),
        top_k=draw(st.one_of(st.just(40), st.just(0), st.integers(-1, 150))),
        top_p=draw(off_or(st.floats(0.01, 1), 1.0)),
        min_p=draw(off_or(st.floats(0, 1), 0.0)),
        typical_p=draw(off_or(st.floats(0.01, 1), 1.0)),
        top_n_sigma=draw(off_or(st.floats(0.1, 4), -1.0)),
        xtc_probability=draw(off_or(st.floats(0, 1), 0.0)),
        xtc_threshold=draw(st.one_of(st.just(0.1), st.floats(0, 1))),
        repeat_penalty=draw(off_or(st.floats(0.3, 3), 1.0)),
        frequency_penalty=draw(off_or(st.floats(-2, 2), 0.0)),
        presence_penalty=draw(off_or(st.floats(-2, 2), 0.0)),
        repeat_last_n=draw(st.sampled_from([-1, 0, 1, 7, 64])),
        min_keep=draw(keeps),
        seed=draw(st.integers(0, 2**32 - 2)),
    )


@many
@given(
    st.one_of(rows(min_size=6, max_size=60), rows(min_size=6, max_size=700)), chains(), st.data()
)
def test_the_chain_in_any_order_is_the_slow_chain(
    row: Row, params: SamplingParams, data: st.DataObject
) -> None:
    """Three tokens one after another, from the same row, which is left as it was."""
    n = row.size
    breakers = data.draw(breaker_patterns())
    banned = tuple(data.draw(st.sets(st.integers(0, n - 1), max_size=2)))
    assume(np.isfinite(np.delete(row, banned)).any())
    history = data.draw(st.lists(st.one_of(tokens, st.integers(0, n - 1)), max_size=50))
    sampler = Sampler(params, n, 60, banned, breakers=breakers)
    tails = {head: list(found) for head, found in breakers.tails.items()}
    plain_one = slow.Chain(params, 60, banned=banned, single=set(breakers.single), tails=tails)
    sampler.accept_prompt(history)
    before = row.tobytes()
    for _ in range(3):
        expected = unless_close(plain_one.sample, row.tolist(), history)
        assert sampler.sample(row) == expected
        assert row.tobytes() == before
        sampler.accept([expected])
        history.append(expected)


@settings(many, max_examples=500)
@given(rows(min_size=6, max_size=300), chains(), st.integers(0, 20))
def test_keeping_the_survivors_changes_no_token(
    row: Row, params: SamplingParams, count: int
) -> None:
    params = replace(params, mirostat=int(params.min_keep) % 3)
    breakers = Breakers(frozenset(), {})
    alone = Sampler(params, row.size, 60, breakers=breakers)
    keeping = Sampler(params, row.size, 60, breakers=breakers, keep_survivors=count)
    for _ in range(3):
        try:
            token = alone.sample(row)
        except BackendError:
            return
        assert keeping.sample(row) == token
        last = keeping.last
        assert last is not None
        assert last.token == token
        assert 0 < last.p <= 1 + 1e-9
        ps = [p for _, p in last.top]
        assert len(ps) <= count
        assert ps == sorted(ps, reverse=True)
        assert sum(ps) <= 1 + 1e-9
        assert all(p > 0 for p in ps)
        assert dict(last.top).get(token, last.p) == last.p
        if len(ps) < count:
            assert math.isclose(sum(ps), 1)
        alone.accept([token])
        keeping.accept([token])
    assert alone.last is None
