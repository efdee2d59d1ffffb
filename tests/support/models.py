"""Model files for tests that need a server: the bundled one where there is one, and a slow one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .gguf_maker import Shape, make_llama

if TYPE_CHECKING:
    from pathlib import Path

# About 4 ms a prompt token and 8 ms an answer token on one core: a prompt of 2,000 tokens and an
# answer without end are many seconds, so whoever ends them early can be told from one who waits.
SLOW = Shape(n_embd=512, n_layer=8, n_head=8, n_head_kv=8, n_ff=1408, n_vocab=512, n_ctx_train=8192)


# Backend -> the type of weights with which its logits depend least on how tokens are grouped into
# evaluations. ctransformers rounds F32 otherwise in another grouping, and Q8_0 not at all. The
# quantised kernels of llama.cpp differ by up to 0.1 (of a deviation of 2), F32 by 0.003, and
# without flash attention, which sums in F16, by 0.00004.
EXACT = {"ctransformers": "Q8_0", "llama-cpp-python": "F32"}


def exact_chat_model(folder: Path, backend: str) -> Path:
    """A model to chat with, of random weights, whose answers depend on the request alone."""
    path = folder / "exact.gguf"
    return make_llama(path, quant=EXACT[backend], n_ctx_train=2048)


def exact_options(backend: str) -> dict[str, Any]:
    """The load options that go with EXACT."""
    return {} if backend == "ctransformers" else {"flash_attention": False}


class Rounding:
    """Compares what should be equal but for rounding: results depend on how tokens are grouped. Of
    1,500 prompts in a Q8_0 model on ctransformers two had other logits, by 0.06 where the deviation
    is 2, when their last tokens were evaluated one by one; on llama-cpp-python more have. So one
    comparison in a hundred may differ, since a draw or a tie may fall between two roundings; a
    cache or a batch that is wrong changes far more."""

    def __init__(self) -> None:
        self._compared = self._differed = 0

    def assert_same(self, one: object, other: object) -> None:
        self._compared += 1
        if one != other:
            self._differed += 1
            assert self._differed <= 1 + self._compared / 100, (one, other)


def slow_model(folder: Path) -> Path:
    return make_llama(folder / "slow.gguf", shape=SLOW, quant="Q8_0")


def chat_model(folder: Path) -> Path:
    """The bundled model, or one of random weights where the package has none."""
    from nitrolib import demo

    try:
        return demo.model_path()
    except FileNotFoundError:
        return make_llama(folder / "tiny.gguf", n_ctx_train=2048)
