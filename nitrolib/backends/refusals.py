"""The errors of a runtime: what was wrong with a call, and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BackendError, InvalidRequest, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable


def no_sequence(seq: int, n_seq: int) -> InvalidRequest:
    return InvalidRequest(
        f"there is no sequence {seq}", field="seq", value=seq, allowed=f"0 to {n_seq - 1}"
    )


def fed_twice(seq: int) -> InvalidRequest:
    return InvalidRequest(
        "a sequence may have one feed in a decode",
        field="seq",
        value=seq,
        allowed="each sequence once",
    )


def too_many_tokens(
    count: int, *, n_past: int, n_ctx: int, n_batch: int, room: int
) -> InvalidRequest:
    """`count` tokens for a sequence of `n_past`, where the batch had room for `room`."""
    left = max(0, min(n_ctx - n_past, room))
    return InvalidRequest(
        f"{count} tokens cannot be fed to a sequence of {n_past} in a context of {n_ctx}, "
        f"{n_batch} in one decode",
        field="tokens",
        value=count,
        allowed=f"1 to {left} tokens at a time" if left else "none: there is no room",
    )


def too_many_rows(n_rows: int, n_outputs: int) -> InvalidRequest:
    return InvalidRequest(
        f"{n_rows} rows of logits were asked for in one decode",
        field="output",
        value=n_rows,
        allowed=f"at most {n_outputs} rows (n_parallel and lookup say how many)",
    )


def nothing_to_repeat(tokens: int, feeds: int) -> InvalidRequest:
    return InvalidRequest(
        f"{tokens} tokens cannot follow the last decode",
        field="tokens",
        value=tokens,
        allowed=f"{feeds} tokens, one for each of its feeds, where there is room"
        if feeds
        else "none: it had other feeds than single tokens with logits",
    )


def no_output(seq: int, outputs: Iterable[str]) -> InvalidRequest:
    return InvalidRequest(
        f"sequence {seq} has no such output: the last decode did not ask for it",
        field="seq",
        value=seq,
        allowed=f"a sequence fed in the last decode with output {' or '.join(outputs)}",
    )


def no_embedding() -> Unsupported:
    return Unsupported(
        "embeddings are not made in the sequences of generations",
        field="output",
        value="embedding",
        allowed="none, logits, every; embeddings come from the embedder",
    )


def failed(failures: dict[int, str]) -> BackendError:
    """The evaluation failed for these sequences, each with its reason, and they are empty now."""
    told = "; ".join(f"sequence {seq}: {reason}" for seq, reason in failures.items())
    return BackendError(f"evaluation failed: {told}", failed=tuple(failures))
