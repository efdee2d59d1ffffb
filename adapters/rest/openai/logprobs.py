"""Log probabilities in the form of OpenAI's older completions: parallel lists, and places in the
text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nitrolib.sampling.logprobs import LOG_ZERO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nitrolib.engine.request import TokenProb, TokenProbs
    from nitrolib.gguf import Vocabulary

__all__ = ["LogprobTable", "log_of"]


class LogprobTable:
    """Makes `logprobs` of the steps of one choice, all at once or as they come.

    listed: most likely tokens of every step, beside the one chosen.
    """

    def __init__(self, vocabulary: Vocabulary, listed: int) -> None:
        self._pieces: Sequence[bytes] = vocabulary.pieces
        self._special = {token: text for text, token in vocabulary.special.items()}
        self._listed = listed
        self._offset = 0  # characters of the text before the next step

    def of(self, entries: Iterable[TokenProbs]) -> dict[str, Any]:
        """The lists for the next *entries*. Their `tokens` are the texts that were sent, so that
        they join to the answer."""
        found: dict[str, list[Any]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip
        for entry in entries:
            own = log_of(entry)
            found["tokens"].append(entry.text)
            found["token_logprobs"].append(own)
            found["top_logprobs"].append(self._top(entry, own))
            found["text_offset"].append(self._offset)
            self._offset += len(entry.text)
        return found

    def _top(self, entry: TokenProbs, own: float) -> dict[str, float]:
        """By the tokens' own texts. Of tokens that have the same one the likeliest counts."""
        found: dict[str, float] = {}
        for one in entry.top[: self._listed]:
            found.setdefault(self._name(one.id, one.piece), log_of(one))
        found.setdefault(self._name(entry.id, self._pieces[entry.id]), own)
        return found

    def _name(self, token: int, piece: bytes) -> str:
        if token in self._special:
            return self._special[token]
        try:
            return bytes(piece).decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def log_of(one: TokenProb | TokenProbs) -> float:
    """The logarithm, also where the probability after sampling was asked for."""
    if one.logprob is not None:
        return one.logprob
    return math.log(one.prob) if one.prob else LOG_ZERO
