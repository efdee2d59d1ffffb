"""An answer ends before a stop string; nothing else is lost, and nothing is held for long."""

from __future__ import annotations

import sys

import pytest

from nitrolib.errors import InvalidRequest
from nitrolib.text import StopMatcher


def fed(stops: list[str], *chunks: str) -> tuple[list[str], str, str | None]:
    matcher = StopMatcher(stops)
    sent = [matcher.feed(chunk) for chunk in chunks]
    return sent, matcher.finish(), matcher.matched


def test_text_is_cut_before_the_stop() -> None:
    assert fed(["END"], "one END two") == (["one "], "", "END")


def test_a_possible_beginning_is_held_back_and_released_when_it_fails() -> None:
    assert fed(["END"], "xx", "EN", "y") == (["xx", "", "ENy"], "", None)


def test_held_text_comes_out_at_the_end() -> None:
    assert fed(["END"], "xxEN") == (["xx"], "EN", None)


def test_a_stop_may_be_spread_over_many_chunks() -> None:
    assert fed(["</s>"], "a<", "/", "s", ">b") == (["a", "", "", ""], "", "</s>")


def test_only_the_part_that_may_still_match_is_held() -> None:
    assert fed(["aab"], "aaa", "a", "b") == (["a", "a", ""], "", "aab")


def test_the_stop_that_is_complete_first_wins() -> None:
    assert fed(["world", "lo w"], "hello world") == (["hel"], "", "lo w")
    assert fed(["abcd", "bc"], "abcd") == (["a"], "", "bc")
    assert fed(["abcd", "bc"], "a", "b", "c", "d") == (["", "", "a", ""], "", "bc")
    assert fed(["abc", "ab"], "xabc") == (["x"], "", "ab")


def test_of_stops_that_end_together_the_longest_wins() -> None:
    for stops in (["c", "abc", "bc"], ["abc", "bc", "c"]):
        assert fed(stops, "xa", "bc") == (["x", ""], "", "abc")


def test_a_failed_beginning_gives_way_to_another_stop_inside_it() -> None:
    assert fed(["abcd", "cx"], "abcx") == (["ab"], "", "cx")


def test_nothing_comes_out_after_a_match() -> None:
    matcher = StopMatcher(["."])
    assert matcher.feed("a.b") == "a"
    assert (matcher.feed("c"), matcher.finish(), matcher.held) == ("", "", "")
    assert matcher.matched == "."


def test_held_tells_what_is_held_back() -> None:
    matcher = StopMatcher(["User:"])
    matcher.feed("Hi. Us")
    assert matcher.held == "Us"


@pytest.mark.parametrize("stop", ["]", "^", "-", "\\", "[a", "&&", "\n", "\0", "😀", "é"])
def test_no_character_is_special(stop: str) -> None:
    assert fed([stop, "zz"], f"a{stop}b") == (["a"], "", stop)


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must not be empty") as caught:
        StopMatcher(["a", ""])
    assert caught.value.field == "stop"


def test_the_work_grows_with_the_text_and_not_with_the_stops() -> None:
    """Counted, not timed: calls of the one step of the automaton."""

    def steps(stops: list[str], chunks: list[str]) -> int:
        matcher = StopMatcher(stops)
        calls = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            for chunk in chunks:
                matcher.feed(chunk)
        finally:
            sys.setprofile(None)
        return calls

    long_stop = "a" * 5000 + "b"
    assert steps([long_stop], ["a"] * 20_000) <= 4 * 20_000
    assert steps([f"{i}x" for i in range(3000)], ["7y"] * 100) <= 6 * 100
    assert steps(["END"], ["no such letters here"] * 100) <= 2 * 100


def test_sixty_thousand_characters_of_stops_and_a_megabyte_of_text_are_no_attack() -> None:
    """A quadratic matcher would run into the suite's time limit."""
    matcher = StopMatcher(["ab" * 30_000 + "c"])
    sent = sum(len(matcher.feed("ab" * 500)) for _ in range(1000))
    assert sent + len(matcher.held) == 1_000_000
    assert len(matcher.finish()) == 60_000
