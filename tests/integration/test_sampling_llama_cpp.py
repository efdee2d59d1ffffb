"""Our samplers against llama.cpp's own compiled ones, on random logits and parameters: the same
survivors, the same tokens of the same seed. Where rounding decides (llama.cpp reckons in single
precision), either answer is right and the case is left out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import slow_sampling as slow

from nitrolib.sampling import DEFAULT_SAMPLERS, Breakers, BreakerTable, Sampler, SamplingParams
from nitrolib.sampling.dry import Dry

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from support import llama_chain
from support.llama_chain import LlamaChain, native

if TYPE_CHECKING:
    from collections.abc import Iterator

many = settings(max_examples=2000, deadline=None)
NONE = Breakers(frozenset(), {})


@pytest.fixture(autouse=True, scope="module")
def single_precision() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow, "MARGIN", 2e-5)
        yield


@st.composite
def different_rows(draw: st.DrawFn, max_size: int = 300) -> np.ndarray:
    """Logits without ties, which llama.cpp breaks as it likes, and without bans, of which its
    typical sampling makes NaN."""
    size = draw(st.integers(2, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    row = rng.normal(draw(st.sampled_from([-5.0, 0.0, 5.0])), draw(st.floats(0.3, 4)), size)
    row = row.astype(np.float32)
    assume(np.diff(np.sort(row)).min() > 1e-5)
    return row


def off_or(strategy: st.SearchStrategy[float], off: float) -> st.SearchStrategy[float]:
    return st.one_of(st.just(off), strategy)


ALONE: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "top_n_sigma": {"top_n_sigma": st.floats(0.1, 4)},
    "top_k": {"top_k": st.integers(1, 350)},
    "typ_p": {"typical_p": st.floats(0.01, 0.99), "min_keep": st.integers(0, 20)},
    "top_p": {"top_p": st.floats(0.01, 0.99), "min_keep": st.integers(0, 20)},
    "min_p": {"min_p": st.floats(0.001, 1), "min_keep": st.integers(0, 20)},
    "xtc": {
        "xtc_probability": st.floats(0.01, 1),
        "xtc_threshold": st.floats(0.01, 0.5),
        "min_keep": st.integers(0, 20),
    },
    "temperature": {
        "temperature": st.floats(0.3, 3),
        "dynatemp_range": off_or(st.floats(0.01, 2), 0.0),
        "dynatemp_exponent": st.floats(0.2, 3),
    },
    "penalties": {
        "repeat_penalty": off_or(st.floats(0.5, 2), 1.0),
        "frequency_penalty": off_or(st.floats(-2, 2), 0.0),
        "presence_penalty": off_or(st.floats(-2, 2), 0.0),
        "repeat_last_n": st.sampled_from([0, 1, 5, 64]),
    },
    "dry": {
        "dry_multiplier": st.floats(0.1, 3),
        "dry_base": st.floats(1.01, 3),
        "dry_allowed_length": st.integers(1, 4),
        "dry_penalty_last_n": st.sampled_from([1, 5, 20, 64]),
    },
}
OFF: dict[str, Any] = {
    "repeat_penalty": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "temperature": 1.0,
}
seeds = st.integers(0, 2**32 - 2)
histories = st.lists(st.integers(0, 3), max_size=70)


def both(row: np.ndarray, params: SamplingParams, history: list[int]) -> Iterator[tuple[int, int]]:
    """Three tokens of each, one after another; the walk ends where rounding decides."""
    n = row.size
    mine = Sampler(params, n, 80, breakers=NONE)
    peer = llama_chain.chain(replace(params, dry_sequence_breakers=("",)), n, 80)
    plain = slow.Chain(params, 80)
    mine.accept_prompt(history)
    for token in history:
        peer.accept(token)
    try:
        for _ in range(3):
            try:
                plain.sample(row.tolist(), history)
            except slow.Close:
                return
            peer.fill(row)
            peer.apply()
            token = mine.sample(row)
            yield token, peer.selected
            mine.accept([token])
            peer.accept(token)
            history = [*history, token]
    finally:
        peer.close()


@pytest.mark.parametrize("name", ALONE)
def test_each_sampler_leaves_what_llama_cpps_leaves(name: str) -> None:
    @many
    @given(
        different_rows(), st.fixed_dictionaries(ALONE[name]), histories, st.integers(0, 2**32 - 2)
    )
    def compare(row: np.ndarray, fields: dict[str, Any], history: list[int], seed: int) -> None:
        assume(row.size > 4)
        params = SamplingParams(**{**OFF, **fields, "samplers": (name,), "seed": seed})
        try:
            expected = slow.Chain(params, 80).left(row.tolist(), history)
        except slow.Close:
            assume(False)
        mine = Sampler(params, row.size, 80, breakers=NONE, keep_survivors=row.size)
        peer = llama_chain.chain(replace(params, dry_sequence_breakers=("",)), row.size, 80)
        mine.accept_prompt(history)
        for token in history:
            peer.accept(token)
        peer.fill(row)
        peer.apply()
        theirs = peer.probabilities()
        peer.close()
        mine.sample(row)
        assert mine.last is not None
        ours = dict(mine.last.top)
        assert ours.keys() == {i for i, p in theirs.items() if p > 0} | {
            i for i, p in ours.items() if p < 1e-30 and i in theirs
        }
        assert ours.keys() <= {token for token, _ in expected}
        for token, p in ours.items():
            assert math.isclose(p, theirs[token], rel_tol=1e-3, abs_tol=1e-6)

    compare()


@st.composite
def chains(draw: st.DrawFn) -> SamplingParams:
    fields = dict(OFF)
    for strategies in ALONE.values():
        if draw(st.booleans()):
            fields |= {name: draw(strategy) for name, strategy in strategies.items()}
    if fields.get("top_n_sigma", -1) > 0:  # masked candidates make llama.cpp's typ_p meaningless
        fields["typical_p"] = 1.0
    order = draw(
        st.one_of(
            st.none(),
            st.permutations(DEFAULT_SAMPLERS).map(tuple),
            st.lists(st.sampled_from(DEFAULT_SAMPLERS), max_size=12).map(tuple),
        )
    )
    return SamplingParams(**fields, samplers=order, seed=draw(st.integers(0, 2**32 - 2)))


@many
@given(different_rows(), chains(), histories)
def test_the_chain_in_any_order_gives_llama_cpps_tokens(
    row: np.ndarray, params: SamplingParams, history: list[int]
) -> None:
    assume(row.size > 4)
    for mine, theirs in both(row, params, history):
        assert mine == theirs


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_gives_llama_cpps_tokens(version: int) -> None:
    @settings(many, max_examples=1000)
    @given(
        different_rows(),
        st.floats(0.5, 8),
        st.floats(0.01, 1),
        st.floats(0.3, 2),
        st.integers(0, 2**32 - 2),
    )
    def compare(row: np.ndarray, tau: float, eta: float, t: float, seed: int) -> None:
        n = row.size
        params = SamplingParams(
            mirostat=version, mirostat_tau=tau, mirostat_eta=eta, temperature=t, seed=seed
        )
        make = {
            1: lambda: native.llama_sampler_init_mirostat(n, seed, tau, eta, 100),
            2: lambda: native.llama_sampler_init_mirostat_v2(seed, tau, eta),
        }[version]
        peer = LlamaChain(n, [native.llama_sampler_init_temp(t), make()])
        mine, plain = Sampler(params, n, 80), slow.Mirostat(params, n)
        uniform = slow.MersenneTwister(seed)
        for _ in range(4):
            try:
                plain.sample(row.tolist(), uniform.double)
            except slow.Close:
                break
            peer.fill(row)
            peer.apply()
            assert mine.sample(row) == peer.selected
        peer.close()

    compare()


BREAKERS = [
    ("\n", ":", '"', "*"),
    ("the",),
    ("and ", "ing the"),
    ("once upon", ". ", ",", "o"),
    ("é", "", "!?"),
    ("x" * 50, " \n", "ab" * 30),
]


@pytest.mark.parametrize("texts", BREAKERS, ids=repr)
def test_breakers_break_where_llama_cpps_do(texts: tuple[str, ...]) -> None:
    breakers = BreakerTable(llama_chain.pieces(), llama_chain.tokenize).compile(texts)
    n = native.llama_vocab_n_tokens(llama_chain.vocabulary())
    rng = np.random.default_rng(0)
    tails = [(head, *tail) for head, found in breakers.tails.items() for tail in found]
    parts = [(token,) for token in sorted(breakers.single)[:5]]
    parts += [tails[i] for i in rng.permutation(len(tails))[:12]]
    parts += [(token,) for token in (300, 301, 302)]
    row = rng.normal(0, 1, n).astype(np.float32)
    penalised = 0
    for case in range(60):
        allowed = int(rng.integers(1, 4))
        peer = LlamaChain(n, [llama_chain.dry(1.0, 1.5, allowed, 80, texts)])
        params = SamplingParams(
            dry_multiplier=1.0, dry_base=1.5, dry_allowed_length=allowed, dry_penalty_last_n=80
        )
        mine = Dry(params, 80, breakers)
        phrase = [t for i in rng.integers(0, len(parts), 5) for t in parts[i]]
        for _ in range(6):
            more = [t for i in rng.integers(0, len(parts), 2) for t in parts[i]]
            history = [*phrase[int(rng.integers(0, 3)) :], *(more if case % 2 else [])]
            mine.extend(history)
            for token in history:
                peer.accept(token)
            peer.fill(row)
            peer.apply()
            changed = peer.logits() - row
            ids, amounts = mine.penalties()
            expected = np.zeros(n)
            expected[ids] = -amounts
            penalised += ids.size
            assert np.allclose(changed, expected, rtol=1e-4, atol=1e-5)
        peer.close()
    assert penalised > 0


def test_a_real_vocabulary_gives_llama_cpps_tokens() -> None:
    rng = np.random.default_rng(0)
    params = SamplingParams(
        seed=9, repeat_penalty=1.2, dry_multiplier=0.8, top_n_sigma=3.0, xtc_probability=0.3
    )
    n = 32_000
    mine = Sampler(params, n, 4096, breakers=NONE)
    peer = llama_chain.chain(replace(params, dry_sequence_breakers=("",)), n, 4096)
    equal = 0
    for _ in range(200):
        row = rng.normal(0, 2, n).astype(np.float32)
        row[rng.permutation(n)[:30]] += np.linspace(4, 10, 30).astype(np.float32)
        peer.fill(row)
        peer.apply()
        token = mine.sample(row)
        equal += token == peer.selected
        mine.accept([token])
        peer.accept(token)
    assert equal >= 199  # a draw may fall on the edge of two tokens
    peer.close()
