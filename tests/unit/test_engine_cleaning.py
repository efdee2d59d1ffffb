"""The cleaning policy by itself: a counter, its threshold, and what starts it anew."""

from __future__ import annotations

import pytest

from nitrolib.engine import CacheCleaningPolicy
from nitrolib.errors import InvalidRequest


def due(policy, chats):
    return [number for number in range(1, chats + 1) if policy.chat_accepted()]


def test_the_default_threshold_is_five():
    assert due(CacheCleaningPolicy(), 16) == [5, 10, 15]


@pytest.mark.parametrize(("threshold", "expected"), [(1, [1, 2, 3, 4]), (3, [3]), (0, []), (9, [])])
def test_every_threshold_th_chat_is_due(threshold, expected):
    assert due(CacheCleaningPolicy(threshold), 4) == expected


def test_chats_since_clean_counts_up_to_the_threshold():
    policy = CacheCleaningPolicy(3)
    seen = []
    for _ in range(5):
        policy.chat_accepted()
        seen.append(policy.chats_since_clean)
    assert seen == [1, 2, 0, 1, 2]


def test_reset_starts_the_count_anew_and_keeps_the_number_of_cleanings():
    policy = CacheCleaningPolicy(3)
    due(policy, 2)
    policy.cleaned()
    policy.reset()
    assert (policy.chats_since_clean, policy.cleanings) == (0, 1)
    assert due(policy, 3) == [3]


@pytest.mark.parametrize("wrong", [-1, 2.5, "5", None, True])
def test_a_bad_threshold_is_refused_by_name(wrong):
    with pytest.raises(InvalidRequest) as caught:
        CacheCleaningPolicy(wrong)
    assert caught.value.field == "clean_cache_threshold"
