"""Model files of the benchmarks: random weights in common shapes, made once and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gguf_maker import make_llama

if TYPE_CHECKING:
    from pathlib import Path


def bench_model(cache: Path, shape: str) -> Path:
    """A random-weight model of that shape in the folder `cache`: Q8_0, the 1.1B in Q4_0."""
    quant = "Q4_0" if shape == "1.1B" else "Q8_0"
    path = cache / f"{shape}-{quant}.gguf"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        make_llama(unfinished, shape=shape, quant=quant, n_ctx_train=4096)
        unfinished.replace(path)
    return path
