"""ProbsRecorder: one entry of probabilities for every step of an answer, with the text it sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from ..sampling.logprobs import LogProbs
from .request import TokenProb, TokenProbs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..gguf import Vocabulary
    from ..sampling import SamplingParams, Survivors

__all__ = ["MAX_ENTRIES", "ProbsRecorder", "check_amount", "recorder"]

Score = Callable[["NDArray[np.float32]", int, "Survivors | None"], TokenProbs]
"""The entry, without its text, of a row of logits, the token chosen, and what it was drawn from."""

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


def recorder(params: SamplingParams, vocabulary: Vocabulary) -> ProbsRecorder:
    """What records the probabilities that `params` ask for."""
    pieces, n = vocabulary.pieces, params.n_probs
    if params.post_sampling_probs:
        return ProbsRecorder(partial(_drawn, pieces))
    return ProbsRecorder(partial(_raw, pieces, LogProbs(vocabulary.n_vocab), n))


class ProbsRecorder:
    """The entries of one answer, in order.

    `sampled` notes the numbers of a token, then `sent` the text that its step let out, or `end`
    that of the last step. The texts of all entries, joined, are the text of the answer: a step that
    ends inside a character has no entry, and what it sent goes with the step that completes it.
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self._open: TokenProbs | None = None  # a step whose text is not known yet
        self._carried = ""
        self._entries: list[TokenProbs] = []
        self._told = 0

    @property
    def entries(self) -> tuple[TokenProbs, ...]:
        return tuple(self._entries)

    def sampled(self, logits: NDArray[np.float32], token: int, drawn: Survivors | None) -> None:
        """*logits* (n_vocab,) float32, as the model gave them, the token chosen, and the candidates
        it was drawn from where the sampler kept them."""
        self._open = self._score(logits, token, drawn)

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
        entry, self._open = self._open, None
        self._entries.append(replace(entry, text=self._carried + text))
        self._carried = ""


def _raw(
    pieces: Sequence[bytes],
    score: LogProbs,
    n: int,
    logits: NDArray[np.float32],
    token: int,
    _drawn: Survivors | None,
) -> TokenProbs:
    """By the softmax of the raw logits."""
    scores = score(logits, token, n)
    top = tuple(
        TokenProb(one, bytes(pieces[one]), logprob, None)
        for one, logprob in zip(scores.ids, scores.logprobs, strict=True)
    )
    return TokenProbs(id=token, text="", logprob=scores.own, top=top)


def _drawn(
    pieces: Sequence[bytes],
    _logits: NDArray[np.float32],
    token: int,
    drawn: Survivors | None,
) -> TokenProbs:
    """By the candidates that the token was drawn from."""
    assert drawn is not None  # the sampler keeps them for post_sampling_probs
    top = tuple(TokenProb(one, bytes(pieces[one]), None, p) for one, p in drawn.top)
    return TokenProbs(id=token, text="", prob=drawn.p, top=top)
