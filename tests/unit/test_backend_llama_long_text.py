"""Very long texts are cut so that no expression of the library's tokenizers overflows the stack."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nitrolib.backends.llama_cpp.long_text import LONGEST, pieces_of_bpe, pieces_of_runs

STORY = "The house by the river, 12 years on: don't wait! " * 400
CHINESE = "你好，世界。河边的小房子，十二年后。" * 400
STRETCHES = (r"\S{%d}", r"\s{%d}", r"(?:(?![\d_])[\w ]){%d}")


def longest_stretch(text: str) -> int:
    return max(
        (len(found) for kind in STRETCHES for found in re.findall(kind.replace("{%d}", "+"), text)),
        default=0,
    )


def test_a_text_of_words_is_left_whole():
    assert pieces_of_bpe(STORY) == [STORY]
    assert pieces_of_runs(STORY) == [STORY]


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "!", "1", "é", "hello ", "a1", "\t ", "你", "a b"]
)
def test_no_stretch_is_longer_than_allowed(unit):
    text = "before. " + unit * 5000 + " after."
    pieces = pieces_of_bpe(text)
    assert "".join(pieces) == text
    assert len(pieces) > 1
    assert max(map(longest_stretch, pieces)) <= LONGEST


def test_a_text_without_spaces_is_cut_before_its_punctuation():
    pieces = pieces_of_bpe(CHINESE)
    assert "".join(pieces) == CHINESE
    assert {piece[0] for piece in pieces[1:]} <= {"，", "。"}


def test_runs_of_white_space_are_spread_over_pieces():
    text = "line\n\n" * 3000 + " " * 5000
    pieces = pieces_of_runs(text)
    assert "".join(pieces) == text
    assert max(piece.count("\n\n") for piece in pieces) <= 256
    assert max(map(len, re.findall(r"\s+", "|".join(pieces)))) <= LONGEST


@settings(max_examples=300)
@given(
    parts=st.lists(
        st.tuples(st.text(min_size=1, max_size=3), st.integers(1, 3000)), min_size=1, max_size=4
    )
)
def test_pieces_are_the_text_and_short_enough(parts):
    text = "".join(unit * count for unit, count in parts)
    for pieces in (pieces_of_bpe(text), pieces_of_runs(text)):
        assert "".join(pieces) == text
    # Whatever adjoins a cut stretch may be as long again.
    assert max(map(longest_stretch, pieces_of_bpe(text)), default=0) <= 2 * LONGEST
