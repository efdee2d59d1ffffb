"""The maker of test models: what it makes is a real model to the native library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.gguf_maker import QUANTS, Shape, llama_draft, make_llama, make_vocabulary

from nitrolib.backends import Feed, LoadOptions, Runtime, load

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = LoadOptions(ctx_len=64, ngl=0, threads=1, warm_up=False)
WIDE = Shape(n_embd=256, n_layer=2, n_head=4, n_head_kv=2, n_ff=256, n_vocab=512, n_ctx_train=64)


def loaded(path: Path) -> Runtime:
    return load(str(path), OPTIONS, backend="ctransformers")


@pytest.mark.parametrize("quant", sorted(set(QUANTS) - {"BF16"}))
def test_logits_are_finite_with_the_spread_asked_for(tmp_path: Path, quant: str) -> None:
    runtime = loaded(make_llama(tmp_path / "m.gguf", shape=WIDE, quant=quant, logit_spread=2.0))
    try:
        runtime.decode([Feed(0, [1, 300, 301, 302])])
        logits = runtime.logits(0).copy()
    finally:
        runtime.close()
    assert np.isfinite(logits).all()
    assert 1.5 < logits.std() < 2.5


def test_english_becomes_words_and_other_text_survives(tmp_path: Path) -> None:
    runtime = loaded(make_llama(tmp_path / "m.gguf", n_vocab=4000, quant="Q4_0"))
    try:
        pieces = runtime.vocabulary.pieces
        words = [pieces[token] for token in runtime.tokenize("hello world of the water")]
        assert words == [b" hello", b" world", b" of", b" the", b" water"]
        for text in ("Zebra \u00e9t\u00e9 \u4f60\u597d \U0001f600", "a\tb\n  c"):
            ids = runtime.tokenize(text)
            assert b"".join(pieces[token] for token in ids).decode() == " " + text
    finally:
        runtime.close()


def test_a_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    one = make_llama(tmp_path / "1.gguf", seed=1).read_bytes()
    assert make_llama(tmp_path / "2.gguf", seed=1).read_bytes() == one
    assert make_llama(tmp_path / "3.gguf", seed=2).read_bytes() != one


@pytest.mark.parametrize(
    ("shape", "quant", "megabytes"),
    [("15M", "Q8_0", 25), ("110M", "Q8_0", 142), ("1.1B", "Q4_0", 619)],
)
def test_benchmark_shapes_have_the_sizes_of_their_models(
    shape: str, quant: str, megabytes: int
) -> None:
    draft = llama_draft(shape=shape, quant=quant)  # nothing is generated before it is written
    assert sum(tensor.n_bytes for _, tensor in draft.tensors) // 1_000_000 == megabytes
    assert len(draft["tokenizer.ggml.tokens"].data) == 32000


def test_every_longer_piece_can_be_reached_by_merging() -> None:
    texts, scores, types = make_vocabulary("spm", 5000, ("<|im_end|>",))
    known = set(texts)
    assert len(known) == len(texts) == len(scores) == len(types) == 5000
    for text, kind in zip(texts, types, strict=True):
        if kind == 1 and text.startswith("\u2581") and len(text) > 1:
            assert text[:-1] in known
