"""The common prefix, and the choice of a slot by it."""

from __future__ import annotations

import random
from types import SimpleNamespace

from nitrolib.engine.prefix_cache import choose, common_prefix
from nitrolib.engine.slots import Slot


def slot(number, tokens, last_used, **fields):
    return Slot(number, list(tokens), last_used=last_used, **fields)


def work(prompt, reuse=True, lora=()):
    return SimpleNamespace(prompt=prompt, reuse=reuse, lora=lora)


def test_the_common_prefix_is_that_of_a_plain_loop():
    rng = random.Random(5)
    for _ in range(2000):
        one = [rng.randrange(3) for _ in range(rng.randrange(12))]
        other = one[: rng.randrange(13)] + [rng.randrange(3) for _ in range(rng.randrange(6))]
        plain = 0
        while plain < min(len(one), len(other)) and one[plain] == other[plain]:
            plain += 1
        assert common_prefix(one, other) == plain


def test_the_longest_common_prefix_wins():
    slots = [slot(0, [1, 2, 3, 9], 5), slot(1, [1, 2, 3, 4, 5], 9), slot(2, [1, 2], 1)]
    assert choose(slots, work([1, 2, 3, 4, 5, 6])) == (slots[1], 5)


def test_ties_go_to_the_least_recently_used():
    slots = [slot(0, [1, 2, 7], 3), slot(1, [1, 2, 8], 2), slot(2, [1, 2, 9], 4)]
    assert choose(slots, work([1, 2, 3])) == (slots[1], 2)


def test_one_token_is_always_left_to_evaluate():
    slots = [slot(0, [1, 2, 3, 4], 1)]
    assert choose(slots, work([1, 2, 3])) == (slots[0], 2)
    assert choose(slots, work([1])) == (slots[0], 0)


def test_a_match_of_less_than_half_the_prompt_leaves_a_used_slot_for_an_empty_one():
    slots = [slot(0, [1, 2, 3, 4], 7), slot(1, [], 0), slot(2, [], 3)]
    assert choose(slots, work([1, 8, 8, 8])) == (slots[1], 0)
    assert choose(slots, work([1, 2, 8, 8])) == (slots[0], 2)


def test_without_an_empty_slot_even_a_short_match_wins():
    slots = [slot(0, [5, 5], 1), slot(1, [1, 2, 3, 4], 7)]
    assert choose(slots, work([1, 8, 8, 8])) == (slots[1], 1)


def test_without_reuse_an_empty_slot_then_the_oldest_is_taken():
    slots = [slot(0, [1, 2], 1), slot(1, [], 9), slot(2, [3], 2)]
    assert choose(slots, work([1, 2, 3], reuse=False)) == (slots[1], 0)
    assert choose([slots[2], slots[0]], work([3, 4], reuse=False)) == (slots[0], 0)
