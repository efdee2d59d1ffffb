"""Probabilities of tokens in an answer: OpenAI's shape, with llama.cpp's additions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nitrolib.engine.request import TokenProb, TokenProbs

__all__ = ["MAX_STREAMED", "MAX_WHOLE", "asked", "check_amount", "logprobs"]

MAX_WHOLE = 262_144
"""Entries that an answer which is not streamed may hold: about a kilobyte each while it is made."""

MAX_STREAMED = 4_194_304
"""Entries of a streamed answer, all its choices together: the engine keeps them to the end."""


def asked(body: Mapping[str, Any]) -> int | None:
    """Most likely tokens to list with every token of the answer, 0 for the token alone; None where
    no probabilities are asked for. OpenAI asks with logprobs and top_logprobs, llama.cpp with
    n_probs."""
    top, wanted = body.get("top_logprobs"), body.get("logprobs", False)
    if top and not wanted:
        raise InvalidRequest(
            "top_logprobs needs logprobs",
            field="top_logprobs",
            value=top,
            allowed="logprobs true beside it",
        )
    n_probs: int = body.get("n_probs", 0)
    if n_probs and top is not None and top != n_probs:
        raise InvalidRequest(
            "top_logprobs and n_probs differ",
            field="n_probs",
            value=n_probs,
            allowed="the same number, or one of the two",
        )
    if not wanted and not n_probs:
        return None
    return n_probs or int(top or 0)


def check_amount(n_probs: int, tokens: int, n: int, *, stream: bool) -> None:
    """Raise InvalidRequest where `n` answers of `tokens` tokens would have too many entries."""
    most = MAX_STREAMED if stream else MAX_WHOLE
    if n_probs * tokens * n > most:
        raise InvalidRequest(
            f"n_probs {n_probs} for {n} answers of up to {tokens} tokens is more than {most} "
            "probabilities",
            field="n_probs",
            value=n_probs,
            allowed="fewer, or a smaller max_tokens" + ("" if stream else ", or a streamed answer"),
        )


def logprobs(entries: Iterable[TokenProbs], listed: int) -> dict[str, Any]:
    """`logprobs` of a choice, `listed` tokens in each list."""
    return {"content": [_entry(entry, listed) for entry in entries]}


def _entry(entry: TokenProbs, listed: int) -> dict[str, Any]:
    """A step of the answer. Its text is what was sent, so that the texts join to the answer."""
    after = entry.logprob is None
    return {
        "id": entry.id,
        "token": entry.text,
        "bytes": list(entry.text.encode()),
        "prob" if after else "logprob": entry.prob if after else entry.logprob,
        "top_probs" if after else "top_logprobs": [_top(one) for one in entry.top[:listed]],
    }


def _top(one: TokenProb) -> dict[str, Any]:
    after = one.logprob is None
    return {
        "id": one.id,
        "token": one.piece.decode(errors="ignore"),
        "bytes": list(one.piece),
        "prob" if after else "logprob": one.prob if after else one.logprob,
    }
