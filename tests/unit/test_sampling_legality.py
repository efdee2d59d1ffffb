"""A constrained sampler: the token is checked after it was drawn, and drawn again among the legal
ones if it is not one of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nitrolib.errors import BackendError
from nitrolib.sampling import Breakers, Constraint, Sampler, SamplingParams
from nitrolib.sampling.rng import Uniform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

B = np.array([2.0, 1.0, 0.5, 0.0, -1.0], np.float32)


class Allowing:
    """A constraint that allows the same tokens at every step, and keeps a record."""

    def __init__(self, allowed: Iterable[int], n_vocab: int = 5) -> None:
        self.allowed = frozenset(allowed)
        self.n_vocab = n_vocab
        self.asked: list[int] = []
        self.accepted: list[int] = []
        self.masks = 0

    finished = False
    may_end = False

    def allows(self, token: int) -> bool:
        self.asked.append(token)
        return token in self.allowed

    def mask(self) -> NDArray[np.bool_]:
        self.masks += 1
        return np.isin(np.arange(self.n_vocab), list(self.allowed))

    def accept(self, token: int) -> None:
        if token not in self.allowed:
            raise BackendError(f"token {token} is not legal")
        self.accepted.append(token)


def sampler(constraint: Constraint | None, n_vocab: int = 5, **fields: object) -> Sampler:
    values = {"repeat_penalty": 1.0, "seed": 0, **fields}
    params = SamplingParams(**values)  # type: ignore[arg-type]
    return Sampler(params, n_vocab, 100, constraint=constraint, breakers=Breakers(frozenset(), {}))


def test_a_refused_token_is_drawn_again_among_the_legal_ones() -> None:
    """The worked example: legal tokens 2 and 4 of B, with .867036 and .132964 in a second run."""
    again = 0
    for seed in range(300):
        constraint = Allowing({2, 4})
        token = sampler(constraint, seed=seed).sample(B)
        first = sampler(None, seed=seed).sample(B)
        assert constraint.asked == [first]
        if first in {2, 4}:
            assert (token, constraint.masks) == (first, 0)
            continue
        uniform = Uniform(seed)
        uniform()
        assert token == (2 if uniform() <= 0.867036 else 4)
        assert constraint.masks == 1
        again += 1
    assert 200 < again < 300


def test_the_probabilities_kept_are_those_of_the_run_that_gave_the_token() -> None:
    params = SamplingParams(repeat_penalty=1, seed=0)
    constrained = Sampler(params, 5, 100, constraint=Allowing({2, 4}), keep_survivors=5)
    assert constrained.sample(B) in {2, 4}
    assert constrained.last is not None
    ids, ps = zip(*constrained.last.top, strict=True)
    assert ids == (2, 4)
    assert ps == pytest.approx((0.867036, 0.132964), abs=5e-7)


def test_a_constraint_that_allows_everything_changes_nothing() -> None:
    for fields in ({}, {"top_k": 0}, {"mirostat": 2}, {"temperature": 0}):
        free, bound = sampler(None, **fields), sampler(Allowing(range(5)), **fields)
        assert [free.sample(B) for _ in range(50)] == [bound.sample(B) for _ in range(50)]


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {},
        {"top_k": 1},
        {"top_k": 0, "top_p": 0.1},
        {"typical_p": 0.2},
        {"xtc_probability": 1.0},
        {"top_n_sigma": 0.1},
        {"dynatemp_range": 0.5},
        {"mirostat": 1},
        {"mirostat": 2},
        {"dry_multiplier": 0.8},
        {"min_keep": 3},
        {"samplers": ()},
        {"samplers": ("temperature", "typ_p", "top_k", "penalties")},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_vocab", [200, 40_000])
def test_the_token_is_always_legal(fields: dict[str, object], n_vocab: int) -> None:
    rng = np.random.default_rng(0)
    row = rng.normal(0, 3, n_vocab).astype(np.float32)
    before = row.tobytes()
    legal = set(np.argsort(row)[10:50].tolist())
    constraint = Allowing(legal, n_vocab)
    bound = sampler(constraint, n_vocab, **fields)
    for _ in range(20):
        token = bound.sample(row)
        assert token in legal
        assert row.tobytes() == before
        bound.accept([token])


def test_at_temperature_0_it_is_the_best_legal_token() -> None:
    assert sampler(Allowing({2, 4, 3}), temperature=0).sample(B) == 2


def test_a_refused_draw_moves_mirostat_twice() -> None:
    fields = {"mirostat": 2, "mirostat_tau": 1.0, "mirostat_eta": 0.5, "temperature": 1.0}
    bound = sampler(Allowing({1}), **fields)
    assert bound.sample(B) == 1  # 0 alone at mu 2, then 1 alone at 2.5: no surprise in either
    assert bound._mirostat is not None
    assert bound._mirostat.mu == pytest.approx(3.0)


def test_the_constraint_follows_the_answer_and_not_the_prompt() -> None:
    constraint = Allowing({2, 4})
    bound = sampler(constraint, repeat_penalty=2.0)
    bound.accept_prompt([0, 1, 3])
    bound.accept([2])
    bound.accept((4, 2))
    assert constraint.accepted == [2, 4, 2]
    with pytest.raises(BackendError, match="not legal"):
        bound.accept([0])


def test_biases_and_penalties_count_in_both_runs() -> None:
    bound = sampler(Allowing({2, 4}), temperature=0, logit_bias=((4, 5.0), (1, -math.inf)))
    assert bound.sample(B) == 4
    assert bound.sample(B - np.array([0, 0, 0, 0, 9], np.float32)) == 2
    penalised = sampler(Allowing({2, 3}), temperature=0, presence_penalty=1.0)
    assert penalised.sample(B) == 2
    penalised.accept([2])
    assert penalised.sample(B) == 3


def test_an_end_token_is_a_token_like_others() -> None:
    """Forced where the constraint allows nothing else."""
    assert {sampler(Allowing({4}), seed=seed).sample(B) for seed in range(20)} == {4}


@pytest.mark.parametrize("fields", [{}, {"temperature": 0}, {"mirostat": 1}, {"top_k": 0}])
def test_nothing_legal_is_a_clear_error_and_the_row_is_as_before(
    fields: dict[str, object],
) -> None:
    row = B.copy()
    with pytest.raises(BackendError, match="of the tokens that the constraint allows is -inf"):
        sampler(Allowing(()), **fields).sample(row)
    # The one end token that is legal is banned: ignore_eos.
    params = SamplingParams(repeat_penalty=1, seed=0, **fields)  # type: ignore[arg-type]
    bound = Sampler(params, 5, 100, banned=[4], constraint=Allowing({4}))
    with pytest.raises(BackendError, match="that the constraint allows"):
        bound.sample(row)
    assert (row == B).all()
    with pytest.raises(BackendError, match="every logit is -inf"):
        bound.sample(np.full(5, -math.inf, np.float32))
