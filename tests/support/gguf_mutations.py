"""Damages GGUF files in every way the format allows: `mutate` makes one from a base and a seed."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

from . import gguf_draft as gd
from .gguf_draft import Draft, Tensor, Value
from .gguf_families import ENCODING, GENERATING, Sizes, model_draft
from .gguf_maker import Shape, llama_draft

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

NUMBERS = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 100, 101, 113,
    127, 128, 255, 256, 257, 299, 300, 511, 512, 4096, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1,
    2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip
FLOATS = [0.0, -0.0, 1e-5, 0.5, 1.0, 2.0, 1e6, -1.0, 1e-38, 3e38, math.inf, -math.inf, math.nan]
TEXTS = [
    b"", b"a", b"llama", b"gpt2", b"none", b"linear", b"\x00", b"llama\x00x", b"\xff\xfe",
    b"<0x0A>",
    b"<0xZZ>", "\u2581".encode(), "\U0001f600".encode(), b"x" * 63, b"x" * 64, b"x" * 70000,
]  # fmt: skip
NEW_KEYS = {
    "general.alignment": gd.U32, "general.file_type": gd.U32, "general.name": gd.STRING,
    "general.quantization_version": gd.U32, "general.source.url": gd.STRING, "x": gd.F64,
    "split.count": gd.U16, "split.no": gd.U16, "llama.rope.scaling.type": gd.STRING,
    "llama.rope.scaling.factor": gd.F32, "llama.rope.scale_linear": gd.F32,
    "llama.expert_count": gd.U32, "llama.expert_used_count": gd.U32,
    "llama.attention.causal": gd.BOOL, "llama.vocab_size": gd.U32,
    "llama.attention.key_length": gd.U32, "llama.attention.value_length": gd.U32,
    "llama.tensor_data_layout": gd.STRING, "llama.logit_scale": gd.F32,
    "tokenizer.ggml.add_space_prefix": gd.BOOL, "tokenizer.ggml.add_bos_token": gd.BOOL,
    "tokenizer.ggml.padding_token_id": gd.U32, "tokenizer.ggml.seperator_token_id": gd.U32,
    "tokenizer.ggml.eot_token_id": gd.U32, "tokenizer.ggml.merges": gd.ARRAY,
    "tokenizer.ggml.pre": gd.STRING, "tokenizer.chat_template": gd.STRING,
}  # fmt: skip
# Further keys that today's models have; "A." stands for the architecture.
TODAYS_KEYS = [
    (key, kind)
    for kind, keys in (
        (gd.U32, (
            "A.rope.dimension_count", "A.rope.dimension_count_swa",
            "A.rope.scaling.original_context_length", "A.attention.key_length",
            "A.attention.value_length", "A.attention.key_length_swa",
            "A.attention.value_length_swa", "A.attention.sliding_window",
            "A.attention.sliding_window_pattern", "A.embedding_length_out", "A.expert_count",
            "A.expert_used_count", "A.expert_group_count", "A.expert_group_used_count",
            "A.expert_feed_forward_length", "A.expert_shared_feed_forward_length",
            "A.expert_gating_func", "A.nextn_predict_layers", "A.pooling_type",
            "A.classifier.pooling_type", "A.moe_every_n_layers", "A.vocab_size",
            "A.dense_2_feat_out", "tokenizer.ggml.mask_token_id", "tokenizer.ggml.token_type_count",
            "tokenizer.ggml.cls_token_id", "tokenizer.ggml.eom_token_id",
            "tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.fim_pad_token_id",
        )),
        (gd.F32, (
            "A.rope.freq_base", "A.rope.freq_base_swa", "A.rope.scaling.factor",
            "A.rope.scaling.attn_factor", "A.attention.scale", "A.attention.layer_norm_epsilon",
            "A.attention.layer_norm_rms_epsilon", "A.attn_logit_softcapping",
            "A.final_logit_softcapping", "A.expert_weights_scale",
        )),
        (gd.STRING, (
            "A.rope.scaling.type", "general.type", "tokenizer.ggml.model", "tokenizer.ggml.pre",
        )),
        (gd.ARRAY, (
            "A.attention.head_count", "A.attention.head_count_kv", "A.feed_forward_length",
            "A.expert_used_count", "A.classifier.output_labels",
            "tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.suppress_tokens",
            "tokenizer.ggml.scores",
        )),
        (gd.BOOL, (
            "A.attention.causal", "A.use_parallel_residual", "tokenizer.ggml.add_eos_token",
            "tokenizer.ggml.add_sep_token", "tokenizer.ggml.remove_extra_whitespaces",
        )),
    )
    for key in keys
]  # fmt: skip
TODAYS_TEXTS = [
    b"yarn", b"longrope", b"none", b"bert", b"t5", b"gpt2", b"rwkv", b"plamo2", b"gemma4",
    b"adapter", b"qwen2", b"llama-bpe", b"tekken", b"deepseek-llm", b"gpt-4o", b"kimi-k2", b"bloom",
    b"jais-2",
]  # fmt: skip
TODAYS_TENSORS = [
    "rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.attn_qkv.weight", "blk.0.attn_q_norm.weight",
    "blk.0.ffn_gate_exps.weight", "blk.0.ffn_gate_inp.weight", "token_types.weight", "cls.weight",
    "cls.output.weight", "output.weight", "output.bias", "rope_factors_long.weight",
    "position_embd.weight", "blk.0.ffn_down.bias", "blk.0.attn_sinks.weight",
]  # fmt: skip
NEW_TENSORS = ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.2.attn_q.weight", "x", "output.bias"]


@dataclasses.dataclass(frozen=True)
class Base:
    """A sound file: its draft and the bytes of its tensor data."""

    draft: Draft
    data: bytes

    @functools.cached_property
    def raw(self) -> bytes:
        return self.draft.header()[0] + self.data


@functools.lru_cache(maxsize=1)
def bases() -> tuple[Base, ...]:
    """A few sound files, each of 60 to 250 KB: types, versions, heads and vocabularies differ."""
    return tuple(
        _base(llama_draft(seed=seed, quant=quant, vocab=vocab, version=version, shape=shape))
        for seed, (quant, vocab, version, shape) in enumerate(
            (
                ("F32", "byte", 3, _shape(32, 1, 2, 2)),
                ("F16", "spm", 3, _shape(64, 2, 4, 2)),
                ("Q8_0", "spm", 2, _shape(64, 2, 4, 4)),
                ("Q4_0", "spm", 3, _shape(96, 1, 6, 1)),
                ("Q5_1", "byte", 2, _shape(64, 1, 2, 1)),
                ("Q6_K", "spm", 3, _shape(256, 1, 8, 2)),
            )
        )
    )


@functools.lru_cache(maxsize=1)
def todays_bases() -> tuple[Base, ...]:
    """A small sound file of each family of today, some with a shared output, of several types."""
    sizes = Sizes(
        n_embd=32, n_layer=1, n_head=2, n_head_kv=1, n_ff=32, n_vocab=420, n_ctx_train=128
    )
    encoder = dataclasses.replace(sizes, n_head_kv=2)
    quants = ("F32", "Q8_0", "F16", "BF16", "Q4_0")
    drafts = [
        model_draft(
            family, quants[index % len(quants)], seed=index,
            sizes=None if family == "llama" else encoder if family in ENCODING else sizes,
            tied=True if family in ("qwen2", "llama3", "gemma2", "gemma3") else None,
        )
        for index, family in enumerate((*GENERATING, *ENCODING))
    ]  # fmt: skip
    drafts.append(model_draft("qwen3", "Q4_K", seed=99))
    return tuple(_base(draft) for draft in drafts)


def _shape(n_embd: int, n_layer: int, n_head: int, n_head_kv: int) -> Shape:
    return Shape(
        n_embd=n_embd,
        n_layer=n_layer,
        n_head=n_head,
        n_head_kv=n_head_kv,
        n_ff=n_embd,
        n_vocab=360,
        n_ctx_train=128,
    )


def _base(draft: Draft) -> Base:
    data = b"".join(
        piece + bytes(-len(piece) % draft.alignment)
        for _, tensor in draft.tensors
        for piece in [b"".join(tensor.data())]
    )
    return Base(draft, data)


def mutate(rng: random.Random, *, todays: bool = False) -> tuple[bytes, str]:
    """A damaged file and what was done to it. Some come out sound: in the weights, or unchanged.
    With `todays` the file was one of today's families."""
    files = todays_bases() if todays else bases()
    draft_steps = TODAYS_STEPS if todays else DRAFT_STEPS
    base = rng.choice(files)
    if rng.random() < 0.55:
        draft = dataclasses.replace(
            base.draft, metadata=list(base.draft.metadata), tensors=list(base.draft.tensors)
        )
        steps = [rng.choice(draft_steps) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        for step in steps:
            step(draft, rng)
        raw = bytearray(draft.header()[0] + base.data)
    else:
        steps = []
        raw = bytearray(base.raw)
    names = [step.__name__ for step in steps]
    if not steps or rng.random() < 0.1:
        header = min(len(raw) - len(base.data), len(raw))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            damage = rng.choice(BYTE_STEPS)
            # Three in four go to the header: there, a byte decides more.
            limit = header if rng.random() < 0.75 else len(raw)
            if damage is splice:
                splice(raw, max(limit, 1), rng, files)
            else:
                damage(raw, max(limit, 1), rng)
            names.append(damage.__name__)
    return bytes(raw), "+".join(names)


# Damage that knows the format ---------------------------------------------------------------------


def drop_key(draft: Draft, rng: random.Random) -> None:
    if draft.metadata:
        draft.metadata.pop(rng.randrange(len(draft.metadata)))


def repeat_key(draft: Draft, rng: random.Random) -> None:
    key, value = _pick(draft, rng)
    draft.metadata.insert(rng.randrange(len(draft.metadata) + 1), (key, value))


def rename_key(draft: Draft, rng: random.Random) -> None:
    index = rng.randrange(len(draft.metadata))
    key, value = draft.metadata[index]
    text = key if isinstance(key, str) else key.decode("latin-1")
    changed = rng.choice(
        [text.upper(), text + "\0", text[:-1], "", text + "x" * 70000, "\0" + text, f" {text}"]
    )
    draft.metadata[index] = (changed, value)


def swap_values(draft: Draft, rng: random.Random) -> None:
    a, b = rng.randrange(len(draft.metadata)), rng.randrange(len(draft.metadata))
    (key_a, value_a), (key_b, value_b) = draft.metadata[a], draft.metadata[b]
    draft.metadata[a], draft.metadata[b] = (key_a, value_b), (key_b, value_a)


def shuffle_keys(draft: Draft, rng: random.Random) -> None:
    rng.shuffle(draft.metadata)


def retype_value(draft: Draft, rng: random.Random) -> None:
    index = rng.randrange(len(draft.metadata))
    draft.metadata[index] = (draft.metadata[index][0], _any_value(rng))


def change_number(draft: Draft, rng: random.Random) -> None:
    """Another number of the same type under a key that has one."""
    indices = [i for i, (_, v) in enumerate(draft.metadata) if v.type not in (gd.STRING, gd.ARRAY)]
    if indices:
        index = rng.choice(indices)
        key, value = draft.metadata[index]
        draft.metadata[index] = (key, _scalar(value.type, rng))


def change_text(draft: Draft, rng: random.Random) -> None:
    indices = [i for i, (_, value) in enumerate(draft.metadata) if value.type == gd.STRING]
    if indices:
        index = rng.choice(indices)
        draft.metadata[index] = (draft.metadata[index][0], Value(gd.STRING, rng.choice(TEXTS)))


def change_array(draft: Draft, rng: random.Random) -> None:
    """Another length, a false count, another element type or other elements in an array."""
    indices = [i for i, (_, value) in enumerate(draft.metadata) if value.type == gd.ARRAY]
    if not indices:
        return
    index = rng.choice(indices)
    key, value = draft.metadata[index]
    data = list(value.data)
    change = rng.randrange(5)
    if change == 0:
        data = data[: rng.randrange(len(data) + 1)]
    elif change == 1:
        data = data + data[: rng.randrange(1, 40)]
    elif change == 2:
        value = dataclasses.replace(value, count=rng.choice([*NUMBERS, len(data) - 1]))
    elif change == 3:
        element = rng.choice([t for t in range(15) if t != gd.ARRAY])
        data = [b"x"] * len(data) if element == gd.STRING else [1] * len(data)
        value = dataclasses.replace(value, element=element)
    elif data:
        a, b = rng.randrange(len(data)), rng.randrange(len(data))
        data[a], data[b] = data[b], data[a]
    draft.metadata[index] = (key, dataclasses.replace(value, data=data))


def change_vocabulary(draft: Draft, rng: random.Random) -> None:
    """One to five tokens with another text, type or score."""
    key = rng.choice(list(_TOKEN_CHANGES))
    index = next((i for i, (name, _) in enumerate(draft.metadata) if name == key), None)
    if index is None:
        return
    value = draft.metadata[index][1]
    natural = {"tokens": gd.STRING, "scores": gd.F32, "token_type": gd.I32}[key.split(".")[-1]]
    if value.type != gd.ARRAY or value.element != natural or not len(value.data):
        return  # an earlier step was here
    data = list(value.data)
    for _ in range(rng.randrange(1, 5)):
        # Behind the byte tokens more is allowed, so more of it gets as far as the native code.
        first = min(259, len(data) - 1) if rng.random() < 0.7 else 0
        data[rng.randrange(first, len(data))] = _TOKEN_CHANGES[key](rng, data)
    draft.metadata[index] = (key, dataclasses.replace(value, data=data))


_TOKEN_CHANGES: dict[str, Callable[[random.Random, list[Any]], Any]] = {
    "tokenizer.ggml.tokens": lambda rng, data: rng.choice([*TEXTS[:-1], rng.choice(data)]),
    "tokenizer.ggml.token_type": lambda rng, _: rng.choice([*[1, 2, 3, 4, 5] * 5, 0, 6, 7, -1]),
    "tokenizer.ggml.scores": lambda rng, _: rng.choice(FLOATS),
}


def add_key(draft: Draft, rng: random.Random) -> None:
    key, kind = rng.choice(list(NEW_KEYS.items()))
    value = _value(kind, rng) if rng.random() < 0.7 else _any_value(rng)
    draft.metadata.insert(rng.randrange(len(draft.metadata) + 1), (key, value))


def drop_tensor(draft: Draft, rng: random.Random) -> None:
    if draft.tensors:
        draft.tensors.pop(rng.randrange(len(draft.tensors)))


def repeat_tensor(draft: Draft, rng: random.Random) -> None:
    draft.tensors.insert(rng.randrange(len(draft.tensors)), rng.choice(draft.tensors))


def rename_tensor(draft: Draft, rng: random.Random) -> None:
    index = rng.randrange(len(draft.tensors))
    name, tensor = draft.tensors[index]
    other = rng.choice(draft.tensors)[0]
    changed = rng.choice([other, f"{name!s}\0", "", "x" * 63, "x" * 64, "x" * 500, *NEW_TENSORS])
    draft.tensors[index] = (changed, tensor)


def reshape_tensor(draft: Draft, rng: random.Random) -> None:
    shape = list(_change_tensor(draft, rng).shape)
    at = rng.randrange(len(shape))
    change = rng.randrange(6)
    if change == 0:
        shape[at] = rng.choice(NUMBERS)
    elif change == 1:
        shape.reverse()
    elif change == 2:
        shape.append(rng.choice([1, 2, 0, 2**32]))
    elif change == 3:
        shape += [1] * rng.randrange(1, 9)
    elif change == 4:
        shape[at] = max(0, shape[at] + rng.choice([-32, -1, 1, 32]))
    else:
        shape = [math.prod(shape)]
    draft.tensors[-1] = (
        draft.tensors[-1][0],
        dataclasses.replace(draft.tensors[-1][1], shape=shape),
    )
    _shuffle_back(draft, rng)


def miscount_dimensions(draft: Draft, rng: random.Random) -> None:
    _change_tensor(draft, rng)
    _replace_last(draft, n_dims=rng.choice(NUMBERS[:39]) & 0xFFFFFFFF)
    _shuffle_back(draft, rng)


def retype_tensor(draft: Draft, rng: random.Random) -> None:
    _change_tensor(draft, rng)
    _replace_last(draft, type=rng.choice([*range(45), 255, 2**31, 2**32 - 1]))
    _shuffle_back(draft, rng)


def retype_all_tensors(draft: Draft, rng: random.Random) -> None:
    kind = rng.randrange(42)
    draft.tensors = [
        (name, dataclasses.replace(tensor, type=kind if len(tensor.shape) == 2 else tensor.type))
        for name, tensor in draft.tensors
    ]


def move_tensor(draft: Draft, rng: random.Random) -> None:
    _change_tensor(draft, rng)
    _replace_last(draft, offset=rng.choice([*NUMBERS, 32 * rng.randrange(9000)]))
    _shuffle_back(draft, rng)


def shuffle_tensors(draft: Draft, rng: random.Random) -> None:
    rng.shuffle(draft.tensors)


def change_head(draft: Draft, rng: random.Random) -> None:
    change = rng.randrange(4)
    if change == 0:
        draft.magic = rng.choice([b"GGUF", b"lmgg", b"tjgg", b"\0\0\0\0", b"FUGG"])
    elif change == 1:
        draft.version = rng.choice([0, 1, 2, 3, 4, 99, 3 << 24, 2**32 - 1])
    elif change == 2:
        draft.n_tensors = rng.choice([*NUMBERS, len(draft.tensors) + 1, len(draft.tensors) - 1])
    else:
        draft.n_metadata = rng.choice([*NUMBERS, len(draft.metadata) + 1, len(draft.metadata) - 1])


def change_alignment(draft: Draft, rng: random.Random) -> None:
    draft["general.alignment"] = gd.u32(rng.choice([0, 1, 4, 8, 16, 32, 33, 64, 65536, 2**31]))
    if rng.random() < 0.5:
        draft.alignment = rng.choice([8, 16, 32, 64, 128])


DRAFT_STEPS: list[Callable[[Draft, random.Random], None]] = [
    drop_key, repeat_key, rename_key, swap_values, shuffle_keys, retype_value, change_number,
    change_number, change_number, change_text, change_array, change_array, change_vocabulary,
    change_vocabulary, change_vocabulary, add_key, add_key, drop_tensor, repeat_tensor,
    rename_tensor, reshape_tensor, miscount_dimensions, retype_tensor, retype_all_tensors,
    move_tensor, shuffle_tensors, change_head, change_alignment,
]  # fmt: skip


def change_todays_key(draft: Draft, rng: random.Random) -> None:
    """A key that models of today have gets a value of its type, often one that may be meant."""
    key, kind = rng.choice(TODAYS_KEYS)
    key = key.replace("A.", f"{_architecture(draft)}.")
    if kind == gd.ARRAY:
        value = _plausible_array(draft, key, rng)
    elif kind == gd.U32 and rng.random() < 0.7:
        value = gd.u32(rng.choice([0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 17, 24, 32, 33, 64, 128]))
    elif kind == gd.STRING:
        value = Value(kind, rng.choice([*TODAYS_TEXTS, *TEXTS[:9]]))
    else:
        value = _scalar(kind, rng)
    draft[key] = value


def _plausible_array(draft: Draft, key: str, rng: random.Random) -> Value:
    if key.endswith("output_labels"):
        return gd.array(gd.STRING, [b"x"] * rng.choice([0, 1, 2, 5, 1000]))
    if key.endswith("charsmap"):
        size = rng.choice([0, 3, 4, 8, 64, 1025])
        return gd.array(gd.U8, list(rng.randbytes(size)))
    if key.endswith("scores"):
        return gd.array(gd.F32, [rng.choice(FLOATS) for _ in range(420)])
    element = rng.choice([gd.U32, gd.I32])
    numbers = [rng.choice([0, 1, 2, 3, 4, 16, 32]) for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))]
    return gd.array(element, numbers)


def change_architecture(draft: Draft, rng: random.Random) -> None:
    """Another architecture, under whose name the keys are found too."""
    from nitrolib.gguf.llama_cpp_architectures import ARCHITECTURES

    before, after = _architecture(draft), rng.choice(sorted(ARCHITECTURES))
    draft.metadata = [
        (after + key[len(before) :] if str(key).startswith(f"{before}.") else key, value)
        for key, value in draft.metadata
    ]
    draft["general.architecture"] = gd.string(after)


def change_charsmap(draft: Draft, rng: random.Random) -> None:
    """Nodes of the normalisation table, where there is one."""
    key = "tokenizer.ggml.precompiled_charsmap"
    index = next((i for i, (name, _) in enumerate(draft.metadata) if name == key), None)
    if index is None or draft.metadata[index][1].element != gd.U8:
        return change_todays_key(draft, rng)
    data = list(draft.metadata[index][1].data)
    for _ in range(rng.choice((1, 2, 8)) if data else 0):
        # The root, the one child that it has, its leaf, or anything.
        node = rng.choice([0, 256 ^ 9, 256, rng.randrange(512)])
        data[min(4 + 4 * node + rng.randrange(4), len(data) - 1)] = rng.randrange(256)
    draft.metadata[index] = (key, gd.array(gd.U8, data))
    return None


def _architecture(draft: Draft) -> str:
    value = next((v for key, v in draft.metadata if key == "general.architecture"), None)
    text = value.data if value is not None and value.type == gd.STRING else "llama"
    return text if isinstance(text, str) else bytes(text).decode("latin-1")


TODAYS_STEPS = [
    *DRAFT_STEPS, *[change_todays_key] * 14, *[change_number] * 6, *[change_vocabulary] * 4,
    *[change_architecture] * 2, *[change_charsmap] * 2,
]  # fmt: skip


def _pick(draft: Draft, rng: random.Random) -> tuple[str | bytes, Value]:
    return rng.choice(draft.metadata)


def _change_tensor(draft: Draft, rng: random.Random) -> Tensor:
    """Move a tensor to the end, where the step finds it; `_shuffle_back` puts it anywhere. Its
    data stays where it was."""
    _pin_offsets(draft)
    draft.tensors.append(draft.tensors.pop(rng.randrange(len(draft.tensors))))
    return draft.tensors[-1][1]


def _pin_offsets(draft: Draft) -> None:
    offset, pinned = 0, []
    for name, tensor in draft.tensors:
        place = offset if tensor.offset is None else tensor.offset
        pinned.append((name, dataclasses.replace(tensor, offset=place)))
        offset += -(-tensor.n_bytes // 32) * 32
    draft.tensors = pinned


def _replace_last(draft: Draft, **changes: int) -> None:
    name, tensor = draft.tensors[-1]
    draft.tensors[-1] = (name, dataclasses.replace(tensor, **changes))  # type: ignore[arg-type]


def _shuffle_back(draft: Draft, rng: random.Random) -> None:
    draft.tensors.insert(rng.randrange(len(draft.tensors)), draft.tensors.pop())


def _any_value(rng: random.Random) -> Value:
    return _value(rng.randrange(15), rng)


def _value(kind: int, rng: random.Random) -> Value:
    if kind == gd.STRING:
        return Value(kind, rng.choice(TEXTS), count=rng.choice([None, None, None, *NUMBERS]))
    if kind != gd.ARRAY:
        return _scalar(kind, rng)
    element = rng.randrange(14)
    size = rng.choice([0, 1, 2, 3, 100])
    if element == gd.ARRAY:
        return Value(kind, [gd.array(gd.U32, [1, 2])] * size, element=element)
    return Value(kind, [b"x" if element == gd.STRING else 1] * size, element=element)


def _scalar(kind: int, rng: random.Random) -> Value:
    if kind in (gd.F32, gd.F64):
        return Value(kind, rng.choice(FLOATS))
    bits = {gd.U8: 8, gd.I8: 8, gd.BOOL: 8, gd.U16: 16, gd.I16: 16, gd.U64: 64, gd.I64: 64}.get(
        kind, 32
    )
    number = rng.choice(NUMBERS) & ((1 << bits) - 1)
    if kind in (gd.I8, gd.I16, gd.I32, gd.I64) and number >> (bits - 1):
        number -= 1 << bits
    return Value(kind, number)


# Damage that knows nothing ------------------------------------------------------------------------


def truncate(raw: bytearray, limit: int, rng: random.Random) -> None:
    del raw[rng.randrange(limit) :]


def flip_bits(raw: bytearray, limit: int, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if raw:
            raw[rng.randrange(min(limit, len(raw)))] ^= 1 << rng.randrange(8)


def set_bytes(raw: bytearray, limit: int, rng: random.Random) -> None:
    if raw:
        raw[rng.randrange(min(limit, len(raw)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])


def set_number(raw: bytearray, limit: int, rng: random.Random) -> None:
    """A number of four or eight bytes over whatever is there."""
    size = rng.choice((4, 8))
    at = rng.randrange(max(1, min(limit, len(raw)) - size))
    number = rng.choice([*NUMBERS, len(raw), len(raw) - at]) & ((1 << 8 * size) - 1)
    raw[at : at + size] = number.to_bytes(size, "little")


def insert_bytes(raw: bytearray, limit: int, rng: random.Random) -> None:
    at = rng.randrange(limit)
    raw[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 32, 1000)))


def delete_bytes(raw: bytearray, limit: int, rng: random.Random) -> None:
    at = rng.randrange(limit)
    del raw[at : at + rng.choice((1, 2, 4, 8, 32, 1000))]


def fill_range(raw: bytearray, limit: int, rng: random.Random) -> None:
    at = rng.randrange(limit)
    part = raw[at : at + rng.choice((8, 32, 1000))]
    raw[at : at + len(part)] = bytes([rng.choice((0, 0xFF))]) * len(part)


def copy_range(raw: bytearray, limit: int, rng: random.Random) -> None:
    """A piece of the file over another."""
    at, source = rng.randrange(limit), rng.randrange(limit)
    part = raw[source : source + rng.choice((8, 32, 1000))]
    raw[at : at + len(part)] = part


def splice(
    raw: bytearray, limit: int, rng: random.Random, files: tuple[Base, ...] | None = None
) -> None:
    """The rest of another file, from the same place on."""
    at = rng.randrange(limit)
    raw[at:] = rng.choice(files or bases()).raw[at:]


BYTE_STEPS: list[Callable[[bytearray, int, random.Random], None]] = [
    truncate, truncate, flip_bits, flip_bits, flip_bits, set_bytes, set_number, set_number,
    set_number, insert_bytes, delete_bytes, fill_range, copy_range, splice,
]  # fmt: skip
