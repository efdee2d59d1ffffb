"""The sampler: one generation's state, real vocabulary sizes, and the rows no token comes from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import slow_sampling as slow

from nitrolib.errors import BackendError, InvalidRequest, Unsupported
from nitrolib.sampling import Sampler, SamplingParams
from nitrolib.sampling import rng as rng_module
from nitrolib.sampling.rng import RANDOM_SEED, resolve_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATHS = {
    "greedy": {"temperature": 0.0},
    "few": {"top_k": 40},
    "many": {"top_k": 150},
    "nucleus": {"top_k": 0, "min_p": 0.0},
    "all": {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
}
by_path = pytest.mark.parametrize("path", PATHS)


def sampler_on(path: str, n_vocab: int = 1000, **fields: object) -> Sampler:
    values = {"seed": 1, "repeat_penalty": 1.0, **PATHS[path], **fields}
    return Sampler(SamplingParams(**values), n_vocab, 2048)  # type: ignore[arg-type]


def a_row(n_vocab: int = 1000, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    row = rng.normal(0, 2, n_vocab)
    row[rng.permutation(n_vocab)[:50]] += np.linspace(3, 12, 50)
    return row.astype(np.float32)


@pytest.mark.parametrize("n_vocab", [2003, 32_000, 32_013, 65_537, 152_064])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"top_k": 100, "repeat_penalty": 1.3, "frequency_penalty": 0.2},
        {"top_k": 101},
        {"top_k": 1000, "top_p": 0.999},
        {"top_k": 0},
        {"top_k": 0, "min_p": 0.0, "temperature": 2.0},
        {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 3.0},
        {"top_k": 30_000, "top_p": 0.9, "min_p": 0.0, "temperature": 5.0},
        {"temperature": 0.0, "presence_penalty": 1.5},
    ],
    ids=str,
)
def test_real_vocabularies_give_the_slow_samplers_tokens(
    n_vocab: int, fields: dict[str, float]
) -> None:
    params = SamplingParams(seed=7, **fields)  # type: ignore[arg-type]
    row = a_row(n_vocab)
    history = np.argsort(row)[-30:].tolist()
    sampler, twister = Sampler(params, n_vocab, 2048), slow.MersenneTwister(7)
    sampler.accept(history)
    for _ in range(2):
        token = sampler.sample(row)
        assert token == slow.sample(
            row.tolist(), history, params, u=twister.double(), context_length=2048
        )
        sampler.accept([token])
        history.append(token)


@by_path
def test_all_logits_equal_is_no_special_case(path: str) -> None:
    row = np.zeros(40_000, np.float32)
    token = sampler_on(path, 40_000).sample(row)
    assert 0 <= token < 40_000
    if path == "greedy":
        assert token == 0
    if path in ("few", "many"):
        assert token < 150  # ties at the cut: the lowest ids


@by_path
@pytest.mark.parametrize("at", [0, 500, 999])
def test_a_nan_is_an_error(path: str, at: int) -> None:
    row = a_row()
    row[at] = math.nan
    with pytest.raises(BackendError, match="NaN"):
        sampler_on(path).sample(row)
    with pytest.raises(BackendError, match="NaN"):
        sampler_on(path).sample(np.full(1000, math.nan, np.float32))


@pytest.mark.parametrize("n_vocab", [1000, 40_000, 40_013])
def test_a_nan_among_equal_logits_is_an_error(n_vocab: int) -> None:
    row = np.zeros(n_vocab, np.float32)
    row[-1] = math.nan
    with pytest.raises(BackendError, match="NaN"):
        sampler_on("few", n_vocab).sample(row)


@by_path
def test_plus_infinity_is_an_error(path: str) -> None:
    row = a_row()
    row[7] = math.inf
    with pytest.raises(BackendError, match="\\+inf"):
        sampler_on(path).sample(row)


@by_path
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("how", ["banned", "biased", "penalised"])
def test_what_is_overwritten_must_be_sound_too(path: str, value: float, how: str) -> None:
    row = a_row()
    row[7] = value
    changes: dict[str, object] = {"repeat_penalty": 1.5} if how == "penalised" else {}
    if how == "biased":
        changes["logit_bias"] = ((7, 1.0), (8, 1.0))
    params = SamplingParams(**{**PATHS[path], **changes})  # type: ignore[arg-type]
    sampler = Sampler(params, 1000, 2048, banned=[7, 8] if how == "banned" else ())
    sampler.accept([7])
    before = row.copy()
    with pytest.raises(BackendError, match="NaN" if math.isnan(value) else "\\+inf"):
        sampler.sample(row)
    np.testing.assert_array_equal(row, before)


@by_path
def test_no_token_left_is_an_error(path: str) -> None:
    with pytest.raises(BackendError, match="every logit is -inf"):
        sampler_on(path).sample(np.full(1000, -math.inf, np.float32))
    row = np.array([1, 2, 3, 4], np.float32)
    params = SamplingParams(seed=1, logit_bias=((0, -math.inf),), **PATHS[path])  # type: ignore[arg-type]
    sampler = Sampler(params, 4, 2048, banned=[1, 2, 3])
    before = row.copy()
    with pytest.raises(BackendError, match="every logit is -inf"):
        sampler.sample(row)
    assert (row == before).all()


@by_path
def test_one_token_left_is_always_chosen(path: str) -> None:
    row = np.full(1000, -math.inf, np.float32)
    row[617] = -50
    sampler = sampler_on(path)
    assert {sampler.sample(row) for _ in range(20)} == {617}


@by_path
def test_banned_tokens_are_never_chosen(path: str) -> None:
    row = a_row()
    best = np.argsort(row)[-60:].tolist()
    params = SamplingParams(
        seed=1,
        logit_bias=tuple((i, -math.inf) for i in best[:30]),
        **PATHS[path],  # type: ignore[arg-type]
    )
    sampler = Sampler(params, 1000, 2048, banned=best[30:])
    assert not {sampler.sample(row) for _ in range(200)} & set(best)


@pytest.mark.parametrize("path", ["greedy", "few"])
@pytest.mark.parametrize("banned", [range(3), range(40), range(0, 90, 2)])
def test_a_ban_is_a_logit_of_minus_infinity(path: str, banned: range) -> None:
    """Also where the best are banned, and where banned ones are among equal ones."""
    fields = {"temperature": 0} if path == "greedy" else {"top_k": 40, "temperature": 0.8}
    params = SamplingParams(repeat_penalty=1.0, seed=3, **fields)
    for seed in range(20):
        row = a_row(seed=seed).round(seed % 3)
        ids = np.argsort(-row, kind="stable")[list(banned)].tolist()
        without = row.copy()
        without[ids] = -np.inf
        left_out = Sampler(params, 1000, 2048, banned=ids)
        plain = Sampler(params, 1000, 2048)
        before = row.copy()
        assert [left_out.sample(row) for _ in range(5)] == [plain.sample(without) for _ in range(5)]
        np.testing.assert_array_equal(row, before)


def test_a_ban_wins_over_a_bias() -> None:
    params = SamplingParams(temperature=0, logit_bias=((3, 50.0),))
    row = np.zeros(10, np.float32)
    assert Sampler(params, 10, 100).sample(row) == 3
    assert Sampler(params, 10, 100, banned=[3]).sample(row) == 0


@by_path
def test_a_bias_of_a_hundred_decides(path: str) -> None:
    sampler = sampler_on(path, logit_bias=((123, 100.0),))
    assert {sampler.sample(a_row()) for _ in range(20)} == {123}


def test_extreme_parameters_neither_overflow_nor_warn() -> None:
    row = a_row()
    row[:3] = [3e38, -3e38, 1]
    for fields in (
        {"repeat_penalty": 3e-39},
        {"repeat_penalty": 3e38},
        {"frequency_penalty": 3e38},
        {"presence_penalty": -3e38},
        {"logit_bias": ((0, 3e38), (1, -3e38))},
        {"temperature": 1e-300},
        {"temperature": 3e38},
        {"min_p": 5e-324},
        {"top_p": 5e-324},
    ):
        for path in PATHS:
            sampler = sampler_on(path, **fields)
            sampler.accept([0, 1, 2, 5, 5])
            before = row.copy()
            assert 0 <= sampler.sample(row) < 1000
            assert (row == before).all()


@pytest.mark.parametrize("t", [5e-324, 1e-307, 1e-300, 1e-200, 1e-20])
@pytest.mark.parametrize("k", [0, 40])
def test_a_tiny_temperature_before_other_samplers_neither_overflows_nor_warns(
    t: float, k: int
) -> None:
    row = a_row()
    row[:3] = [3e38, -3e38, 1]
    for heat in ({"temperature": t}, {"temperature": 0.0, "dynatemp_range": t}):
        for last in ("top_n_sigma", "typ_p", "xtc", "top_p", "min_p", "penalties", "temperature"):
            params = SamplingParams(
                samplers=("top_k", "temperature", last, "temperature"),
                top_k=k,
                top_n_sigma=1.0,
                typical_p=0.5,
                xtc_probability=1.0,
                seed=1,
                **heat,  # type: ignore[arg-type]
            )
            sampler = Sampler(params, 1000, 2048)
            sampler.accept([0, 1, 2, 5, 5])
            assert sampler.sample(row) == 0


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("t", [5e-324, 1e-307, 1e-300, 1e-200, 1e-20, 0.0, 3e38])
def test_mirostat_neither_overflows_nor_warns(version: int, t: float) -> None:
    row = a_row()
    row[:3] = [3e38, -3e38, 1]
    params = SamplingParams(
        mirostat=version, temperature=t, mirostat_tau=3e38, mirostat_eta=3e38, seed=1
    )
    sampler = Sampler(params, 1000, 2048)
    for _ in range(5):
        assert sampler.sample(row) >= 0


def test_a_tiny_temperature_is_greedy() -> None:
    row = a_row()
    for path in PATHS:
        assert sampler_on(path, temperature=1e-300).sample(row) == row.argmax()


@pytest.mark.parametrize("heat", ["temperature", "dynatemp_range"])
@pytest.mark.parametrize("keep", [None, 4])
def test_a_division_that_overflows_is_greedy_among_equal_logits_too(
    heat: str, keep: int | None
) -> None:
    rows = [np.full(n, -5, np.float32) for n in (6, 1000)]
    rows.extend(np.where(np.arange(n) % 3, np.float32(2), np.float32(7)) for n in (6, 1000))
    for path in PATHS:
        for tiny in (5e-324, 1e-310):
            for row in rows:
                values = {"temperature": 0.0, "repeat_penalty": 1.0, **PATHS[path], heat: tiny}
                params = SamplingParams(**values)  # type: ignore[arg-type]
                sampler = Sampler(params, row.size, 2048, keep_survivors=keep)
                assert [sampler.sample(row) for _ in range(5)] == [0] * 5
                if keep is not None:
                    assert sampler.last is not None
                    assert sampler.last.p == 1.0


@by_path
def test_a_token_both_biased_and_penalised_gets_its_logit_back(path: str) -> None:
    row = a_row()
    before = row.tobytes()
    sampler = sampler_on(path, repeat_penalty=1.5, logit_bias=((3, 2.0), (4, -math.inf)))
    sampler.accept([3, 3, 4, 5])
    sampler.sample(row)
    assert row.tobytes() == before


def test_sample_leaves_the_window_to_accept() -> None:
    sampler = sampler_on("greedy", repeat_penalty=2.0)
    row = np.array([2.0, 1.5] + [0.0] * 998, np.float32)
    assert [sampler.sample(row), sampler.sample(row)] == [0, 0]
    sampler.accept([0])
    assert sampler.sample(row) == 1


def test_the_window_of_minus_one_is_the_context_length() -> None:
    row = np.array([2.0, 1.5, 0.0], np.float32)
    params = SamplingParams(temperature=0, repeat_penalty=2.0, repeat_last_n=-1)
    sampler = Sampler(params, 3, 4)
    sampler.accept([0, 2, 2, 2])
    assert sampler.sample(row) == 1
    sampler.accept([2])  # the 0 leaves a window of four
    assert sampler.sample(row) == 0


def test_repeat_last_n_of_zero_is_off() -> None:
    sampler = sampler_on("greedy", repeat_penalty=50.0, repeat_last_n=0)
    sampler.accept([0])
    assert sampler.sample(np.array([2.0] + [1.5] * 999, np.float32)) == 0


def test_a_row_of_another_shape_or_type_is_an_error() -> None:
    sampler = sampler_on("few")
    for row in (a_row(999), a_row().astype(np.float64), a_row().reshape(10, 100)):
        with pytest.raises(BackendError, match="expected logits of shape"):
            sampler.sample(row)  # type: ignore[arg-type]


def test_what_cannot_be_honoured_is_refused_when_the_sampler_is_made() -> None:
    with pytest.raises(Unsupported, match="samplers"):
        Sampler(SamplingParams(samplers=("top_k", "infill")), 10, 100)
    with pytest.raises(Unsupported, match="dry_multiplier"):
        Sampler(SamplingParams(dry_multiplier=1.0), 10, 100)
    with pytest.raises(InvalidRequest, match="logit_bias"):
        Sampler(SamplingParams(logit_bias=((10, 1.0),)), 10, 100)


def test_the_seed_in_use_repeats_a_random_request() -> None:
    row = a_row()
    first = sampler_on("all", seed=-1)
    tokens = [first.sample(row) for _ in range(30)]
    again = sampler_on("all", seed=first.seed)
    assert [again.sample(row) for _ in range(30)] == tokens
    assert len({sampler_on("all", seed=-1).seed for _ in range(5)}) > 1


def test_seeds_are_taken_modulo_two_to_the_thirty_two() -> None:
    assert resolve_seed(42) == resolve_seed(42 + 2**32) == 42
    assert resolve_seed(2**32) == 0
    assert resolve_seed(-2) == 2**32 - 2


def test_a_random_seed_is_never_the_one_that_means_random(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([b"\xff" * 4, b"\x05\0\0\0"])
    monkeypatch.setattr(rng_module.os, "urandom", lambda n: next(drawn))
    assert resolve_seed(-1) == 5
    assert RANDOM_SEED == (-1) % 2**32


def test_a_random_number_that_rounds_to_one_stays_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uniform = rng_module.Uniform(0)
    monkeypatch.setattr(uniform, "_bits", lambda n: 2**64 - 1)
    assert uniform() == 1 - 2**-53
