"""What ctransformers may be handed: exactly the Llama files its llama.cpp of 2023 can run.

That library checks next to nothing itself. Each check stands for a crash, wrong numbers or a
refusal without a reason that was seen without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .rules import SCORES, TOKENS, TYPES, Candidate, KeyRule, Rule, is_token_id, listed
from .special_tokens import BYTE
from .types import BOOL, F32, STRING, U32
from .vocabulary import NO_TOKEN, byte_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import ModelInfo

__all__ = ["CTRANSFORMERS"]


def _is_head_size(value: int, info: ModelInfo) -> bool:
    return value == info.n_embd // info.n_head


_HEAD_SIZE = "the head size {info.n_embd} / {info.n_head}"

_KEYS = (
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
)  # fmt: skip

# Further keys of the architecture that change nothing.
_IGNORED = frozenset({".vocab_size", ".tensor_data_layout"})
_VECTOR_TYPES = frozenset({"F32"})
_MATRIX_TYPES = frozenset({
    "F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
})  # fmt: skip


def _check_keys(candidate: Candidate) -> None:
    candidate.check_keys(_KEYS)


def _check_unknown_keys(candidate: Candidate) -> None:
    """Any other key of the architecture is refused: it would be ignored, and something else
    computed."""
    prefix = f"{candidate.info.architecture}."
    known = {candidate.full(rule.key) for rule in _KEYS}
    known |= {candidate.full(key) for key in _IGNORED}
    for key in candidate.metadata:
        scaling = key.startswith(f"{prefix}rope.scaling.")
        if key.startswith(prefix) and key not in known and not scaling:
            candidate.refuse(f"{candidate.rule.backend} would ignore this key", key=key)


def _check_rope_scaling(candidate: Candidate) -> None:
    """The keys of today are ignored, so they must ask for no scaling."""
    metadata = candidate.metadata
    prefix = f"{candidate.info.architecture}.rope.scaling."
    keys = [key for key in metadata if key.startswith(prefix)]
    if not keys:
        return
    kind = metadata.text(f"{prefix}type") or "linear"
    factor = metadata.number(f"{prefix}factor")
    harmless = {f"{prefix}{name}" for name in _SCALING_KEYS}
    if kind == "none":
        return
    if kind not in ("linear", "yarn") or factor not in (None, 1.0) or not harmless >= {*keys}:
        candidate.refuse(
            f"{candidate.rule.backend} would ignore rope scaling {kind!r} by factor {factor}",
            key=f"{prefix}type" if f"{prefix}type" in metadata else keys[0],
        )


_SCALING_KEYS = ("type", "factor", "original_context_length", "finetuned")


def _check_tokenizer(candidate: Candidate) -> None:
    metadata = candidate.metadata
    if candidate.tokenizer() != "llama":
        candidate.refuse(
            f"tokenizer {candidate.info.tokenizer!r} is not known to {candidate.rule.backend}, "
            "which has llama",
            key="tokenizer.ggml.model",
        )
    for key in (TOKENS, SCORES, TYPES):
        if key not in metadata:
            candidate.fail("the key is missing", key=key)
    _check_token_ids(candidate)
    types = candidate.checked_types()
    candidate.check_scores()
    _check_bytes(candidate, np.flatnonzero(types == BYTE).tolist())
    _check_texts(candidate, types)


def _check_token_ids(candidate: Candidate) -> None:
    n_vocab = candidate.info.n_vocab
    for key in candidate.metadata:
        if not is_token_id(key):
            continue
        entry = candidate.metadata.entry(key)
        if entry.type != U32:
            candidate.fail(f"its type is {entry.type_name}; u32 is expected", key=key)
        token = candidate.metadata[key]
        absent = token == NO_TOKEN and not key.endswith((".bos_token_id", ".eos_token_id"))
        if token >= n_vocab and not absent:
            candidate.refuse(f"the id is {token}, and there are {n_vocab} tokens", key=key)


def _check_bytes(candidate: Candidate, byte_tokens: list[int]) -> None:
    """All 256, each of its type: the native tokenizer aborts on a byte it has no token for."""
    texts = candidate.metadata.strings(TOKENS).raw()
    found = set()
    for token in byte_tokens:
        value = byte_value(texts[token])
        if value is None:
            candidate.fail(
                f"token {token} is a byte token and its text {texts[token][:20]!r} is none of "
                "<0x00> to <0xFF>",
                key=TYPES,
            )
        found.add(value)
    candidate.check_all_bytes(found)


def _check_texts(candidate: Candidate, types: NDArray[Any]) -> None:
    """The native library finds a token by what C reads of its text, and the last one with that
    text wins: one of another type, or with a NUL, would take the place of another."""
    texts = candidate.metadata.strings(TOKENS).raw()
    candidate.check_no_nul(texts)
    if len(set(texts)) == len(texts):
        return
    first: dict[bytes, int] = {}
    for token, text in enumerate(texts):
        other = first.setdefault(text, token)
        if types[other] != types[token]:
            candidate.refuse(
                f"tokens {other} and {token} have one text, {text[:40]!r}, and are of types "
                f"{types[other]} and {types[token]}",
                key=TOKENS,
            )


def _check_tensors(candidate: Candidate) -> None:
    """The tensors of a Llama and no others, each of its shape."""
    vectors, matrices = _vectors(candidate.info), _matrices(candidate.info)
    tensors = candidate.file.tensors
    if "output.weight" in matrices and "output.weight" not in tensors:
        candidate.refuse(
            "it is missing: the model shares it with token_embd.weight", tensor="output.weight"
        )
    for name in tensors:
        if name not in vectors and name not in matrices:
            candidate.refuse(f"{candidate.rule.backend} has no use for it", tensor=name)
    for shapes, types in ((vectors, _VECTOR_TYPES), (matrices, _MATRIX_TYPES)):
        for name, shape in shapes.items():
            _check_tensor(candidate, name, shape, types)


def _check_tensor(
    candidate: Candidate, name: str, shape: tuple[int, ...], types: frozenset[str]
) -> None:
    tensor = candidate.file.tensors.get(name)
    if tensor is None:
        candidate.fail("it is missing", tensor=name)
    if tensor.shape != shape:
        candidate.fail(
            f"its shape is {list(tensor.shape)}; the metadata say {list(shape)}", tensor=name
        )
    if tensor.type.name not in types:
        candidate.refuse(
            f"its type is {tensor.type.name}; {candidate.rule.backend} takes {listed(types)} here",
            tensor=name,
        )


def _vectors(info: ModelInfo) -> dict[str, tuple[int, ...]]:
    shape = (info.n_embd,)
    names = [f"blk.{layer}.{part}" for layer in range(info.n_layer) for part in _NORMS]
    return {f"{name}.weight": shape for name in ["output_norm", *names]}


_NORMS = ("attn_norm", "ffn_norm")


def _matrices(info: ModelInfo) -> dict[str, tuple[int, ...]]:
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


CTRANSFORMERS = Rule(
    backend="ctransformers",
    instead="llama-cpp-python",
    architectures=frozenset({"llama"}),
    checks=(
        _check_keys,
        _check_unknown_keys,
        _check_rope_scaling,
        _check_tokenizer,
        _check_tensors,
    ),
)
