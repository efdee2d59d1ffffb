"""Sizes and memory that follow from load options, and options that cannot be."""

from __future__ import annotations

import pytest
from support.gguf_draft import u32
from support.gguf_families import make_model, model_draft
from support.gguf_maker import make_llama

from nitrolib.backends import LoadOptions
from nitrolib.backends.llama_cpp.plan import (
    cell_bytes,
    choose_pooling,
    context_length,
    is_encoder,
    memory_plan,
    sizes,
)
from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.gguf import ModelInfo, open_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


@pytest.fixture(scope="module")
def info(folder):
    """Trained on 512 tokens, two layers with two heads of 16 numbers."""
    return ModelInfo.from_file(make_llama(folder / "tiny.gguf"))


@pytest.fixture(scope="module")
def wide(folder):
    """Heads of 32, which quantised caches need."""
    return ModelInfo.from_file(make_model(folder / "qwen3.gguf", "qwen3"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (512, 512, 512, 512, 1)),
        ({"ctx_len": 100}, (100, 256, 256, 256, 1)),
        ({"ctx_len": 1024, "n_parallel": 4}, (256, 1024, 512, 512, 4)),
        ({"ctx_len": 1000, "n_parallel": 4}, (250, 1024, 512, 512, 4)),
        ({"ctx_len": 1024, "n_parallel": 4, "shared_context": True}, (512, 1024, 512, 512, 4)),
        ({"ctx_len": 256, "n_parallel": 4, "shared_context": True}, (256, 256, 256, 256, 4)),
        ({"n_parallel": 4, "lookup": 3}, (512, 2048, 512, 512, 16)),
        ({"n_parallel": 200, "ctx_len": 60000, "lookup": 3}, (300, 60160, 512, 512, 256)),
        ({"n_batch": 64}, (512, 512, 64, 64, 1)),
        ({"n_batch": 64, "n_ubatch": 16}, (512, 512, 64, 16, 1)),
        ({"n_ubatch": 16}, (512, 512, 512, 16, 1)),
        ({"n_batch": 4096}, (512, 512, 512, 512, 1)),
        ({"n_parallel": 8, "ctx_len": 8}, (1, 256, 256, 256, 8)),
    ],
)
def test_sizes_follow_from_the_options(info, changes, expected):
    found = sizes(LoadOptions(**changes), info)
    assert (found.n_ctx, found.cells, found.n_batch, found.n_ubatch, found.n_outputs) == expected


def test_a_context_beyond_the_training_is_cut_with_a_note(info):
    n_ctx, (note,) = context_length(LoadOptions(ctx_len=4096, n_parallel=2), info)
    assert n_ctx == 512
    assert "512" in note
    assert "2048" in note
    assert context_length(LoadOptions(ctx_len=1024, n_parallel=2), info) == (512, ())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n_parallel": 257, "ctx_len": 4096}, "n_parallel"),
        ({"n_batch": 3, "n_parallel": 4}, "n_batch"),
        ({"n_ubatch": 513}, "n_ubatch"),
        ({"n_batch": 64, "n_ubatch": 65}, "n_ubatch"),
        ({"cache_type_k": "q8_0"}, "cache_type_k"),
        ({"cache_type_v": "q4_0"}, "cache_type_v"),
    ],
)
def test_options_that_the_library_dies_of_or_drops_are_refused(info, changes, field):
    with pytest.raises(InvalidRequest) as caught:
        sizes(LoadOptions(**changes), info)
    assert caught.value.field == field
    assert caught.value.allowed


def test_quantised_caches_need_wide_heads_and_flash_attention(wide, info):
    sizes(LoadOptions(cache_type_k="q8_0", cache_type_v="q4_0"), wide)
    sizes(LoadOptions(cache_type_k="q8_0", flash_attention=False), wide)
    with pytest.raises(Unsupported, match="flash_attention"):
        sizes(LoadOptions(cache_type_v="q8_0", flash_attention=False), wide)


def test_the_cache_is_reckoned_by_its_type(wide, info):
    assert cell_bytes(LoadOptions(), info) == 2 * 2 * 2 * 16 * 2
    assert cell_bytes(LoadOptions(), wide) == 2 * 2 * 64 * 2
    assert cell_bytes(LoadOptions(cache_type_k="q8_0", cache_type_v="q4_0"), wide) == 2 * (68 + 36)
    small, large = (
        memory_plan(LoadOptions(ctx_len=512 * n, n_parallel=n), info).kv_cache for n in (1, 4)
    )
    assert (small, large) == (512 * 256, 2048 * 256)


def test_repacked_weights_are_counted_beside_the_mapped_file(folder):
    path = make_llama(folder / "q4.gguf", quant="Q4_0")
    info = ModelInfo.from_file(path)
    mapped = memory_plan(LoadOptions(), info)
    read = memory_plan(LoadOptions(mmap=False), info)
    # All matrices but the token embedding, which is one of 13 tensors of its size.
    assert 0.5 * info.tensor_bytes < mapped.repacked < info.tensor_bytes
    assert (read.repacked, read.mapped) == (0, False)
    assert read.anonymous >= info.file_bytes


def test_pooling_is_as_asked_for_else_as_the_file_says_else_the_mean(folder):
    plain = open_gguf(make_llama(folder / "plain.gguf"))
    assert choose_pooling(LoadOptions(), plain) == "mean"
    assert choose_pooling(LoadOptions(pooling="cls"), plain) == "cls"
    assert choose_pooling(LoadOptions(pooling="none"), plain) == "last"
    last = open_gguf(make_model(folder / "last.gguf", "qwen3-embedding"))
    assert choose_pooling(LoadOptions(), last) == "last"
    assert choose_pooling(LoadOptions(pooling="mean"), last) == "mean"
    rank = open_gguf(make_model(folder / "rank.gguf", "bert-reranker"))
    assert choose_pooling(LoadOptions(), rank) == "rank"
    with pytest.raises(InvalidRequest):
        choose_pooling(LoadOptions(pooling="rank"), plain)
    draft = model_draft("qwen3")
    draft["qwen3.pooling_type"] = u32(4)  # and no tensors for it
    assert choose_pooling(LoadOptions(), open_gguf(draft.write(folder / "odd.gguf"))) == "mean"


def test_encoders_have_no_cache(folder):
    info = ModelInfo.from_file(make_model(folder / "bert.gguf", "bert"))
    assert is_encoder(info)
    assert memory_plan(LoadOptions(), info).kv_cache == 0
