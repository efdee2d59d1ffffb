"""Model files for tests that need a server: the bundled one where there is one, and a slow one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gguf_maker import Shape, make_llama

if TYPE_CHECKING:
    from pathlib import Path

# About 4 ms a prompt token and 8 ms an answer token on one core: a prompt of 2,000 tokens and an
# answer without end are many seconds, so whoever ends them early can be told from one who waits.
SLOW = Shape(n_embd=512, n_layer=8, n_head=8, n_head_kv=8, n_ff=1408, n_vocab=512, n_ctx_train=8192)


# Backend -> the type of weights with which its logits do not depend on how tokens are grouped into
# evaluations: ctransformers rounds F32 otherwise in another grouping, llama.cpp's quantised kernels
# quantise activations by the batch.
EXACT = {"ctransformers": "Q8_0", "llama-cpp-python": "F32"}


def slow_model(folder: Path) -> Path:
    return make_llama(folder / "slow.gguf", shape=SLOW, quant="Q8_0")


def chat_model(folder: Path) -> Path:
    """The bundled model, or one of random weights where the package has none."""
    from nitrolib import demo

    try:
        return demo.model_path()
    except FileNotFoundError:
        return make_llama(folder / "tiny.gguf", n_ctx_train=2048)
