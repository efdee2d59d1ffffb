"""ProbsRecorder: one entry of probabilities for every step of an answer, with the text it sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from ..sampling.logprobs import LogProbs
from .request import TokenProb, TokenProbs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..sampling.logprobs import Scores

__all__ = ["MAX_ENTRIES", "ProbsRecorder", "check_amount"]

MAX_ENTRIES = 4_194_304
"""Probabilities that one answer may return: at about 100 bytes each they take 400 MiB."""


def check_amount(n_probs: int, n_vocab: int, tokens: int) -> None:
    """Raise InvalidRequest when `tokens` steps with so many probabilities would be too many."""
    if min(n_probs, n_vocab) * tokens > MAX_ENTRIES:
        raise InvalidRequest(
            f"n_probs {n_probs} for up to {tokens} tokens is more than {MAX_ENTRIES} probabilities",
            field="n_probs",
            value=n_probs,
            allowed=f"at most {MAX_ENTRIES // tokens} here, or a smaller max_tokens",
        )


class ProbsRecorder:
    """The entries of one answer, in order.

    `sampled` notes the numbers of a token, then `sent` the text that its step let out, or `end`
    that of the last step. The texts of all entries, joined, are the text of the answer: a step that
    ends inside a character has no entry, and what it sent goes with the step that completes it.
    """

    def __init__(self, pieces: Sequence[bytes], n_vocab: int, n_probs: int) -> None:
        self._pieces = pieces
        self._n = n_probs
        self._score = LogProbs(n_vocab)
        self._open: tuple[int, Scores] | None = None  # a step that has no entry yet
        self._carried = ""
        self._entries: list[TokenProbs] = []
        self._told = 0

    @property
    def entries(self) -> tuple[TokenProbs, ...]:
        return tuple(self._entries)

    def sampled(self, logits: NDArray[np.float32], token: int) -> None:
        """*logits* (n_vocab,) float32, as the model gave them, and the token chosen."""
        self._open = token, self._score(logits, token, self._n)

    def sent(self, text: str, *, inside_character: bool) -> None:
        if inside_character:
            self._carried += text
        else:
            self._close(text)

    def end(self, text: str, *, stopped: bool) -> None:
        """The last step sent `text`, all that was held back included. When a stop string ended the
        answer, the steps that only spelled it go: no part of their text was sent."""
        if self._open is not None:
            self._close(text)
        elif text and self._told < len(self._entries):  # ended from outside, between two steps
            self._entries[-1] = replace(self._entries[-1], text=self._entries[-1].text + text)
        if stopped:
            while self._told < len(self._entries) and not self._entries[-1].text:
                self._entries.pop()

    def untold(self) -> tuple[TokenProbs, ...]:
        """The entries since the last call."""
        fresh = tuple(self._entries[self._told :])
        self._told = len(self._entries)
        return fresh

    def _close(self, text: str) -> None:
        assert self._open is not None
        (token, scores), self._open = self._open, None
        text, self._carried = self._carried + text, ""
        pieces = self._pieces
        self._entries.append(
            TokenProbs(
                id=token,
                text=text,
                logprob=scores.own,
                top=tuple(
                    TokenProb(one, bytes(pieces[one]), logprob, None)
                    for one, logprob in zip(scores.ids, scores.logprobs, strict=True)
                ),
            )
        )
