"""llama-cpp-python's own high-level `Llama`, as the reference for what our backend computes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextlib.contextmanager
def peer(path: Path, **options: object) -> Iterator[object]:
    """A `Llama` on the file, on one thread, with flash attention as our backend has it."""
    from nitrolib.backends.llama_cpp import bindings

    native = bindings.native()  # first: its log is taken after that of the package
    from llama_cpp import Llama

    fields = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "n_gpu_layers": 0,
              "flash_attn": True, "logits_all": True, "verbose": True}  # fmt: skip
    llama = Llama(str(path), **{**fields, **options})  # type: ignore[arg-type]
    native.log_set(native.log.callback, None)
    try:
        yield llama
    finally:
        llama.close()


def peer_logits(path: Path, ids: Sequence[int], **options: object) -> np.ndarray:
    """Logits after every token of `ids`: (len(ids), n_vocab)."""
    with peer(path, **options) as llama:
        llama.eval(list(ids))  # type: ignore[attr-defined]
        return np.array(llama.scores[: len(ids)], np.float32)  # type: ignore[attr-defined]


def peer_greedy(path: Path, ids: Sequence[int], count: int, **options: object) -> list[int]:
    """The `count` tokens that it continues with, the likeliest each time."""
    with peer(path, **options) as llama:
        tokens = llama.generate(list(ids), temp=0.0, repeat_penalty=1.0)  # type: ignore[attr-defined]
        return [token for token, _ in zip(tokens, range(count), strict=False)]
