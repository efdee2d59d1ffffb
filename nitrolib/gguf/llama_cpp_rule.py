"""What llama-cpp-python may be handed: any model of today, with sizes that its library can take.

libllama proves the names, shapes and offsets of tensors itself and answers what is wrong with them
by loading nothing. What is checked here ends the process instead: an assertion, a division by zero,
an exception that nobody catches, or a loop without end. Source: llama.cpp as vendored in
llama-cpp-python 0.3.36, and the fuzzer (tests/fuzz/gguf_fuzz.py).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from .llama_cpp_architectures import (
    ARCHITECTURES,
    EQUAL_HEADS,
    EXPERTS,
    RECURRENT,
    SECTIONED_ROPE,
    WHOLE_HEAD_ROPE,
    WIDENED,
)
from .llama_cpp_tokenizers import check_tokenizer
from .rules import Candidate, KeyRule, Rule, listed
from .types import ARRAY, BOOL, F32, STRING, U32

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .model import ModelInfo

__all__ = ["LLAMA_CPP"]

_MAX_SIZE = 1 << 24  # of any one dimension; far above anything real
_MAX_LAYERS = 512
_MAX_EXPERTS = 1024


def _between(least: int, most: int) -> Callable[[Any, ModelInfo], bool]:
    return lambda value, _info: least <= value <= most


def _size(key: str, *, required: bool = False) -> KeyRule:
    return KeyRule(
        key=key,
        type=U32,
        required=required,
        allowed=f"1 to {_MAX_SIZE}",
        check=_between(1, _MAX_SIZE),
    )


def _finite(key: str, *, least: float = -math.inf, above: float = -math.inf) -> KeyRule:
    words = "a finite number"
    if least > -math.inf:
        words += f", {least:g} or more"
    if above > -math.inf:
        words += f" above {above:g}"
    return KeyRule(
        key=key,
        type=F32,
        allowed=words,
        check=lambda value, _: math.isfinite(value) and value >= least and value > above,
    )


_TWICE_AS_WIDE = KeyRule(
    key=".ssm.inner_size", type=U32, allowed="twice the embedding_length {info.n_embd}",
    check=lambda value, info: value == 2 * info.n_embd,
)  # fmt: skip

_KEYS = (
    KeyRule(key="general.name", type=STRING, allowed="any text"),
    KeyRule(
        key="general.type", type=STRING, allowed='"model"', unsupported=True,
        check=lambda value, _: value == "model",
    ),
    KeyRule(
        key=".context_length", type=U32, required=True, allowed="1 up to 2^31, less than that",
        check=_between(1, (1 << 31) - 1),
    ),
    _size(".embedding_length", required=True),
    _size(".embedding_length_out"),
    KeyRule(
        key=".block_count", type=U32, required=True, allowed=f"1 to {_MAX_LAYERS}",
        check=_between(1, _MAX_LAYERS),
    ),
    KeyRule(
        key=".nextn_predict_layers", type=U32, allowed="less than block_count {info.n_layer}",
        check=lambda value, info: value < info.n_layer,
    ),
    KeyRule(
        key=".attention.sliding_window", type=U32, allowed=f"0 to {_MAX_SIZE}",
        check=_between(0, _MAX_SIZE),
    ),
    _size(".attention.key_length"),
    _size(".attention.value_length"),
    _size(".attention.key_length_swa"),
    _size(".attention.value_length_swa"),
    _finite(".attention.layer_norm_epsilon", least=0),
    _finite(".attention.layer_norm_rms_epsilon", least=0),
    _finite(".attention.group_norm_epsilon", least=0),
    _size(".attention.group_norm_groups"),
    _finite(".rope.freq_base", above=0),
    _finite(".rope.freq_base_swa", above=0),
    _finite(".rope.scale_linear", least=0),
    _finite(".rope.scaling.factor", least=0),
    _finite(".rope.scaling.attn_factor"),
    KeyRule(
        key=".rope.scaling.type", type=STRING, allowed="none, linear, yarn or longrope",
        unsupported=True, check=lambda value, _: value in ("none", "linear", "yarn", "longrope"),
    ),
    KeyRule(
        key=".pooling_type", type=U32, allowed="0 to 4 (none, mean, cls, last, rank)",
        unsupported=True, check=_between(0, 4),
    ),
    KeyRule(
        key=".expert_count", type=U32, allowed=f"at most {_MAX_EXPERTS}", unsupported=True,
        check=_between(0, _MAX_EXPERTS),
    ),
    KeyRule(
        key=".expert_group_count", type=U32, allowed=f"at most {_MAX_EXPERTS}",
        check=_between(0, _MAX_EXPERTS),
    ),
    KeyRule(
        key=".expert_group_used_count", type=U32, allowed=f"at most {_MAX_EXPERTS}",
        check=_between(0, _MAX_EXPERTS),
    ),
    KeyRule(
        key=".expert_gating_func", type=U32, allowed="1 to 4", unsupported=True,
        check=_between(1, 4),
    ),
    _size(".ssm.conv_kernel"),
    _size(".ssm.inner_size"),
    _size(".ssm.state_size"),
    _size(".ssm.time_step_rank"),
    _size(".wkv.head_size"),
    _size(".shortconv.l_cache"),
    _size(".interleave_moe_layer_step"),
    _size(".full_attention_interval"),
)  # fmt: skip


def _exactly(key: str, value: int, *, required: bool = False) -> KeyRule:
    return KeyRule(
        key=key,
        type=U32,
        required=required,
        allowed=str(value),
        unsupported=True,
        check=lambda found, _: found == value,
    )


# What the code of single architectures asserts, beside what holds for all.
_OWN_KEYS: dict[str, tuple[KeyRule, ...]] = {
    "bailingmoe3": (
        KeyRule(key=".kda.safe_gate", type=BOOL, allowed="true", check=lambda value, _: value),
        KeyRule(
            key=".kda.gate_lower_bound", type=F32, required=True, allowed="below 0",
            check=lambda value, _: value < 0,
        ),
    ),
    "gemma-embedding": tuple(
        KeyRule(
            key=key, type=U32, allowed="0 or embedding_length {info.n_embd}",
            check=lambda value, info: value in (0, info.n_embd),
        )
        for key in (".dense_2_feat_in", ".dense_3_feat_out")
    ),
    "glm5-next": (
        _exactly(".hyper_connection.count", 4, required=True),
        KeyRule(
            key=".attention.indexer.kpool", type=U32, required=True, allowed="2 or more",
            check=_between(2, _MAX_SIZE),
        ),
    ),
    "granitehybrid": (_TWICE_AS_WIDE,),
    "grovemoe": (_size(".experts_per_group", required=True),),
    "hrm_text": tuple(
        _size(f".hrm.{name}", required=True)
        for name in ("layers_per_stack", "h_cycles", "l_cycles")
    ),
    "jamba": (_TWICE_AS_WIDE,),
    "minimax-m3": (_size(".attention.indexer.block_size", required=True),),
    "nanbeige": (
        KeyRule(
            key=".num_loops", type=U32, allowed="1 up to 512 / block_count {info.n_layer}",
            check=lambda value, info: 1 <= value <= _MAX_LAYERS // info.n_layer,
        ),
    ),
}  # fmt: skip


def _check_keys(candidate: Candidate) -> None:
    candidate.check_keys(_KEYS)
    candidate.check_keys(_OWN_KEYS.get(candidate.info.architecture, ()))


# Heads --------------------------------------------------------------------------------------------


def _layers(candidate: Candidate, key: str, most: int = _MAX_SIZE) -> NDArray[np.int64] | None:
    """The values of a key that has one for all layers or one for each, up to `most`; None where
    it is absent."""
    metadata, n_layer = candidate.metadata, candidate.info.n_layer
    full = candidate.full(key)
    if full not in metadata:
        return None
    if metadata.entry(full).type != ARRAY:
        values = np.full(n_layer, metadata.integer(full) or 0, np.int64)
    else:
        values = metadata.numbers(full).astype(np.int64)
        if values.size != n_layer:
            candidate.fail(f"{values.size} values for {n_layer} layers", key=full)
    if values.size and not 0 <= values.min() <= values.max() <= most:
        candidate.fail(f"the values must be 0 to {most}", key=full)
    return values


def _check_heads(candidate: Candidate) -> None:
    architecture = candidate.info.architecture
    heads = _layers(candidate, ".attention.head_count")
    _layers(candidate, ".feed_forward_length")
    if architecture in RECURRENT:
        return
    key = candidate.full(".attention.head_count")
    if heads is None:
        candidate.fail("the key is missing", key=key)
    if not heads.any():
        candidate.fail("no layer has a head", key=key)
    kv_heads = _layers(candidate, ".attention.head_count_kv")
    if kv_heads is not None:
        both = (heads > 0) & (kv_heads > 0)
        if (heads[both] % kv_heads[both]).any():
            candidate.fail(
                "heads with keys and values must be a divisor of attention.head_count",
                key=candidate.full(".attention.head_count_kv"),
            )
    if heads[0]:
        _check_head_sizes(candidate, int(heads[0]))


def _check_head_sizes(candidate: Candidate, n_head: int) -> None:
    info, metadata = candidate.info, candidate.metadata
    share = info.n_embd // n_head
    sizes = {}
    for name in ("key", "value"):
        key = candidate.full(f".attention.{name}_length")
        sizes[name] = metadata.get(key, share)
    heads = candidate.full(".attention.head_count")
    if not sizes["key"] or not sizes["value"]:
        candidate.fail(f"{n_head} heads share {info.n_embd} numbers", key=heads)
    if sizes["key"] % 2:
        candidate.refuse(f"the heads have the odd size {sizes['key']}", key=heads)
    if info.architecture in EQUAL_HEADS and sizes["key"] != sizes["value"]:
        candidate.refuse(
            f"its keys have {sizes['key']} numbers and its values {sizes['value']}; "
            f"{candidate.rule.backend} takes one size in {info.architecture!r}",
            key=candidate.full(".attention.value_length"),
        )
    for suffix in ("", "_swa"):
        _check_rope(candidate, f".rope.dimension_count{suffix}", sizes["key"])


def _check_rope(candidate: Candidate, name: str, head_size: int) -> None:
    key = candidate.full(name)
    dimensions = candidate.metadata.integer(key)
    if dimensions is None:
        return
    if candidate.info.architecture in WHOLE_HEAD_ROPE:
        if dimensions != head_size:
            candidate.refuse(
                f"the value is {dimensions}; {candidate.rule.backend} takes the head size "
                f"{head_size} in {candidate.info.architecture!r}",
                key=key,
            )
    elif dimensions % 2 or not 2 <= dimensions <= head_size:
        candidate.fail(
            f"the value is {dimensions}; it is even, from 2 to the head size {head_size}", key=key
        )


def _check_sections(candidate: Candidate) -> None:
    """The library divides by the sum of the sections."""
    key = candidate.full(".rope.dimension_sections")
    needed = candidate.info.architecture in SECTIONED_ROPE
    if key not in candidate.metadata:
        if needed:
            candidate.fail("the key is missing", key=key)
        return
    entry = candidate.metadata.entry(key)
    values = candidate.metadata.numbers(key) if entry.type == ARRAY else candidate.metadata[key]
    sections = np.atleast_1d(values)
    if (sections < 0).any() or (needed and not sections[:3].any()):
        candidate.fail(f"{sections.tolist()} are no sections of a head", key=key)


def _check_window(candidate: Candidate) -> None:
    """The library asserts that some layer slides where there is a window, and in encoders makes a
    mask for each kind of layer whether or not there is one."""
    window = candidate.metadata.integer(candidate.full(".attention.sliding_window"))
    key = candidate.full(".attention.sliding_window_pattern")
    encoder = _ENCODER_PATTERNS.get(candidate.info.architecture)
    if window == 0 or (window is None if encoder else key not in candidate.metadata):
        return
    slides = _sliding_layers(candidate, key, *(encoder or (0, False)))
    if not slides.any():
        candidate.refuse("there is a sliding window, and no layer that has it", key=key)
    if encoder is not None and slides.all():
        candidate.refuse("every layer has the sliding window", key=key)


# Architecture -> every how many layers one is without the window, and whether it is the first.
_ENCODER_PATTERNS = {"gemma-embedding": (6, False), "modern-bert": (3, True)}


def _sliding_layers(candidate: Candidate, key: str, every: int, first: bool) -> NDArray[np.bool_]:
    """Which layers have a sliding window, as the library reckons it from the pattern."""
    n_layer = candidate.info.n_layer
    if key in candidate.metadata:
        if candidate.metadata.entry(key).type == ARRAY:
            return candidate.metadata.numbers(key)[:n_layer].astype(np.bool_)
        every = candidate.metadata.integer(key) or 0
    if every == 0:
        return np.ones(n_layer, np.bool_)
    slides: NDArray[np.bool_] = np.arange(n_layer) % every != (0 if first else every - 1)
    return slides


# Experts ------------------------------------------------------------------------------------------


def _check_experts(candidate: Candidate) -> None:
    metadata = candidate.metadata
    count = metadata.integer(candidate.full(".expert_count")) or 0
    used = _layers(candidate, ".expert_used_count", _MAX_EXPERTS)
    most_used = 0 if used is None else int(used.max())
    key = candidate.full(".expert_used_count")
    if most_used > count:
        candidate.fail(f"{most_used} of {count} experts are used", key=key)
    if count and not most_used:
        candidate.fail(f"none of {count} experts is used", key=key)
    if not count and candidate.info.architecture in EXPERTS:
        candidate.fail("there are no experts", key=candidate.full(".expert_count"))
    _check_expert_groups(candidate, count)


def _check_expert_groups(candidate: Candidate, count: int) -> None:
    key = candidate.full(".expert_group_count")
    groups = candidate.metadata.integer(key) or 0
    used = candidate.metadata.integer(candidate.full(".expert_group_used_count")) or 0
    if groups > 1:
        if count % groups or count // groups < 2:
            candidate.fail(f"{count} experts in {groups} groups", key=key)
        if not 1 <= used < groups:
            candidate.fail(
                f"{used} of {groups} groups are used",
                key=candidate.full(".expert_group_used_count"),
            )
    elif groups >= max(count, 1):
        candidate.fail(f"{groups} group of {count} experts", key=key)


# Tensors ------------------------------------------------------------------------------------------

_WEIGHT_TYPES = frozenset({
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "IQ1_M",
    "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0",
})  # fmt: skip

# What is added to or multiplied with activations number by number, which are F32: the library
# aborts at the first token where it is of another type. All else is multiplied as a matrix.
_ELEMENTWISE = re.compile(
    r"\.bias$|norm(_\d+|_exps)?(\.weight)?$|^token_types\.|\.scale$"
    r"|(ssm_(a|d|conv1d(_[qkv])?)|shortconv\.conv|attn_sinks|_base|_scale|res_score)(\.weight)?$"
    r"|_mix_(lerp_\w+|decay|first|ln|k_k|k_a|r_k|w0|a0|v0)(\.weight)?$"
)
_TABLES = re.compile(r"tid2eid")  # ids, looked up and never computed with


def _check_tensors(candidate: Candidate) -> None:
    _check_places(candidate)
    _check_attention(candidate)
    _check_output_size(candidate)
    for name, tensor in candidate.file.tensors.items():
        kind = tensor.type.name
        if len(tensor.shape) == 1 or _ELEMENTWISE.search(name):
            allowed = frozenset({"F32"})
        elif _TABLES.search(name):
            allowed = frozenset({"I32"})
        else:
            allowed = _WEIGHT_TYPES
        if kind not in allowed:
            candidate.refuse(
                f"its type is {kind}; {candidate.rule.backend} takes {listed(allowed)} here",
                tensor=name,
            )


def _check_places(candidate: Candidate) -> None:
    """Where a mapped file's tensors lie is where they are computed with."""
    for name, tensor in candidate.file.tensors.items():
        if tensor.data_offset % _ALIGNMENT:
            candidate.refuse(
                f"its data begin at byte {tensor.data_offset}, which is no multiple of "
                f"{_ALIGNMENT}",
                tensor=name,
            )


_ALIGNMENT = 32


def _check_attention(candidate: Candidate) -> None:
    """Phi 3 may have one matrix for queries, keys and values, or three; the library asks for
    neither."""
    if candidate.info.architecture != "phi3":
        return
    tensors = candidate.file.tensors
    for layer in range(candidate.info.n_layer):
        one = f"blk.{layer}.attn_qkv.weight"
        three = [f"blk.{layer}.attn_{name}.weight" for name in "qkv"]
        if one not in tensors and not all(name in tensors for name in three):
            candidate.fail("it is missing", tensor=one)


def _check_output_size(candidate: Candidate) -> None:
    """A hidden state of another size than that of the layers needs a matrix that makes it."""
    key = candidate.full(".embedding_length_out")
    size, info = candidate.metadata.integer(key), candidate.info
    if size in (None, info.n_embd) or info.architecture in WIDENED:
        return
    dense = candidate.file.tensors.get("dense_2.weight")
    if dense is None or dense.shape != (info.n_embd, size):
        candidate.fail(
            f"the value is {size}, and no tensor makes {size} numbers of {info.n_embd}", key=key
        )


LLAMA_CPP = Rule(
    backend="llama-cpp-python",
    instead=None,
    architectures=ARCHITECTURES,
    checks=(
        _check_keys,
        _check_heads,
        _check_sections,
        _check_window,
        _check_experts,
        check_tokenizer,
        _check_tensors,
    ),
)
