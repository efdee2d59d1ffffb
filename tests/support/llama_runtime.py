"""Short ways with a runtime on llama-cpp-python, for its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nitrolib.backends import Feed, LoadOptions, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Prompt for the vocabularies of 512 tokens and more: BOS, then pieces.
IDS = [1, *range(260, 300), 5, 17, 400]
# What the grouping of tokens changes: keys and values are 16-bit floats, sums are rounded.
CLOSE = 5e-3


def open_llama(path: Path, **changes: object):  # type: ignore[no-untyped-def]
    fields = {"ctx_len": 256, "threads": 1, "ngl": 0, **changes}
    return load(path, LoadOptions(**fields), "llama-cpp-python")  # type: ignore[arg-type]


def feed_all(runtime, seq: int, ids: Sequence[int], step: int | None = None) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Evaluate `ids` in pieces of `step`, and give a copy of the last logits."""
    step = step or runtime.n_batch
    for start in range(0, len(ids), step):
        runtime.decode([Feed(seq, ids[start : start + step])])
    return np.array(runtime.logits(seq))


def greedy(runtime, seq: int, count: int) -> list[int]:  # type: ignore[no-untyped-def]
    """Continue a sequence whose logits are there."""
    made: list[int] = []
    for _ in range(count):
        made.append(int(runtime.logits(seq).argmax()))
        runtime.decode([Feed(seq, (made[-1],))])
    return made
