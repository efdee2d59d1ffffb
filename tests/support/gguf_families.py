"""Makes small GGUF files of the model families of today with random weights: real to llama.cpp.

Tensors and keys are those that llama.cpp's converter writes for each architecture; the weights are
scaled so that logits are finite and well spread, and the output does not merely repeat the input.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import gguf_vocabularies as vocabularies
from .gguf_draft import Draft, Tensor, f32, string, u32
from .gguf_maker import QUANTS, TIED_EMBEDDING, Adder, Shape, llama_draft
from .gguf_vocabularies import flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from .gguf_draft import Value
    from .gguf_vocabularies import Tokens

WIDE = Shape(n_embd=256, n_layer=2, n_head=4, n_head_kv=2, n_ff=256, n_vocab=512, n_ctx_train=512)

TEMPLATES = Path(__file__).parent / "chat_templates"

LLAMA_3 = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_ADDED = ("<tool_call>", "</tool_call>", "<think>", "</think>")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a small model. `head_size` is that of queries, keys and values."""

    n_embd: int = 64
    n_layer: int = 2
    n_head: int = 4
    n_head_kv: int = 2
    head_size: int = 16
    n_ff: int = 128
    n_vocab: int = 640
    n_ctx_train: int = 512
    n_expert: int = 4
    n_expert_used: int = 2


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one kind of model is made.

    use: "generate", "embed" or "rank". keys: of the architecture, beside those all have.
    blocks: adds the tensors of one layer. tied: whether the output may be, must be (True) or
    cannot be (False) the token embedding; None is either, and not unless it is asked for.
    """

    architecture: str
    tokens: Callable[[int], Tokens]
    blocks: Callable[[Adder, str, Sizes], None]
    keys: Callable[[Sizes], dict[str, Value]] = lambda _sizes: {}
    template: str | None = None
    use: str = "generate"
    tied: bool | None = None
    sizes: Sizes = field(default_factory=Sizes)


def make_model(
    path: str | Path, family: str = "qwen3", quant: str = "F32", **options: object
) -> Path:
    """Write a model file and return its path; options as for `model_draft`."""
    return model_draft(family, quant, **options).write(path)  # type: ignore[arg-type]


def model_draft(
    family: str = "qwen3",
    quant: str = "F32",
    *,
    tied: bool | None = None,
    sizes: Sizes | None = None,
    seed: int = 0,
    logit_spread: float = 2.0,
    chat_template: bool = True,
    name: str | None = None,
) -> Draft:
    """A model of a family of FAMILIES, ready to write, or to damage first.

    quant: a name of QUANTS for the matrices; all else is F32. Types with blocks of 256 get a model
        that wide. tied: output and token embedding are one tensor; None is as the family has it.
    """
    if family == "llama":
        template = (TEMPLATES / "chatml.jinja").read_text() if chat_template else None
        return llama_draft(
            quant=quant, seed=seed, logit_spread=logit_spread, chat_template=template, name=name,
            tied=bool(tied), shape="tiny" if QUANTS[quant].block < 256 else WIDE,
        )  # fmt: skip
    kind = FAMILIES[family]
    sizes = sizes or _sizes(kind.sizes, quant)
    shared = bool(kind.tied if tied is None else tied)
    assert kind.tied in (None, shared), f"{family} is {'always' if kind.tied else 'never'} tied"
    draft = Draft()
    draft["general.architecture"] = string(kind.architecture)
    draft["general.type"] = string("model")
    draft["general.name"] = string(name or f"random {family} {quant}")
    draft["general.file_type"] = u32(QUANTS[quant].file_type)
    draft["general.quantization_version"] = u32(2)
    for key, value in {**_common_keys(sizes), **kind.keys(sizes)}.items():
        draft[f"{kind.architecture}.{key}"] = value
    kind.tokens(sizes.n_vocab).write(draft)
    if kind.template and chat_template:
        template = (TEMPLATES / f"{kind.template}.jinja").read_text()
        draft["tokenizer.chat_template"] = string(template)
    add = Adder(draft, quant, seed)
    # The hidden state before the last norm's weight has RMS 1.
    small = logit_spread * sizes.n_embd**-0.5
    add.matrix("token_embd", sizes.n_embd, sizes.n_vocab, std=TIED_EMBEDDING if shared else 1.0)
    if kind.use != "generate":
        _encoder_ends(add, kind, sizes)
    for layer in range(sizes.n_layer):
        kind.blocks(add, f"blk.{layer}.", sizes)
    if kind.use == "generate":
        add.norm("output_norm", sizes.n_embd, small / TIED_EMBEDDING if shared else 1.0)
        if not shared:
            add.matrix("output", sizes.n_embd, sizes.n_vocab, std=small)
    return draft


def _sizes(sizes: Sizes, quant: str) -> Sizes:
    if QUANTS[quant].block < 256:
        return sizes
    return dataclasses.replace(sizes, n_embd=256, n_ff=256, head_size=64)


def _common_keys(sizes: Sizes) -> dict[str, Value]:
    return {
        "block_count": u32(sizes.n_layer),
        "context_length": u32(sizes.n_ctx_train),
        "embedding_length": u32(sizes.n_embd),
        "feed_forward_length": u32(sizes.n_ff),
        "attention.head_count": u32(sizes.n_head),
    }


# Decoders -----------------------------------------------------------------------------------------


def _decoder_keys(sizes: Sizes) -> dict[str, Value]:
    return {
        "attention.head_count_kv": u32(sizes.n_head_kv),
        "attention.layer_norm_rms_epsilon": f32(1e-6),
        "rope.freq_base": f32(10000.0),
    }


def _own_head_size(sizes: Sizes) -> dict[str, Value]:
    size = u32(sizes.head_size)
    return {**_decoder_keys(sizes), "attention.key_length": size, "attention.value_length": size}


def _attention(add: Adder, block: str, sizes: Sizes, *, bias: bool = False) -> None:
    kv_dim = sizes.n_head_kv * sizes.head_size
    add.norm(block + "attn_norm", sizes.n_embd)
    for name, rows in (("q", sizes.n_head * sizes.head_size), ("k", kv_dim), ("v", kv_dim)):
        add.matrix(f"{block}attn_{name}", sizes.n_embd, rows)
        if bias:
            add.bias(f"{block}attn_{name}", rows)
    add.matrix(block + "attn_output", sizes.n_head * sizes.head_size, sizes.n_embd)


def _feed_forward(add: Adder, block: str, sizes: Sizes) -> None:
    add.norm(block + "ffn_norm", sizes.n_embd)
    add.matrix(block + "ffn_gate", sizes.n_embd, sizes.n_ff)
    add.matrix(block + "ffn_up", sizes.n_embd, sizes.n_ff)
    add.matrix(block + "ffn_down", sizes.n_ff, sizes.n_embd)


def _experts(add: Adder, block: str, sizes: Sizes) -> None:
    add.norm(block + "ffn_norm", sizes.n_embd)
    add.matrix(block + "ffn_gate_inp", sizes.n_embd, sizes.n_expert, quant="F32")
    for name in ("gate", "up"):
        add.matrix(f"{block}ffn_{name}_exps", sizes.n_embd, sizes.n_ff, sizes.n_expert)
    add.matrix(block + "ffn_down_exps", sizes.n_ff, sizes.n_embd, sizes.n_expert)


def _head_norms(add: Adder, block: str, sizes: Sizes) -> None:
    add.norm(block + "attn_q_norm", sizes.head_size)
    add.norm(block + "attn_k_norm", sizes.head_size)


def _llama_block(add: Adder, block: str, sizes: Sizes) -> None:
    _attention(add, block, sizes)
    _feed_forward(add, block, sizes)


def _mixtral_block(add: Adder, block: str, sizes: Sizes) -> None:
    _attention(add, block, sizes)
    _experts(add, block, sizes)


def _qwen2_block(add: Adder, block: str, sizes: Sizes) -> None:
    _attention(add, block, sizes, bias=True)
    _feed_forward(add, block, sizes)


def _qwen3_block(add: Adder, block: str, sizes: Sizes) -> None:
    _attention(add, block, sizes)
    _head_norms(add, block, sizes)
    _feed_forward(add, block, sizes)


def _qwen3moe_block(add: Adder, block: str, sizes: Sizes) -> None:
    _attention(add, block, sizes)
    _head_norms(add, block, sizes)
    _experts(add, block, sizes)


def _gemma2_block(add: Adder, block: str, sizes: Sizes) -> None:
    _attention(add, block, sizes)
    add.norm(block + "post_attention_norm", sizes.n_embd)
    _feed_forward(add, block, sizes)
    add.norm(block + "post_ffw_norm", sizes.n_embd)


def _gemma3_block(add: Adder, block: str, sizes: Sizes) -> None:
    _gemma2_block(add, block, sizes)
    _head_norms(add, block, sizes)


def _phi3_block(add: Adder, block: str, sizes: Sizes) -> None:
    heads = sizes.n_head + 2 * sizes.n_head_kv
    add.norm(block + "attn_norm", sizes.n_embd)
    add.matrix(block + "attn_qkv", sizes.n_embd, heads * sizes.head_size)
    add.matrix(block + "attn_output", sizes.n_embd, sizes.n_embd)
    add.norm(block + "ffn_norm", sizes.n_embd)
    add.matrix(block + "ffn_up", sizes.n_embd, 2 * sizes.n_ff)
    add.matrix(block + "ffn_down", sizes.n_ff, sizes.n_embd)


def _experts_keys(sizes: Sizes) -> dict[str, Value]:
    return {"expert_count": u32(sizes.n_expert), "expert_used_count": u32(sizes.n_expert_used)}


def _llama_keys(sizes: Sizes) -> dict[str, Value]:
    return {
        **_decoder_keys(sizes),
        "rope.dimension_count": u32(sizes.head_size),
        "vocab_size": u32(sizes.n_vocab),
    }


def _qwen3moe_keys(sizes: Sizes) -> dict[str, Value]:
    return {
        **_own_head_size(sizes),
        **_experts_keys(sizes),
        "expert_feed_forward_length": u32(sizes.n_ff),
    }


def _gemma2_keys(sizes: Sizes) -> dict[str, Value]:
    return {
        **_own_head_size(sizes),
        "attn_logit_softcapping": f32(50.0),
        "final_logit_softcapping": f32(30.0),
        "attention.sliding_window": u32(64),
    }


def _gemma3_keys(sizes: Sizes) -> dict[str, Value]:
    return {
        **_own_head_size(sizes),
        "attention.sliding_window": u32(64),
        "attention.sliding_window_pattern": u32(2),
        "rope.freq_base": f32(1e6),
    }


def _phi3_keys(sizes: Sizes) -> dict[str, Value]:
    return {
        **_decoder_keys(sizes),
        "rope.dimension_count": u32(sizes.head_size),
        "rope.scaling.original_context_length": u32(sizes.n_ctx_train),
        "attention.sliding_window": u32(sizes.n_ctx_train),
    }


# Encoders -----------------------------------------------------------------------------------------


def _encoder_ends(add: Adder, kind: Family, sizes: Sizes) -> None:
    """What stands before the layers: token types, positions, a norm; and the head of a reranker."""
    types = add.draft["tokenizer.ggml.token_type_count"].data
    add.matrix("token_types", sizes.n_embd, types, std=0.1, quant="F32")
    if kind.architecture == "bert":
        add.matrix("position_embd", sizes.n_embd, sizes.n_ctx_train, std=0.3, quant="F32")
    _layer_norm(add, "token_embd_norm", sizes.n_embd)
    if kind.use == "rank":
        add.matrix("cls", sizes.n_embd, sizes.n_embd, quant="F32")
        add.bias("cls", sizes.n_embd)
        add.matrix("cls.output", sizes.n_embd, 1, quant="F32")
        add.bias("cls.output", 1)


def _layer_norm(add: Adder, name: str, size: int) -> None:
    add.norm(name, size)
    add.bias(name, size)


def _encoder_block(add: Adder, block: str, sizes: Sizes, *, gated: bool) -> None:
    dim = sizes.n_embd
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add.matrix(block + name, dim, dim)
        add.bias(block + name, dim)
    _layer_norm(add, block + "attn_output_norm", dim)
    if gated:
        add.matrix(block + "ffn_gate", dim, sizes.n_ff)
    add.matrix(block + "ffn_up", dim, sizes.n_ff)
    add.matrix(block + "ffn_down", sizes.n_ff, dim)
    if not gated:
        add.bias(block + "ffn_up", sizes.n_ff)
        add.bias(block + "ffn_down", dim)
    _layer_norm(add, block + "layer_output_norm", dim)


def _bert_block(add: Adder, block: str, sizes: Sizes) -> None:
    _encoder_block(add, block, sizes, gated=False)


def _nomic_block(add: Adder, block: str, sizes: Sizes) -> None:
    _encoder_block(add, block, sizes, gated=True)


def _encoder_keys(pooling: int, **more: Value) -> Callable[[Sizes], dict[str, Value]]:
    return lambda _sizes: {
        "attention.layer_norm_epsilon": f32(1e-12),
        "attention.causal": flag(False),
        "pooling_type": u32(pooling),
        **more,
    }


MEAN, CLS, LAST, RANK = 1, 2, 3, 4


# The families -------------------------------------------------------------------------------------


def _llama3_tokens(n_vocab: int) -> Tokens:
    return vocabularies.bpe(
        n_vocab, LLAMA_3, pre="llama-bpe", bos="<|begin_of_text|>", eos="<|eot_id|>",
        padding="<|finetune_right_pad_id|>",
    )  # fmt: skip


def _qwen_tokens(n_vocab: int) -> Tokens:
    tokens = vocabularies.bpe(
        n_vocab, QWEN, QWEN_ADDED, eos="<|im_end|>", bos="<|endoftext|>", padding="<|endoftext|>"
    )
    tokens.keys["add_bos_token"] = flag(False)
    return tokens


_ENCODER = Sizes(n_head_kv=4, n_vocab=512)

FAMILIES = {
    "llama3": Family(
        architecture="llama", tokens=_llama3_tokens, blocks=_llama_block, keys=_llama_keys,
        template="llama-3.1",
    ),
    "mixtral": Family(
        architecture="llama", tokens=vocabularies.llama, blocks=_mixtral_block,
        keys=lambda sizes: {**_llama_keys(sizes), **_experts_keys(sizes)}, template="mistral-v1",
    ),
    "qwen2": Family(
        architecture="qwen2", tokens=_qwen_tokens, blocks=_qwen2_block, keys=_decoder_keys,
        template="qwen2.5",
    ),
    "qwen3": Family(
        architecture="qwen3", tokens=_qwen_tokens, blocks=_qwen3_block, keys=_own_head_size,
        template="qwen3", sizes=Sizes(head_size=32),
    ),
    "qwen3moe": Family(
        architecture="qwen3moe", tokens=_qwen_tokens, blocks=_qwen3moe_block, keys=_qwen3moe_keys,
        template="qwen3",
    ),
    "qwen3-embedding": Family(
        architecture="qwen3", tokens=_qwen_tokens, blocks=_qwen3_block,
        keys=lambda sizes: {**_own_head_size(sizes), "pooling_type": u32(LAST)},
    ),
    "gemma2": Family(
        architecture="gemma2", tokens=vocabularies.gemma, blocks=_gemma2_block, keys=_gemma2_keys,
        template="gemma-2", tied=True,
    ),
    "gemma3": Family(
        architecture="gemma3", tokens=vocabularies.gemma, blocks=_gemma3_block, keys=_gemma3_keys,
        template="gemma-3", tied=True, sizes=Sizes(head_size=32),
    ),
    "phi3": Family(
        architecture="phi3", tokens=vocabularies.phi3, blocks=_phi3_block, keys=_phi3_keys,
        template="phi-3",
    ),
    "bert": Family(
        architecture="bert", tokens=vocabularies.wordpiece, blocks=_bert_block,
        keys=_encoder_keys(CLS), use="embed", sizes=_ENCODER,
    ),
    "nomic-bert": Family(
        architecture="nomic-bert", tokens=vocabularies.wordpiece, blocks=_nomic_block,
        keys=_encoder_keys(MEAN, **{"rope.freq_base": f32(1000.0)}), use="embed", sizes=_ENCODER,
    ),
    "xlm-roberta": Family(
        architecture="bert", tokens=vocabularies.unigram, blocks=_bert_block,
        keys=_encoder_keys(MEAN), use="embed", sizes=_ENCODER,
    ),
    "bert-reranker": Family(
        architecture="bert", tokens=vocabularies.wordpiece, blocks=_bert_block,
        keys=_encoder_keys(RANK), use="rank", sizes=_ENCODER,
    ),
}  # fmt: skip

GENERATING = ("llama", *(name for name, kind in FAMILIES.items() if kind.use == "generate"))
ENCODING = tuple(name for name, kind in FAMILIES.items() if kind.use != "generate")


# Adapters -----------------------------------------------------------------------------------------


def make_lora(path: str | Path, model: Draft | None = None, **options: object) -> Path:
    """Write a LoRA adapter for a model; options as for `lora_draft`. Without `model` it fits the
    files of `make_llama` with their defaults."""
    return lora_draft(model or llama_draft(), **options).write(path)  # type: ignore[arg-type]


def lora_draft(
    model: Draft,
    *,
    rank: int = 4,
    alpha: float = 8.0,
    targets: tuple[str, ...] = ("attn_q", "attn_v", "ffn_down"),
    strength: float = 0.5,
    seed: int = 1,
) -> Draft:
    """A LoRA adapter for the matrices of every layer that `targets` name. What it adds to a product
    is about `strength` times alpha / rank of the product itself."""
    draft = Draft()
    draft["general.architecture"] = model["general.architecture"]
    draft["general.type"] = string("adapter")
    draft["general.name"] = string("random adapter")
    draft["adapter.type"] = string("lora")
    draft["adapter.lora.alpha"] = f32(alpha)
    rng = np.random.Generator(np.random.SFC64(seed))
    for name, tensor in model.tensors:
        assert isinstance(name, str)
        if name.split(".")[-2] in targets and name.startswith("blk.") and len(tensor.shape) == 2:
            row, rows = tensor.shape
            _lora_pair(draft, name, row, rows, rank, strength, rng)
    assert draft.tensors, targets
    return draft


def _lora_pair(
    draft: Draft,
    name: str,
    row: int,
    rows: int,
    rank: int,
    strength: float,
    rng: np.random.Generator,
) -> None:
    for half, shape, std in (
        ("lora_a", (row, rank), row**-0.5),
        ("lora_b", (rank, rows), strength * rank**-0.5),
    ):
        values = (rng.standard_normal(shape[0] * shape[1]) * std).astype("<f4").tobytes()
        tensor = Tensor([*shape], 0, len(values), lambda values=values: [values])  # type: ignore[misc]
        draft.tensors.append((f"{name}.{half}", tensor))
