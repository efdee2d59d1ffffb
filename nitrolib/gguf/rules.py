"""What a backend may be handed, as data: a `Rule` for each backend. verify.py applies it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .types import BOOL, F32, STRING, U32

if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import ModelInfo

__all__ = ["CTRANSFORMERS", "KeyRule", "Rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """What one metadata key must be. Keys beginning with "." belong to the architecture.

    type: the exact value type. check: whether a value of it will do; gets the model too.
    allowed: the check in words; "{info...}" is filled in.
    unsupported: a value that fails is sound, and only this backend cannot honour it.
    """

    key: str
    type: int
    allowed: str
    check: Callable[[Any, ModelInfo], bool] = lambda _value, _info: True
    required: bool = False
    unsupported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a backend may be handed.

    backend: its name; instead: the one that may run sound files which this one cannot.
    keys: applied in order, so that a later check may rely on an earlier one.
    ignored: further keys of the architecture (without its name) that change nothing. Any other
        key of the architecture is refused: the backend would ignore it and compute something else.
    tokenizers: values of tokenizer.ggml.model.
    vectors: the tensors of one dimension and their sizes; matrices: those of two, row length first.
        Both are exactly what the file must hold.
    """

    backend: str
    instead: str
    architectures: frozenset[str]
    keys: tuple[KeyRule, ...]
    ignored: frozenset[str]
    tokenizers: frozenset[str]
    vectors: Callable[[ModelInfo], dict[str, tuple[int, ...]]]
    vector_types: frozenset[str]
    matrices: Callable[[ModelInfo], dict[str, tuple[int, ...]]]
    matrix_types: frozenset[str]


def _llama_vectors(info: ModelInfo) -> dict[str, tuple[int, ...]]:
    shape = (info.n_embd,)
    names = [f"blk.{layer}.{part}" for layer in range(info.n_layer) for part in _NORMS]
    return {f"{name}.weight": shape for name in ["output_norm", *names]}


_NORMS = ("attn_norm", "ffn_norm")


def _llama_matrices(info: ModelInfo) -> dict[str, tuple[int, ...]]:
    dim, n_ff = info.n_embd, info.n_ff
    kv_dim = dim // info.n_head * info.n_head_kv
    block = {
        "attn_q": (dim, dim),
        "attn_k": (dim, kv_dim),
        "attn_v": (dim, kv_dim),
        "attn_output": (dim, dim),
        "ffn_gate": (dim, n_ff),
        "ffn_up": (dim, n_ff),
        "ffn_down": (n_ff, dim),
    }
    shapes = {
        f"blk.{layer}.{part}.weight": shape
        for layer in range(info.n_layer)
        for part, shape in block.items()
    }
    ends = (dim, info.n_vocab)
    return {"token_embd.weight": ends, **shapes, "output.weight": ends}


def _is_head_size(value: int, info: ModelInfo) -> bool:
    return value == info.n_embd // info.n_head


_HEAD_SIZE = "the head size {info.n_embd} / {info.n_head}"

# The llama.cpp of September 2023 inside ctransformers checks next to nothing itself. Each line
# stands for a crash, wrong numbers or a refusal without a reason that was seen without it.
CTRANSFORMERS = Rule(
    backend="ctransformers",
    instead="llama-cpp-python",
    architectures=frozenset({"llama"}),
    keys=(
        KeyRule(key="general.name", type=STRING, allowed="any text"),
        KeyRule(key="general.file_type", type=U32, allowed="any number"),
        KeyRule(key="general.quantization_version", type=U32, allowed="any number"),
        KeyRule(
            key=".context_length", type=U32, required=True, allowed="1 or more",
            check=lambda value, _: value >= 1,
        ),
        KeyRule(
            key=".embedding_length", type=U32, required=True, allowed="1 or more",
            check=lambda value, _: value >= 1,
        ),
        KeyRule(
            key=".block_count", type=U32, required=True, allowed="1 or more",
            check=lambda value, _: value >= 1,
        ),
        KeyRule(
            key=".block_count", type=U32, allowed="at most 100", unsupported=True,
            check=lambda value, _: value <= 100,
        ),
        KeyRule(
            key=".feed_forward_length", type=U32, required=True, allowed="1 or more",
            check=lambda value, _: value >= 1,
        ),
        KeyRule(
            key=".attention.head_count", type=U32, required=True,
            allowed="a divisor of embedding_length {info.n_embd} that leaves even head sizes",
            check=lambda value, info: value >= 1 and info.n_embd % (2 * value) == 0,
        ),
        KeyRule(
            key=".attention.head_count_kv", type=U32,
            allowed="a divisor of attention.head_count {info.n_head}",
            check=lambda value, info: value >= 1 and info.n_head % value == 0,
        ),
        KeyRule(
            key=".rope.dimension_count", type=U32, allowed=_HEAD_SIZE, unsupported=True,
            check=_is_head_size,
        ),
        KeyRule(
            key=".attention.key_length", type=U32, allowed=_HEAD_SIZE, unsupported=True,
            check=_is_head_size,
        ),
        KeyRule(
            key=".attention.value_length", type=U32, allowed=_HEAD_SIZE, unsupported=True,
            check=_is_head_size,
        ),
        KeyRule(
            key=".attention.layer_norm_rms_epsilon", type=F32, required=True,
            allowed="0 up to 1, less than 1", check=lambda value, _: 0 <= value < 1,
        ),
        KeyRule(
            key=".rope.freq_base", type=F32, allowed="a finite number, 1 or more",
            check=lambda value, _: 1 <= value < math.inf,
        ),
        KeyRule(
            key=".rope.scale_linear", type=F32, allowed="a finite number above 0",
            check=lambda value, _: 0 < value < math.inf,
        ),
        KeyRule(
            key=".expert_count", type=U32, allowed="0, since it knows no experts",
            unsupported=True, check=lambda value, _: value == 0,
        ),
        KeyRule(
            key=".expert_used_count", type=U32, allowed="0, since it knows no experts",
            unsupported=True, check=lambda value, _: value == 0,
        ),
        KeyRule(
            key=".attention.causal", type=BOOL, allowed="true", unsupported=True,
            check=lambda value, _: value,
        ),
        KeyRule(
            key="tokenizer.ggml.add_space_prefix", type=BOOL, allowed="true", unsupported=True,
            check=lambda value, _: value,
        ),
    ),
    ignored=frozenset({".vocab_size", ".tensor_data_layout"}),
    tokenizers=frozenset({"llama"}),
    vectors=_llama_vectors,
    vector_types=frozenset({"F32"}),
    matrices=_llama_matrices,
    matrix_types=frozenset({
        "F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
        "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    }),
)  # fmt: skip
