"""The maker of models of today's families: what it makes is real to llama.cpp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.gguf_families import (
    ENCODING,
    FAMILIES,
    GENERATING,
    make_lora,
    make_model,
    model_draft,
)
from support.gguf_maker import QUANTS, make_llama
from support.libllama import NativeModel

from nitrolib.gguf import LLAMA_CPP, verify

if TYPE_CHECKING:
    from pathlib import Path

    from support.gguf_draft import Draft

TEXT = "hello world of the water, \u00e9t\u00e9 \u4f60\u597d"


def check_logits(path: Path) -> None:
    with NativeModel(path) as model:
        ids = model.tokenize(TEXT)
        logits = model.logits(ids)
    assert np.isfinite(logits).all()
    assert 1.5 < logits.std() < 3.0
    # Not a model that says what it hears, nor one that always says the same.
    best = logits.argmax(1)
    assert (best == ids).mean() < 0.5
    assert len(set(best.tolist())) > len(ids) / 3


@pytest.mark.parametrize("family", GENERATING)
def test_a_family_passes_the_rule_and_gives_well_spread_logits(tmp_path: Path, family: str) -> None:
    path = make_model(tmp_path / "m.gguf", family)
    assert verify(path, LLAMA_CPP).n_layer == 2
    check_logits(path)


@pytest.mark.parametrize("quant", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("family", ["qwen3", "qwen3moe"])
def test_every_type_gives_well_spread_logits(tmp_path: Path, family: str, quant: str) -> None:
    path = make_model(tmp_path / "m.gguf", family, quant)
    assert verify(path, LLAMA_CPP).quantization == quant
    check_logits(path)


@pytest.mark.parametrize("family", ["llama", "llama3", "qwen2", "qwen3", "phi3"])
def test_the_output_may_be_the_embedding(tmp_path: Path, family: str) -> None:
    path = make_model(tmp_path / "m.gguf", family, tied=True)
    assert "output.weight" not in names(model_draft(family, tied=True))
    check_logits(path)


def names(draft: Draft) -> set[str | bytes]:
    return {name for name, _ in draft.tensors}


@pytest.mark.parametrize("family", GENERATING)
def test_english_becomes_words_and_other_text_survives(tmp_path: Path, family: str) -> None:
    with NativeModel(make_model(tmp_path / "m.gguf", family), vocab_only=True) as model:
        assert [model.piece(token) for token in model.tokenize("is the")][-1] == b" the"
        for text in ("Zebra \u00e9t\u00e9 \u4f60\u597d \U0001f600", "a\tb\n  c"):
            pieces = b"".join(map(model.piece, model.tokenize(text)))
            assert pieces.decode().removeprefix(" ") == text


@pytest.mark.parametrize("family", ENCODING)
def test_an_encoder_tells_texts_apart(tmp_path: Path, family: str) -> None:
    path = make_model(tmp_path / "m.gguf", family)
    verify(path, LLAMA_CPP)
    size = 1 if FAMILIES[family].use == "rank" else 64
    with NativeModel(path) as model:
        one, other = (
            model.pooled(model.tokenize(text, special=True), size)
            for text in ("hello world", "the water is cold")
        )
    assert np.isfinite([one, other]).all()
    assert np.abs(one - other).max() > 0.01


def test_a_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    one = make_model(tmp_path / "1.gguf", "gemma3", seed=1).read_bytes()
    assert make_model(tmp_path / "2.gguf", "gemma3", seed=1).read_bytes() == one
    assert make_model(tmp_path / "3.gguf", "gemma3", seed=2).read_bytes() != one


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_an_adapter_changes_what_its_model_computes(tmp_path: Path, family: str) -> None:
    draft = model_draft(family)
    adapter = str(make_lora(tmp_path / "lora.gguf", draft))
    with NativeModel(draft.write(tmp_path / "m.gguf")) as model:
        ids = model.tokenize(TEXT)
        plain = model.logits(ids)
        np.testing.assert_allclose(model.logits(ids, (adapter, 0.0)), plain, atol=1e-4)
        changed = model.logits(ids, (adapter, 1.0))
        assert np.isfinite(changed).all()
        assert 0.1 < np.abs(changed - plain).mean() < 4


def test_an_adapter_fits_the_llama_of_the_other_maker(tmp_path: Path) -> None:
    adapter = str(make_lora(tmp_path / "lora.gguf"))
    with NativeModel(make_llama(tmp_path / "m.gguf")) as model:
        ids = model.tokenize(TEXT)
        assert np.abs(model.logits(ids, (adapter, 1.0)) - model.logits(ids)).mean() > 0.1


def test_types_with_wide_blocks_get_a_wide_model() -> None:
    for quant, kind in QUANTS.items():
        draft = model_draft("qwen3", quant)
        assert draft["qwen3.embedding_length"].data == (256 if kind.block == 256 else 64)
