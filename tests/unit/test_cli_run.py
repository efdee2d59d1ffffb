"""`nitro run`: how a prompt is put together from arguments and standard input."""

from __future__ import annotations

import io
import sys

import pytest

from nitrolib.cli.run import prompt_text
from nitrolib.errors import InvalidRequest


class _Stdin(io.TextIOWrapper):
    def __init__(self, raw: bytes, *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(raw))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("words", "piped", "prompt"),
    [
        (["Hello"], b"unread", "Hello"),
        (["Tell", "me"], b"", "Tell me"),
        ([], b"from the pipe\n", "from the pipe"),
        (["-"], b"from the pipe\n", "from the pipe"),
        (["Sum", "up:", "-"], b"a\nb\n", "Sum up:\n\na\nb"),
        (["-", "Sum", "it", "up"], b"a\n", "a\n\nSum it up"),
        (["x", "-"], b"", "x"),
    ],
)
def test_words_and_standard_input_make_one_prompt(
    words: list[str], piped: bytes, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(piped))
    assert prompt_text(words) == prompt


def test_a_prompt_in_the_arguments_leaves_standard_input_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In `while read line; do nitro run ...; done` the loop's input must survive."""
    stdin = _Stdin(b"next line\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    prompt_text(["Hello"])
    assert stdin.buffer.read() == b"next line\n"


def test_no_prompt_at_a_terminal_is_misuse_and_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(b"", terminal=True))
    with pytest.raises(InvalidRequest, match="no PROMPT"):
        prompt_text([])


@pytest.mark.parametrize(("words", "piped"), [([], b""), ([], b" \n"), ([""], b""), (["-"], b"\n")])
def test_an_empty_prompt_is_refused(
    words: list[str], piped: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(piped))
    with pytest.raises(InvalidRequest, match="empty"):
        prompt_text(words)
