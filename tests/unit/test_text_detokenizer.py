"""Token ids become text as they come, whole characters only."""

from __future__ import annotations

import pytest

from nitrolib.errors import InvalidRequest
from nitrolib.text import Detokenizer

PIECES = [b"", b" Hello", b"\xf0\x9f", b"\x98\x80", b"\xff", b"!", b" ", b"\n\t"]


def fed(ids: list[int], **options: bool) -> tuple[list[str], str]:
    detokenizer = Detokenizer(PIECES, **options)
    return [detokenizer.feed(token_id) for token_id in ids], detokenizer.finish()


def test_half_a_character_waits_for_the_other_half() -> None:
    assert fed([1, 2, 3, 5]) == ([" Hello", "", "😀", "!"], "")


def test_an_incomplete_end_is_one_replacement_character() -> None:
    assert fed([5, 2]) == (["!", ""], "\ufffd")


def test_invalid_bytes_are_replaced_as_soon_as_they_are_known() -> None:
    assert fed([4, 2, 5, 3]) == (["\ufffd", "", "\ufffd!", "\ufffd\ufffd"], "")


def test_pending_are_the_bytes_of_the_unfinished_character() -> None:
    detokenizer = Detokenizer(PIECES)
    detokenizer.feed(2)
    assert detokenizer.pending == b"\xf0\x9f"
    detokenizer.feed(3)
    assert detokenizer.pending == b""


def test_leading_space_is_kept_unless_asked() -> None:
    assert fed([6, 7, 1, 6]) == ([" ", "\n\t", " Hello", " "], "")
    assert fed([6, 7, 1, 6], strip_leading_space=True) == (["", "", "Hello", " "], "")
    assert fed([6, 2], strip_leading_space=True) == (["", ""], "\ufffd")
    assert fed([6], strip_leading_space=True) == ([""], "")


@pytest.mark.parametrize("token_id", [-1, len(PIECES), 10**9])
def test_an_id_that_is_not_in_the_vocabulary_is_refused(token_id: int) -> None:
    with pytest.raises(InvalidRequest, match="not in the vocabulary") as caught:
        Detokenizer(PIECES).feed(token_id)
    assert (caught.value.field, caught.value.value) == ("token_id", token_id)


def test_after_finish_it_starts_anew() -> None:
    detokenizer = Detokenizer(PIECES)
    detokenizer.feed(2)
    detokenizer.finish()
    assert detokenizer.feed(3) == "\ufffd\ufffd"
    assert detokenizer.feed(1) == " Hello"
