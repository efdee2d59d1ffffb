"""verify: every way a file can hurt the native loader is refused, and the refusal says where."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from typing import TYPE_CHECKING

import pytest
from support import gguf_draft as gd
from support.gguf_draft import Draft, Tensor, Value, array, f32, string, u32
from support.gguf_maker import QUANTS, Shape, llama_draft, make_llama

from nitrolib.errors import ModelFileError
from nitrolib.gguf import CTRANSFORMERS, GGML_TYPES, ModelInfo, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKENS = "tokenizer.ggml.tokens"
SCORES = "tokenizer.ggml.scores"
TYPES = "tokenizer.ggml.token_type"
DIM_256 = Shape(n_embd=256, n_layer=1, n_head=4, n_head_kv=2, n_ff=256, n_vocab=300, n_ctx_train=64)


def refusal(path: Path, draft: Draft) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        verify(draft.write(path / "model.gguf"), CTRANSFORMERS)
    assert "model.gguf" in str(caught.value)
    assert caught.value.path == str(path / "model.gguf")
    return caught.value


def refusal_of_bytes(path: Path, raw: bytes) -> ModelFileError:
    (path / "model.gguf").write_bytes(raw)
    with pytest.raises(ModelFileError) as caught:
        verify(path / "model.gguf", CTRANSFORMERS)
    return caught.value


# Sound files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("quant", sorted(set(QUANTS) - {"BF16"}))
def test_a_sound_file_of_every_type_passes(tmp_path: Path, quant: str) -> None:
    info = verify(make_llama(tmp_path / "m.gguf", quant=quant, shape=DIM_256), CTRANSFORMERS)
    assert info.quantization == quant
    assert (info.n_layer, info.n_embd, info.n_vocab) == (1, 256, 300)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("vocab", ["spm", "byte"])
def test_both_versions_and_vocabularies_pass(tmp_path: Path, version: int, vocab: str) -> None:
    path = make_llama(tmp_path / "m.gguf", version=version, vocab=vocab)
    assert verify(path, CTRANSFORMERS).version == version


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.rope.freq_base", f32(1e6)),
        ("llama.rope.scale_linear", f32(4.0)),
        ("llama.rope.scaling.type", string("none")),
        ("llama.rope.scaling.factor", f32(1.0)),
        ("llama.expert_count", u32(0)),
        ("llama.attention.causal", Value(gd.BOOL, 1)),
        ("llama.attention.key_length", u32(16)),
        ("llama.attention.value_length", u32(16)),
        ("llama.vocab_size", u32(512)),
        ("llama.tensor_data_layout", string("Meta AI original pth")),
        ("tokenizer.ggml.padding_token_id", u32(0xFFFFFFFF)),
        ("tokenizer.ggml.unknown_token_id", u32(0xFFFFFFFF)),
        ("tokenizer.ggml.add_bos_token", Value(gd.BOOL, 0)),
        ("tokenizer.ggml.add_space_prefix", Value(gd.BOOL, 1)),
        ("split.count", Value(gd.U16, 1)),
        ("anything.else", Value(gd.F64, math.nan)),
    ],
)
def test_harmless_keys_pass(tmp_path: Path, key: str, value: Value) -> None:
    draft = llama_draft()
    draft[key] = value
    verify(draft.write(tmp_path / "m.gguf"), CTRANSFORMERS)


@pytest.mark.parametrize("alignment", [8, 32, 64, 65536])
def test_other_alignments_pass(tmp_path: Path, alignment: int) -> None:
    draft = llama_draft(quant="Q8_0")
    draft["general.alignment"] = u32(alignment)
    draft.alignment = alignment
    verify(draft.write(tmp_path / "m.gguf"), CTRANSFORMERS)


def test_optional_keys_may_be_absent(tmp_path: Path) -> None:
    draft = llama_draft(shape=dataclasses.replace(DIM_256, n_head_kv=4))
    for key in (
        "general.name", "general.file_type", "llama.rope.dimension_count", "llama.rope.freq_base",
        "llama.attention.head_count_kv", "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id",
    ):  # fmt: skip
        del draft[key]
    info = verify(draft.write(tmp_path / "m.gguf"), CTRANSFORMERS)
    assert info.n_head_kv == info.n_head == 4


# The file itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [b"", b"GG", b"GGUF", b"GGUF\x03\0\0\0", b"a text file\n" * 99, b"lmgg" + bytes(99)]
)
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    error = refusal_of_bytes(tmp_path, raw)
    assert error.offset == 0
    assert not error.unsupported


def test_a_header_cut_anywhere_is_refused(tmp_path: Path) -> None:
    header, places = llama_draft(n_vocab=300).header()
    cuts = {place + back for place in places.values() for back in (-1, 0, 1, 5)}
    for cut in sorted(cut for cut in {*cuts, *range(0, len(header), 211)} if cut >= 0):
        if cut < len(header):
            error = refusal_of_bytes(tmp_path, header[:cut])
            assert not error.unsupported


def test_a_cut_in_the_data_names_the_tensor(tmp_path: Path) -> None:
    draft = llama_draft()
    path = draft.write(tmp_path / "model.gguf")
    _, places = draft.header()
    error = refusal_of_bytes(tmp_path, path.read_bytes()[:-40])
    assert error.tensor == "output.weight"
    assert error.offset == places["tensor:output.weight"]
    assert "cut" in str(error)
    error = refusal_of_bytes(tmp_path, path.read_bytes()[: places["data"] + 100])
    assert error.tensor == "token_embd.weight"


@pytest.mark.parametrize("version", [0, 1, 4, 99, 3 << 24])
def test_unknown_versions_are_refused(tmp_path: Path, version: int) -> None:
    draft = llama_draft()
    draft.version = version
    assert refusal(tmp_path, draft).offset == 4


@pytest.mark.parametrize("count", [2**63, 2**64 - 1, 10**6, 30])
def test_wrong_counts_are_refused(tmp_path: Path, count: int) -> None:
    for field in ("n_tensors", "n_metadata"):
        draft = llama_draft()
        setattr(draft, field, count)
        assert not refusal(tmp_path, draft).unsupported


@pytest.mark.parametrize("count", [2**64 - 1, 2**63, 2**32, 2**31, 2**24, 513, 511])
def test_wrong_array_counts_are_refused(tmp_path: Path, count: int) -> None:
    for key in (TOKENS, SCORES, TYPES):
        draft = llama_draft()
        draft[key].count = count
        refusal(tmp_path, draft)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**32, 10**7])
def test_wrong_string_lengths_are_refused(tmp_path: Path, length: int) -> None:
    draft = llama_draft()
    draft["general.name"].count = length
    error = refusal(tmp_path, draft)
    assert error.key == "general.name"
    header, places = llama_draft().header()
    at = places[f"value:{TOKENS}"] + 12  # the length of the first token
    error = refusal_of_bytes(
        tmp_path, header[:at] + struct.pack("<Q", length) + header[at + 8 :] + bytes(600_000)
    )
    assert error.key == TOKENS
    at = places["key:general.name"]
    raw = header[:at] + struct.pack("<Q", length) + header[at + 8 :]
    assert refusal_of_bytes(tmp_path, raw).offset == at


def test_nested_arrays_and_unknown_value_types_are_refused(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["x"] = array(gd.ARRAY, [array(gd.U32, [1])])
    assert refusal(tmp_path, draft).key == "x"
    for kind in (13, 255, 2**32 - 1):
        draft = llama_draft()
        draft["x"] = Value(kind, 1)
        assert refusal(tmp_path, draft).key == "x"
        draft["x"] = Value(gd.ARRAY, [1], element=kind)
        assert refusal(tmp_path, draft).key == "x"


def test_duplicate_keys_and_tensor_names_are_refused(tmp_path: Path) -> None:
    draft = llama_draft()
    draft.metadata.append(("llama.block_count", u32(2)))
    assert refusal(tmp_path, draft).key == "llama.block_count"
    draft = llama_draft()
    draft.tensors.append(draft.tensors[3])
    assert refusal(tmp_path, draft).tensor == draft.tensors[3][0]


@pytest.mark.parametrize("name", ["", "llama.block_count\0", "a\nb", b"\xff"])
def test_names_that_c_would_read_otherwise_are_refused(tmp_path: Path, name: str | bytes) -> None:
    draft = llama_draft()
    draft.metadata.insert(3, (name, u32(1)))
    _, places = draft.header()
    assert refusal(tmp_path, draft).offset == places[f"key:{name!s}"]
    draft = llama_draft()
    draft.tensors[0] = (name, draft.tensors[0][1])
    _, places = draft.header()
    assert refusal(tmp_path, draft).offset == places[f"tensor:{name!s}"]


def test_a_boolean_is_0_or_1(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["x"] = Value(gd.BOOL, 2)
    assert refusal(tmp_path, draft).key == "x"
    draft["x"] = array(gd.BOOL, [0, 1, 2])
    assert refusal(tmp_path, draft).key == "x"


@pytest.mark.parametrize("value", [0, 1, 4, 33, 48, 1 << 17, 1 << 31])
def test_an_absurd_alignment_is_refused(tmp_path: Path, value: int) -> None:
    draft = llama_draft()
    draft["general.alignment"] = u32(value)
    error = refusal(tmp_path, draft)
    assert error.key == "general.alignment"
    assert error.offset == draft.header()[1]["value:general.alignment"]


# Tensors ------------------------------------------------------------------------------------------


def change_tensor(name: str, **changes: object) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        for index, (known, tensor) in enumerate(draft.tensors):
            if known == name:
                draft.tensors[index] = (known, dataclasses.replace(tensor, **changes))  # type: ignore[arg-type]
                return
        raise KeyError(name)

    return change


def add_tensor(name: str, shape: list[int]) -> Callable[[Draft], None]:
    size = 4 * math.prod(shape)
    return lambda draft: draft.tensors.append((name, Tensor(shape, 0, size, lambda: [bytes(size)])))


Q = "blk.0.attn_q.weight"
NORM = "blk.1.ffn_norm.weight"


@pytest.mark.parametrize(
    ("change", "tensor", "unsupported"),
    [
        (change_tensor(Q, offset=1 << 40), Q, False),
        (change_tensor(Q, offset=2**64 - 32), Q, False),
        (change_tensor("output.weight", offset=33), "output.weight", False),
        (change_tensor("output.weight", offset=64), "output.weight", False),
        (change_tensor(Q, offset=0), Q, False),
        (change_tensor(Q, n_dims=0), Q, False),
        (change_tensor(Q, n_dims=5), Q, False),
        (change_tensor(Q, shape=[64, 64, 1, 1, 1]), Q, False),
        (change_tensor(Q, n_dims=2**32 - 1), Q, False),
        (change_tensor(Q, shape=[64, 0]), Q, False),
        (change_tensor(Q, shape=[2**63, 2]), Q, False),
        (change_tensor(Q, shape=[2**32, 2**32]), Q, False),
        (change_tensor(Q, shape=[4096]), Q, False),
        (change_tensor(Q, shape=[64, 64, 1]), Q, False),
        (change_tensor(Q, shape=[32, 64, 2]), Q, False),
        (change_tensor(Q, shape=[32, 128]), Q, False),
        (change_tensor(NORM, shape=[32, 2]), NORM, False),
        (change_tensor(NORM, shape=[64, 1]), NORM, False),
        (change_tensor("token_embd.weight", shape=[64, 511]), "token_embd.weight", False),
        (change_tensor("output.weight", shape=[64, 511]), "output.weight", False),
        (lambda draft: draft.remove_tensor(Q), Q, False),
        (lambda draft: draft.remove_tensor(NORM), NORM, False),
        (lambda draft: draft.remove_tensor("output_norm.weight"), "output_norm.weight", False),
        (lambda draft: draft.remove_tensor("output.weight"), "output.weight", True),
        (add_tensor("rope_freqs.weight", [8]), "rope_freqs.weight", True),
        (add_tensor("blk.0.attn_q.bias", [64]), "blk.0.attn_q.bias", True),
        (add_tensor("blk.0.attn_q_norm.weight", [16]), "blk.0.attn_q_norm.weight", True),
        (add_tensor("blk.0.ffn_gate_inp.weight", [64, 8]), "blk.0.ffn_gate_inp.weight", True),
        (add_tensor("blk.2.attn_norm.weight", [64]), "blk.2.attn_norm.weight", True),
        (change_tensor(NORM, type=1), NORM, True),
    ],
)
def test_wrong_tensors_are_refused_by_name(
    tmp_path: Path, change: Callable[[Draft], None], tensor: str, unsupported: bool
) -> None:
    draft = llama_draft()
    change(draft)
    error = refusal(tmp_path, draft)
    assert error.tensor == tensor
    assert error.unsupported is unsupported
    assert error.offset == draft.header()[1].get(f"tensor:{tensor}")


@pytest.mark.parametrize("length", [64, 65, 300, 2**16])
def test_long_tensor_names_are_refused(tmp_path: Path, length: int) -> None:
    draft = llama_draft()
    draft.tensors[4] = ("x" * length, draft.tensors[4][1])
    assert refusal(tmp_path, draft).offset == draft.header()[1][f"tensor:{'x' * length}"]


def test_every_other_tensor_type_is_refused(tmp_path: Path) -> None:
    """Allowed are numbers 0-3, 6-8 and 10-14 alone: the others crash now or at the first token."""
    allowed = {0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14}
    assert {GGML_TYPES[number].name for number in allowed} == set(QUANTS) - {"BF16"}
    for number in sorted({*range(64), 255, 2**31, 2**32 - 1} - allowed):
        draft = llama_draft(shape=DIM_256)
        size = 8 * 256 * 256  # room for the widest type
        change_tensor(Q, type=number, n_bytes=size, data=lambda: [bytes(8 * 256 * 256)])(draft)
        error = refusal(tmp_path, draft)
        assert (error.tensor, error.unsupported) == (Q, True), number


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_rows_that_are_no_multiple_of_the_block_are_refused(tmp_path: Path, quant: str) -> None:
    draft = llama_draft(quant="F32", shape=dataclasses.replace(DIM_256, n_ff=264))
    change_tensor("blk.0.ffn_down.weight", type=QUANTS[quant].type)(draft)
    error = refusal(tmp_path, draft)
    assert error.tensor == "blk.0.ffn_down.weight"
    assert "multiple" in str(error)


# Metadata -----------------------------------------------------------------------------------------


def put(key: str, value: Value) -> Callable[[Draft], None]:
    return lambda draft: draft.__setitem__(key, value)


def drop(key: str) -> Callable[[Draft], None]:
    return lambda draft: draft.__delitem__(key)


def change_token(key: str, token: int, value: object) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft[key].data = [*draft[key].data[:token], value, *draft[key].data[token + 1 :]]

    return change


def shorten(key: str) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft[key].data = draft[key].data[:-1]

    return change


DAMAGED, UNSUPPORTED = False, True
REQUIRED = (
    "general.architecture", "llama.context_length", "llama.embedding_length", "llama.block_count",
    "llama.feed_forward_length", "llama.attention.head_count",
    "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.model", TOKENS, SCORES, TYPES,
)  # fmt: skip


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    draft = llama_draft()
    del draft[key]
    error = refusal(tmp_path, draft)
    assert error.key == key
    assert error.offset is None
    assert not error.unsupported


@pytest.mark.parametrize("key", [key for key in REQUIRED if key.startswith("llama")])
@pytest.mark.parametrize("kind", [gd.I32, gd.U64, gd.U16, gd.F64, gd.BOOL])
def test_a_number_of_another_type_is_refused(tmp_path: Path, key: str, kind: int) -> None:
    draft = llama_draft()
    draft[key] = Value(kind, 1)
    assert refusal(tmp_path, draft).key == key


@pytest.mark.parametrize(
    ("key", "change", "unsupported"),
    [
        ("llama.attention.head_count", u32(0), DAMAGED),
        ("llama.attention.head_count", u32(3), DAMAGED),
        ("llama.attention.head_count", u32(64), DAMAGED),  # head size 1
        ("llama.attention.head_count_kv", u32(0), DAMAGED),
        ("llama.attention.head_count_kv", u32(3), DAMAGED),
        ("llama.attention.head_count_kv", u32(8), DAMAGED),
        ("llama.attention.head_count_kv", array(gd.U32, [2, 2]), UNSUPPORTED),
        ("llama.feed_forward_length", array(gd.U32, [128, 128]), UNSUPPORTED),
        ("llama.embedding_length", u32(0), DAMAGED),
        ("llama.feed_forward_length", u32(0), DAMAGED),
        ("llama.context_length", u32(0), DAMAGED),
        ("llama.block_count", u32(0), DAMAGED),
        ("llama.block_count", u32(101), UNSUPPORTED),
        ("llama.block_count", u32(2**32 - 1), UNSUPPORTED),
        ("llama.rope.dimension_count", u32(8), UNSUPPORTED),
        ("llama.attention.key_length", u32(32), UNSUPPORTED),
        ("llama.attention.value_length", u32(32), UNSUPPORTED),
        ("llama.attention.layer_norm_rms_epsilon", f32(math.nan), DAMAGED),
        ("llama.attention.layer_norm_rms_epsilon", f32(-1e-5), DAMAGED),
        ("llama.attention.layer_norm_rms_epsilon", f32(1.0), DAMAGED),
        ("llama.attention.layer_norm_rms_epsilon", f32(math.inf), DAMAGED),
        ("llama.rope.freq_base", f32(math.nan), DAMAGED),
        ("llama.rope.freq_base", f32(0.0), DAMAGED),
        ("llama.rope.freq_base", f32(-1.0), DAMAGED),
        ("llama.rope.freq_base", f32(math.inf), DAMAGED),
        ("llama.rope.freq_base", Value(gd.F64, 1e4), DAMAGED),
        ("llama.rope.scale_linear", f32(0.0), DAMAGED),
        ("llama.rope.scale_linear", f32(math.nan), DAMAGED),
        ("llama.rope.scaling.type", string("linear"), DAMAGED + UNSUPPORTED),
        ("llama.rope.scaling.factor", f32(4.0), UNSUPPORTED),
        ("llama.rope.scaling.yarn_log_multiplier", f32(0.1), UNSUPPORTED),
        ("llama.attention.causal", Value(gd.BOOL, 0), UNSUPPORTED),
        ("llama.expert_count", u32(8), UNSUPPORTED),
        ("llama.expert_used_count", u32(2), UNSUPPORTED),
        ("llama.attention.sliding_window", u32(4096), UNSUPPORTED),
        ("llama.logit_scale", f32(2.0), UNSUPPORTED),
        ("split.count", Value(gd.U16, 2), UNSUPPORTED),
        ("split.no", Value(gd.U16, 1), UNSUPPORTED),
        ("general.architecture", string("qwen2"), UNSUPPORTED),
        ("general.architecture", string("mistral"), UNSUPPORTED),
        ("general.architecture", string("falcon"), UNSUPPORTED),
        ("general.architecture", string("llama\0"), UNSUPPORTED),
        ("general.architecture", u32(1), DAMAGED),
        ("general.name", u32(1), DAMAGED),
        ("tokenizer.ggml.model", string("gpt2"), UNSUPPORTED),
        ("tokenizer.ggml.model", string("bert"), UNSUPPORTED),
        ("tokenizer.ggml.model", string("t5"), UNSUPPORTED),
        ("tokenizer.ggml.model", u32(1), DAMAGED),
        ("tokenizer.ggml.add_space_prefix", Value(gd.BOOL, 0), UNSUPPORTED),
        ("tokenizer.ggml.bos_token_id", u32(512), UNSUPPORTED),
        ("tokenizer.ggml.bos_token_id", u32(0xFFFFFFFF), UNSUPPORTED),
        ("tokenizer.ggml.eos_token_id", u32(10**9), UNSUPPORTED),
        ("tokenizer.ggml.unknown_token_id", u32(512), UNSUPPORTED),
        ("tokenizer.ggml.padding_token_id", u32(0xFFFFFFFE), UNSUPPORTED),
        ("tokenizer.ggml.seperator_token_id", u32(512), UNSUPPORTED),
        ("tokenizer.ggml.eot_token_id", u32(512), UNSUPPORTED),
        ("tokenizer.ggml.bos_token_id", Value(gd.I32, 1), DAMAGED),
        (TOKENS, array(gd.U32, [1] * 512), DAMAGED),
        (TOKENS, string("a b c"), DAMAGED),
        (SCORES, f32(1.0), DAMAGED),
        (SCORES, array(gd.I32, [1] * 512), DAMAGED),
        (SCORES, array(gd.F64, [1.0] * 512), DAMAGED),
        (SCORES, shorten(SCORES), DAMAGED),
        (SCORES, change_token(SCORES, 300, math.nan), DAMAGED),
        (TYPES, u32(1), DAMAGED),
        (TYPES, array(gd.F32, [1.0] * 512), DAMAGED),
        (TYPES, shorten(TYPES), DAMAGED),
        (TYPES, change_token(TYPES, 300, 0), DAMAGED),
        (TYPES, change_token(TYPES, 300, 7), DAMAGED),
        (TYPES, change_token(TYPES, 300, -1), DAMAGED),
        (TYPES, change_token(TYPES, 300, 6), DAMAGED),
        (TOKENS, change_token(TYPES, 3 + 0x0A, 1), DAMAGED),
        (TOKENS, change_token(TYPES, 3 + 0xFF, 1), DAMAGED),
        (TYPES, change_token(TOKENS, 3 + 0x41, "A"), DAMAGED),
        (TOKENS, change_token(TOKENS, 300, b"<\0"), UNSUPPORTED),
        (TOKENS, change_token(TOKENS, 511, "a"), UNSUPPORTED),
        (TOKENS, change_token(TOKENS, 300, "</s>"), UNSUPPORTED),
        (TOKENS, change_token(TOKENS, 300, "<0x41>"), UNSUPPORTED),
        (TOKENS, change_token(TOKENS, 511, "<0x41>"), UNSUPPORTED),
        (TOKENS, change_token(TOKENS, 511, "<s>"), UNSUPPORTED),
    ],
)
def test_wrong_metadata_is_refused_by_key(
    tmp_path: Path, key: str, change: Value | Callable[[Draft], None], unsupported: bool
) -> None:
    draft = llama_draft()
    put(key, change)(draft) if isinstance(change, Value) else change(draft)
    if key == "llama.rope.scaling.type":
        draft["llama.rope.scaling.factor"] = f32(2.0)
    error = refusal(tmp_path, draft)
    assert error.key == key
    assert error.unsupported == bool(unsupported)
    assert error.offset == draft.header()[1][f"value:{key}"]
    if unsupported and not key.startswith("split.no"):
        assert (error.backend, error.instead) == ("ctransformers", "llama-cpp-python")  # type: ignore[attr-defined]
        assert "llama-cpp-python" in str(error)


def test_all_three_token_arrays_must_agree_with_the_embedding(tmp_path: Path) -> None:
    draft = llama_draft()
    for key in (TOKENS, SCORES, TYPES):
        shorten(key)(draft)
    assert refusal(tmp_path, draft).tensor == "token_embd.weight"


def test_two_tokens_of_one_text_and_type_pass(tmp_path: Path) -> None:
    draft = llama_draft()
    change_token(TOKENS, 300, "a")(draft)
    verify(draft.write(tmp_path / "m.gguf"), CTRANSFORMERS)


def test_what_one_backend_cannot_run_is_sound_without_its_rule(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["general.architecture"] = string("qwen2")
    draft["tokenizer.ggml.model"] = string("gpt2")
    info = verify(draft.write(tmp_path / "m.gguf"))
    assert (info.architecture, info.tokenizer) == ("qwen2", "gpt2")


# Paths --------------------------------------------------------------------------------------------


def path_refusal(path: str | Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        verify(path, CTRANSFORMERS)
    assert not caught.value.unsupported
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "absent.gguf: no such file" in path_refusal(tmp_path / "absent.gguf")
    assert "regular" in path_refusal(tmp_path)
    path_refusal("")
    path_refusal("a\0b")


@pytest.mark.skipif(os.name != "posix", reason="these file kinds are POSIX's")
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    assert "a named pipe" in path_refusal(tmp_path / "pipe.gguf")
    assert "does not exist" in path_refusal(tmp_path / "link.gguf")
    assert "cannot be read" in path_refusal(tmp_path / "loop.gguf")
    assert "a device" in path_refusal("/dev/zero")


def test_a_file_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_llama(tmp_path / "m.gguf")

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # a real one does not stop root
    assert "no permission" in path_refusal(path)


def test_any_path_a_person_may_use_passes(tmp_path: Path) -> None:
    folder = tmp_path / "mödels 模型" / ("x" * 200)
    folder.mkdir(parents=True)
    path = make_llama(folder / "a b.bin")
    verify(path, CTRANSFORMERS)
    verify(str(path), CTRANSFORMERS)
    with pytest.raises(TypeError, match="bytes"):
        verify(os.fsencode(path), CTRANSFORMERS)  # type: ignore[arg-type]


@pytest.mark.skipif(os.name != "posix", reason="such names do not exist elsewhere")
def test_a_path_that_is_not_utf_8_is_for_another_backend(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf")
    try:
        make_llama(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    verify(path)
    assert "UTF-8" in path_refusal(path)


# The file that was verified is the file that is loaded --------------------------------------------


def test_verify_reads_an_open_descriptor(tmp_path: Path) -> None:
    path = make_llama(tmp_path / "m.gguf")
    with path.open("rb") as file:
        file.seek(100)
        path.rename(tmp_path / "other.gguf")
        info = verify(path, CTRANSFORMERS, fd=file.fileno())
        info.check_unchanged(file.fileno())
        assert file.seek(0) == 0  # still open
        with pytest.raises(ModelFileError, match="gone"):
            info.check_unchanged()


def test_a_change_after_verify_is_seen(tmp_path: Path) -> None:
    path = make_llama(tmp_path / "m.gguf")
    info = verify(path, CTRANSFORMERS)
    info.check_unchanged()
    make_llama(tmp_path / "new.gguf", seed=1).replace(path)
    with pytest.raises(ModelFileError, match="changed"):
        info.check_unchanged()
    info = ModelInfo.from_file(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(ModelFileError, match="changed"):
        info.check_unchanged()
