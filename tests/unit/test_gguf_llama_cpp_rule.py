"""verify for llama-cpp-python: models of today pass, and what its library would end the process
on does not."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import gguf_draft as gd
from support.gguf_draft import Draft, Tensor, Value, array, f32, string, u32
from support.gguf_families import ENCODING, GENERATING, model_draft
from support.gguf_maker import QUANTS, Shape, llama_draft

from nitrolib.errors import ModelFileError
from nitrolib.gguf import LLAMA_CPP, verify
from nitrolib.gguf.charsmap import charsmap_fault

if TYPE_CHECKING:
    from pathlib import Path

DIM_256 = Shape(n_embd=256, n_layer=1, n_head=4, n_head_kv=2, n_ff=256, n_vocab=300, n_ctx_train=64)
TOKENS = "tokenizer.ggml.tokens"
TYPES = "tokenizer.ggml.token_type"


def refusal(path: Path, draft: Draft) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        verify(draft.write(path / "model.gguf"), LLAMA_CPP)
    return caught.value


def renamed(draft: Draft, before: str, after: str) -> Draft:
    """The draft as one of another architecture."""
    draft.metadata = [
        (name.replace(f"{before}.", f"{after}.", 1) if isinstance(name, str) else name, value)
        for name, value in draft.metadata
    ]
    draft["general.architecture"] = string(after)
    return draft


@pytest.mark.parametrize("quant", QUANTS)
def test_every_type_passes(tmp_path: Path, quant: str) -> None:
    path = llama_draft(shape=DIM_256, quant=quant).write(tmp_path / "m.gguf")
    assert verify(path, LLAMA_CPP).quantization == quant


@pytest.mark.parametrize("family", [*GENERATING, *ENCODING])
def test_every_family_passes(tmp_path: Path, family: str) -> None:
    verify(model_draft(family).write(tmp_path / "m.gguf"), LLAMA_CPP)


def test_keys_of_other_models_and_a_shared_output_pass(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["llama.some_new_key"] = u32(7)
    draft["llama.rope.scaling.type"] = string("yarn")
    draft["llama.rope.scaling.factor"] = f32(4.0)
    draft["tokenizer.ggml.padding_token_id"] = u32(99999)
    draft.remove_tensor("output.weight")
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)


def test_sizes_may_differ_between_layers(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["llama.attention.head_count"] = array(gd.U32, [4, 0])
    draft["llama.attention.head_count_kv"] = array(gd.I32, [2, 0])
    draft["llama.feed_forward_length"] = array(gd.U32, [128, 64])
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)


@pytest.mark.parametrize("architecture", ["clip", "t5", "dream", "eagle3", "nonsense"])
def test_what_the_library_cannot_run_by_itself_is_unsupported(
    tmp_path: Path, architecture: str
) -> None:
    draft = llama_draft()
    draft["general.architecture"] = string(architecture)
    error = refusal(tmp_path, draft)
    assert (error.key, error.unsupported) == ("general.architecture", True)
    assert "may run it" not in error.message


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_files_beside_a_model_are_unsupported(tmp_path: Path, kind: str) -> None:
    draft = llama_draft()
    draft["general.type"] = string(kind)
    assert refusal(tmp_path, draft).unsupported


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", u32(0)),
        ("llama.block_count", u32(513)),
        ("llama.context_length", u32(0)),
        ("llama.context_length", u32(2**32 - 1)),
        ("llama.embedding_length", u32(0)),
        ("llama.attention.head_count", u32(0)),
        ("llama.attention.head_count", u32(2**32 - 1)),
        ("llama.attention.head_count", array(gd.U32, [0, 0])),
        ("llama.attention.head_count", array(gd.U32, [4])),
        ("llama.attention.head_count_kv", u32(3)),
        ("llama.attention.key_length", u32(0)),
        ("llama.attention.key_length", u32(32)),
        ("llama.attention.value_length", u32(8)),
        ("llama.rope.dimension_count", u32(8)),
        ("llama.rope.scaling.type", string("none of these")),
        ("llama.rope.freq_base", f32(0.0)),
        ("llama.rope.freq_base", f32(math.nan)),
        ("llama.rope.scaling.factor", f32(math.inf)),
        ("llama.attention.layer_norm_rms_epsilon", f32(-1.0)),
        ("llama.attention.layer_norm_rms_epsilon", f32(math.nan)),
        ("llama.pooling_type", u32(9)),
        ("llama.expert_count", u32(2000)),
        ("llama.expert_count", u32(4)),
        ("llama.expert_used_count", u32(2)),
        ("llama.expert_group_count", u32(2)),
        ("llama.nextn_predict_layers", u32(2)),
        ("llama.full_attention_interval", u32(0)),
        ("tokenizer.ggml.eos_token_id", u32(512)),
        ("tokenizer.ggml.eot_token_id", Value(gd.I32, 2)),
        ("tokenizer.ggml.model", string("rwkv")),
        ("tokenizer.ggml.model", string("gpt2")),
        ("split.count", Value(gd.U16, 2)),
    ],
)
def test_values_the_library_ends_on_are_refused(tmp_path: Path, key: str, value: Value) -> None:
    draft = llama_draft()
    draft[key] = value
    error = refusal(tmp_path, draft)
    assert (error.key or "").split(".")[:1] == [key.split(".")[0]] or error.key is None


@pytest.mark.parametrize(
    "key", ["llama.context_length", "llama.attention.head_count", "tokenizer.ggml.model", TOKENS]
)
def test_needed_keys(tmp_path: Path, key: str) -> None:
    draft = llama_draft()
    del draft[key]
    assert refusal(tmp_path, draft).key == key


def test_a_text_twice_is_refused(tmp_path: Path) -> None:
    draft = llama_draft()
    draft[TOKENS].data = [*draft[TOKENS].data[:-1], draft[TOKENS].data[300]]
    error = refusal(tmp_path, draft)
    assert "tokens 300 and 511" in error.message


def test_an_empty_text_takes_the_name_the_library_gives_it(tmp_path: Path) -> None:
    draft = llama_draft()
    draft[TOKENS].data = [*draft[TOKENS].data[:-2], "", "[EMPTY_510]"]
    assert "tokens 510 and 511" in refusal(tmp_path, draft).message
    draft[TOKENS].data = [*draft[TOKENS].data[:-2], "", "[EMPTY_511]"]
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)


@pytest.mark.parametrize("text", ["a\0b", "x" * 5000])
def test_texts_the_library_reads_otherwise_are_refused(tmp_path: Path, text: str) -> None:
    draft = llama_draft()
    draft[TOKENS].data = [*draft[TOKENS].data[:-1], text]
    assert refusal(tmp_path, draft).unsupported


def test_every_byte_needs_a_token(tmp_path: Path) -> None:
    draft = llama_draft()
    texts, types = list(draft[TOKENS].data), list(draft[TYPES].data)
    texts[3 + 200], types[3 + 200] = "other", 1
    draft[TOKENS].data, draft[TYPES].data = texts, types
    assert "<0xC8>" in refusal(tmp_path, draft).message


@pytest.mark.parametrize("name", ["blk.0.attn_norm.weight", "output_norm.weight"])
@pytest.mark.parametrize("kind", [1, 30, 26])
def test_what_is_multiplied_number_by_number_is_f32(tmp_path: Path, name: str, kind: int) -> None:
    draft = llama_draft()
    size = 4 if kind == 26 else 2
    raw = bytes(64 * size)
    draft.tensors = [
        (known, Tensor([64], kind, len(raw), lambda: [raw]) if known == name else tensor)
        for known, tensor in draft.tensors
    ]
    assert refusal(tmp_path, draft).tensor == name


@pytest.mark.parametrize("kind", [9, 15, 24, 26, 28])
def test_matrices_of_types_without_a_product_are_refused(tmp_path: Path, kind: int) -> None:
    name = "blk.0.ffn_up.weight"
    draft = llama_draft(shape=DIM_256)
    raw = bytes(8 * 256 * 256)
    draft.tensors = [
        (known, Tensor([256, 256], kind, len(raw), lambda: [raw]) if known == name else tensor)
        for known, tensor in draft.tensors
    ]
    assert refusal(tmp_path, draft).tensor == name


@pytest.mark.parametrize("pre", ["whitespace", "of-tomorrow"])
def test_pre_tokenizers_that_it_lacks_or_that_end_on_a_space_are_refused(
    tmp_path: Path, pre: str
) -> None:
    draft = model_draft("qwen2")
    draft["tokenizer.ggml.pre"] = string(pre)
    error = refusal(tmp_path, draft)
    assert (error.key, error.unsupported) == ("tokenizer.ggml.pre", True)


@pytest.mark.parametrize("alignment", [8, 16])
def test_data_that_cannot_be_computed_with_in_place_are_refused(
    tmp_path: Path, alignment: int
) -> None:
    draft = llama_draft()
    draft["general.alignment"] = u32(alignment)
    draft.alignment = alignment
    for length in range(0, 40, 8):  # the header's length decides where the data begin
        draft["general.name"] = string("x" * length)
        if draft.header()[1]["data"] % 32:
            break
    error = refusal(tmp_path, draft)
    assert (error.tensor, error.unsupported) == ("token_embd.weight", True)


def test_a_wider_output_needs_a_matrix_that_makes_it(tmp_path: Path) -> None:
    draft = model_draft("qwen3")
    draft["qwen3.embedding_length_out"] = u32(64)
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)
    draft["qwen3.embedding_length_out"] = u32(96)
    assert refusal(tmp_path, draft).key == "qwen3.embedding_length_out"


def test_phi_3_needs_queries_keys_and_values(tmp_path: Path) -> None:
    draft = model_draft("phi3")
    draft.remove_tensor("blk.1.attn_qkv.weight")
    assert refusal(tmp_path, draft).tensor == "blk.1.attn_qkv.weight"


@pytest.mark.parametrize("dimensions", [0, 3, 64])
def test_a_partial_rotation_covers_an_even_part_of_a_head(tmp_path: Path, dimensions: int) -> None:
    draft = model_draft("gemma3")
    draft["gemma3.rope.dimension_count_swa"] = u32(16)
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)
    draft["gemma3.rope.dimension_count_swa"] = u32(dimensions)
    assert refusal(tmp_path, draft).key == "gemma3.rope.dimension_count_swa"


@pytest.mark.parametrize("pattern", [u32(1), array(gd.BOOL, [0, 0])])
def test_a_window_needs_a_layer_that_slides(tmp_path: Path, pattern: Value) -> None:
    draft = model_draft("gemma3")
    draft["gemma3.attention.sliding_window_pattern"] = array(gd.BOOL, [1, 0])
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)
    draft["gemma3.attention.sliding_window_pattern"] = pattern
    assert refusal(tmp_path, draft).key == "gemma3.attention.sliding_window_pattern"
    draft["gemma3.attention.sliding_window"] = u32(0)
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)


@pytest.mark.parametrize("architecture", ["gemma-embedding", "modern-bert"])
def test_an_encoder_with_a_window_has_layers_of_both_kinds(
    tmp_path: Path, architecture: str
) -> None:
    draft = renamed(model_draft("gemma3"), "gemma3", architecture)
    verify(draft.write(tmp_path / "m.gguf"), LLAMA_CPP)
    key = f"{architecture}.attention.sliding_window_pattern"
    for pattern in (array(gd.BOOL, [1, 1]), array(gd.BOOL, [0, 0]), u32(1), u32(0)):
        draft[key] = pattern
        assert refusal(tmp_path, draft).key == key


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        ("smallthinker", "expert_count", None),
        ("nanbeige", "num_loops", u32(300)),
        ("jamba", "ssm.inner_size", u32(100)),
        ("hrm_text", "hrm.h_cycles", None),
        ("bailingmoe3", "kda.safe_gate", Value(gd.BOOL, 0)),
        ("gemma-embedding", "dense_2_feat_in", u32(65)),
        ("minimax-m3", "attention.indexer.block_size", u32(0)),
        ("paddleocr", "rope.dimension_sections", None),
        ("qwen2vl", "rope.dimension_sections", array(gd.I32, [0, 0, 0, 0])),
        ("glm4", "rope.dimension_sections", array(gd.I32, [8, 8, -16, 0])),
    ],
)
def test_what_single_architectures_assert_is_checked(
    tmp_path: Path, architecture: str, key: str, value: Value | None
) -> None:
    draft = renamed(llama_draft(), "llama", architecture)
    for name in ("layers_per_stack", "l_cycles"):
        draft[f"hrm_text.hrm.{name}"] = u32(1)
    if value is not None:
        draft[f"{architecture}.{key}"] = value
    assert refusal(tmp_path, draft).key == f"{architecture}.{key}"


# The table of a unigram vocabulary ----------------------------------------------------------------


def charsmap(nodes: list[int], replacements: bytes) -> bytes:
    return struct.pack("<I", 4 * len(nodes)) + np.array(nodes, "<u4").tobytes() + replacements


def one_rule(value: int = 0) -> list[int]:
    """A table in which "A" ends a prefix: root 0, its child 65 + 256, the leaf's value at 256."""
    nodes = [0] * 1024
    nodes[0] = 256 << 10
    child = 256 ^ 65
    nodes[child] = (child ^ 256) << 10 | 1 << 8 | 65
    nodes[256] = 1 << 31 | value
    return nodes


def test_a_sound_table_passes() -> None:
    assert charsmap_fault(charsmap(one_rule(), b"a\0")) == ""
    assert charsmap_fault(charsmap(one_rule(2), b"b\0a\0")) == ""


def test_ways_out_of_a_table_are_found() -> None:
    assert "behind the end" in charsmap_fault(charsmap(one_rule(9), b"a\0"))
    assert "no end" in charsmap_fault(charsmap(one_rule(), b"a"))
    assert "leads to" in charsmap_fault(charsmap([(1 << 20) << 10], b"a\0"))
    far = one_rule()
    far[256 ^ 65] = 5000 << 10 | 1 << 8 | 65
    assert "leads to" in charsmap_fault(charsmap(far, b"a\0"))
    assert charsmap_fault(b"\x01")
    assert charsmap_fault(struct.pack("<I", 1 << 30) + bytes(64))
