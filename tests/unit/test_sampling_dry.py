"""DRY: worked numbers checked against llama.cpp, its window as tokens come and go, and breakers
compiled against a vocabulary."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nitrolib.errors import InvalidRequest
from nitrolib.sampling import Breakers, BreakerTable, Sampler, SamplingParams, needs_breakers
from nitrolib.sampling.breakers import MAX_BREAKERS
from nitrolib.sampling.dry import Dry, dry_window_size, z_lengths

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE = Breakers(frozenset(), {})


def dry(
    multiplier: float,
    base: float,
    allowed: int,
    last_n: int,
    breakers: Iterable[int] | Breakers = (),
) -> Dry:
    params = SamplingParams(dry_multiplier=multiplier, dry_base=base, dry_allowed_length=allowed)
    if not isinstance(breakers, Breakers):
        breakers = Breakers(frozenset(breakers), {})
    return Dry(params, last_n, breakers)


def penalties(state: Dry) -> dict[int, float]:
    ids, amounts = state.penalties()
    return dict(zip(ids.tolist(), amounts.tolist(), strict=True))


LOOP = [1, 2, 3, 4, 1, 2, 3]
WORKED = [
    ([1, 2, 3, 1, 2], (1, 1.75, 2, 64), [], {3: 1.0}),
    (LOOP, (0.8, 1.75, 2, 64), [], {4: 1.4}),
    (LOOP, (0.8, 1.75, 2, 6), [], {4: 0.8}),  # the window hides the first 1
    (LOOP, (0.8, 1.75, 2, 64), [1], {4: 0.8}),
    (LOOP, (0.8, 1.75, 2, 64), [2], {}),
    (LOOP, (0.8, 1.75, 2, 64), [1, 2], {}),
    (LOOP, (0.8, 1.75, 2, 64), [4], {}),
    ([1, 2, 3, 3, 2, 3, 4, 1, 2, 3], (1, 2, 1, 64), [], {3: 4.0, 4: 2.0, 2: 1.0}),
    ([5] * 8, (1, 1.75, 2, 64), [], {5: 16.413086}),
    # llama.cpp's own cases
    ([0, 1], (1, 1.1, 2, 4), [], {}),
    ([0, 1, 2, 0, 1], (1, 1.1, 2, 5), [], {2: 1.0}),
    ([0, 1, 3, 4, 0, 1], (1, 1.1, 2, 6), [3], {}),
    ([0, 1, 2, 0, 1], (2, 1.1, 2, 5), [], {2: 2.0}),
    ([0, 1, 2, 3, 4, 0, 1], (1, 1.1, 4, 7), [], {}),
    # edges
    ([], (1, 1.75, 0, 64), [], {}),
    ([3], (1, 1.75, 0, 64), [], {}),
    ([1, 2], (1, 2, 0, 64), [], {2: 1.0}),  # no token of match is allowed already
    ([1, 2, 3, 1, 2], (-0.5, 1.75, 2, 64), [], {3: -0.5}),  # a reward
]


@pytest.mark.parametrize(("history", "settings", "breakers", "expected"), WORKED)
def test_dry_penalties(
    history: list[int],
    settings: tuple[float, float, int, int],
    breakers: list[int],
    expected: dict[int, float],
) -> None:
    one_by_one = dry(*settings, breakers)
    for token_id in history:
        one_by_one.extend([token_id])
    assert penalties(one_by_one) == pytest.approx(expected, abs=1e-6)
    whole = dry(*settings, breakers)
    whole.extend(history)
    assert penalties(whole) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("history", "settings", "breakers", "expected"),
    [
        ([0, 1], (1, 1.1, 2, 4), [], [0.25] * 4),
        ([0, 1, 2, 0, 1], (1, 1.1, 2, 5), [], [0.296923, 0.296923, 0.109232, 0.296923]),
        ([0, 1, 3, 4, 0, 1], (1, 1.1, 2, 6), [3], [0.2] * 5),
        ([0, 1, 2, 0, 1], (2, 1.1, 2, 5), [], [0.241818, 0.241818, 0.032727, 0.241818, 0.241818]),
        ([0, 1, 2, 3, 4, 0, 1], (1, 1.1, 4, 7), [], [0.2] * 5),
    ],
)
def test_dry_of_llama_cpps_sampling_test(
    history: list[int],
    settings: tuple[float, float, int, int],
    breakers: list[int],
    expected: list[float],
) -> None:
    state = dry(*settings, breakers)
    state.extend(history)
    logits = np.zeros(len(expected))
    for token_id, amount in penalties(state).items():
        logits[token_id] -= amount
    weights = np.exp(logits)
    assert (weights / weights.sum()).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_exponent_stops_where_float32_ends() -> None:
    state = dry(1, 1.75, 2, 4096)
    state.extend([5] * 400)
    assert penalties(state)[5] == pytest.approx(1.75**158)
    assert pytest.approx(2.512e38, rel=1e-3) == 1.75**158
    endless = dry(1, 1, 2, 4096)
    endless.extend([5] * 400)
    assert penalties(endless) == {5: 1.0}


def test_a_match_of_two_tokens_breaks_at_the_end_of_its_tail() -> None:
    breakers = Breakers(frozenset({7}), {1: ((2,), (2, 3))})
    state = dry(1, 2, 1, 64, breakers)
    state.extend([9, 1, 2, 3, 4, 9, 1])
    assert penalties(state) == {2: 2.0}  # a head alone breaks nothing: 9 1 matches
    state.extend([2])
    assert penalties(state) == {}  # broken just now: nothing to match
    state.extend([3])
    assert penalties(state) == {}  # the longer tail is complete
    state.extend([4])
    assert penalties(state) == {9: 1.0}  # one token since


def test_old_tokens_leave_the_window_one_by_one() -> None:
    state = dry(1, 2, 2, 6)
    for token_id in LOOP:
        state.extend([token_id])
    assert penalties(state) == {4: 1.0}
    state.extend([9])
    assert penalties(state) == {}
    for _ in range(500):  # the buffer moves
        state.extend(LOOP[:4])
    state.extend([1, 2, 3])
    assert penalties(state) == {4: 1.0}


def test_z_lengths() -> None:
    assert z_lengths([]) == []
    assert z_lengths([5]) == [0]
    assert z_lengths([5, 5, 5, 5]) == [0, 3, 2, 1]
    assert z_lengths([1, 2, 1, 1, 2, 1, 2]) == [0, 0, 1, 3, 0, 2, 0]


def test_the_window_of_minus_one_is_the_context_length() -> None:
    on = {"dry_multiplier": 1.0}
    assert dry_window_size(SamplingParams(**on), 512) == 512
    assert dry_window_size(SamplingParams(dry_penalty_last_n=7, **on), 512) == 7
    for off in (
        SamplingParams(),
        SamplingParams(dry_penalty_last_n=0, **on),
        SamplingParams(samplers=("top_k",), **on),
        SamplingParams(mirostat=1, **on),
    ):
        assert dry_window_size(off, 512) == 0
        assert not needs_breakers(off)
    assert needs_breakers(SamplingParams(**on))


# In a sampler.


def test_a_sampler_stops_repeating_itself_and_sees_the_prompt() -> None:
    params = SamplingParams(temperature=0, repeat_penalty=1, dry_multiplier=5, dry_base=2)
    sampler = Sampler(params, 10, 100, breakers=NONE)
    row = np.zeros(10, np.float32)
    row[4], row[6] = 3.0, 1.0
    sampler.accept_prompt([1, 2, 3, 4, 1, 2, 3])
    assert sampler.sample(row) == 6
    assert row[4] == 3.0
    sampler.accept([6])
    assert sampler.sample(row) == 4


def test_a_breaker_of_the_sampler_ends_the_match() -> None:
    params = SamplingParams(temperature=0, repeat_penalty=1, dry_multiplier=5)
    row = np.zeros(10, np.float32)
    row[4] = 3.0
    sampler = Sampler(params, 10, 100, breakers=Breakers(frozenset({3}), {}))
    sampler.accept_prompt(LOOP)
    assert sampler.sample(row) == 4


# Breakers against a vocabulary.

PIECES = [b"xabcy", b"a", b"xa", b"ab", b"b", b"c", b"abd", b"", b"bc", b"abc"]


def letters(text: str) -> list[int]:
    return [{"a": 1, "b": 4, "c": 5}[letter] for letter in text]


def test_breakers_become_patterns_of_tokens() -> None:
    compiled = BreakerTable(PIECES, letters).compile(["abc"])
    assert compiled.single == {0, 9}
    assert compiled.tails == {1: ((4, 5),), 2: ((4, 5),), 3: ((5,),)}
    assert compiled.longest == 2


def test_special_tokens_count_with_their_text() -> None:
    table = BreakerTable(PIECES, letters, {"<abc>": 7})
    assert table.compile(["abc"]).single == {0, 7, 9}


def test_several_breakers_of_one_token() -> None:
    compiled = BreakerTable(PIECES, letters).compile(["ab", "abc", "ab", ""])
    assert compiled.single == {0, 3, 6, 9}
    # "ab" begins "abc" and is a breaker itself: both are noted.
    assert compiled.tails == {1: ((4,), (4, 5)), 2: ((4,), (4, 5)), 3: ((5,),)}


def test_a_breaker_is_cut_to_40_bytes_and_a_tail_to_20_tokens() -> None:
    table = BreakerTable([b"a", b"b" * 40, b"b" * 50], lambda text: [1] * len(text))
    compiled = table.compile(["b" * 60])
    assert compiled.single == {1, 2}
    assert compiled.tails == {}
    compiled = table.compile(["a" + "b" * 60])
    assert compiled.single == set()
    assert compiled.tails == {0: ((1,) * 20,)}
    assert compiled.longest == 20


def test_no_pattern_begins_inside_a_character() -> None:
    pieces = ["é".encode(), b"\xc3", b"\xa9", b"x"]
    compiled = BreakerTable(pieces, lambda text: [3]).compile(["éx"])
    assert compiled.single == set()
    assert compiled.tails == {0: ((3,),)}


def test_a_rest_without_tokens_is_no_pattern() -> None:
    assert BreakerTable(PIECES, lambda text: []).compile(["abc"]).tails == {}


def test_a_vocabulary_without_text_has_no_breakers() -> None:
    assert BreakerTable([b"", b""], letters).compile(["abc", "a"]) == NONE


def test_breakers_are_compiled_once() -> None:
    calls = []

    def tokenize(text: str) -> list[int]:
        calls.append(text)
        return [5]

    table = BreakerTable(PIECES, tokenize)
    first = table.compile(["abc", "\n"])
    assert calls == ["bc", "c"]
    threads = [threading.Thread(target=table.compile, args=(["abc", "\n"],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.compile(["abc", "\n"]) is first
    assert calls == ["bc", "c"]
    for i in range(40):  # others take its place
        table.compile([f"{i}"])
    assert table.compile(["abc", "\n"]) == first
    assert len(calls) == 4


def test_breakers_that_cannot_be_are_refused() -> None:
    table = BreakerTable(PIECES, letters)
    table.compile([f"{i}" for i in range(MAX_BREAKERS)])
    with pytest.raises(InvalidRequest, match="at most 64") as caught:
        table.compile([f"{i}" for i in range(MAX_BREAKERS + 1)])
    assert caught.value.field == "dry_sequence_breakers"
    with pytest.raises(InvalidRequest, match="Unicode"):
        table.compile(["\ud800"])


def test_the_default_breakers_of_a_big_vocabulary() -> None:
    rng = np.random.default_rng(0)
    alphabet = np.frombuffer(b'abcdefgh \n:"*', np.uint8)
    pieces = [bytes(rng.choice(alphabet, rng.integers(0, 9))) for _ in range(20_000)]
    default = SamplingParams().dry_sequence_breakers
    compiled = BreakerTable(pieces, lambda text: [0]).compile(default)
    expected = {i for i, piece in enumerate(pieces) if any(b.encode() in piece for b in default)}
    assert compiled.single == expected
    assert compiled.tails == {}
    assert math.isclose(len(expected) / 20_000, 0.75, abs_tol=0.2)
