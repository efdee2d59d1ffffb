"""Every model family: llama-cpp-python's own greedy tokens, its pieces and its ids, prefixes that
are exact, and sequences that are independent of their neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from support.gguf_families import ENCODING, GENERATING, make_model
from support.libllama import NativeModel
from support.llama_peer import peer_greedy
from support.llama_runtime import CLOSE, feed_all, greedy, open_llama

from nitrolib.backends import Feed

PROMPT = "Hello world, this is the story of a small house by the river."
TEXTS = [
    PROMPT, " leading", "two  spaces", "line\n\nbreak\t", "é 你好 мир \U0001f600", "a", " ",
    "1234 + 5.6", "don't we'll", "x" * 200, "<b>bold</b>", "\0",
]  # fmt: skip
QUANTS = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", params=[*GENERATING])
def path(request, folder):
    return make_model(folder / f"{request.param}.gguf", request.param)


@pytest.fixture(scope="module")
def native(path):
    with NativeModel(path) as model:
        yield model


@pytest.fixture(scope="module")
def shared_runtime(path):
    runtime = open_llama(path, ctx_len=1024, n_parallel=8)
    yield runtime
    runtime.close()


@pytest.fixture
def runtime(shared_runtime):
    yield shared_runtime
    for seq in range(shared_runtime.n_seq):
        shared_runtime.keep(seq, 0)


def prompt_of(runtime, text=PROMPT) -> list[int]:
    bos = [runtime.vocabulary.bos] if runtime.vocabulary.add_bos else []
    return [*bos, *runtime.tokenize(text)]


def test_greedy_tokens_are_those_of_the_library(path, runtime):
    prompt = prompt_of(runtime)
    feed_all(runtime, 0, prompt)
    made = greedy(runtime, 0, 24)
    assert made == peer_greedy(path, prompt, 24)
    assert len(set(made)) > 3, "a model that repeats itself proves little"


def test_pieces_ends_and_flags_are_those_of_the_library(runtime, native):
    vocabulary = runtime.vocabulary
    pieces = native.pieces()
    for token in range(vocabulary.n_vocab):
        if token not in vocabulary.eog:  # the library makes those without a type controls
            assert vocabulary.pieces[token] == pieces[token], token
    assert vocabulary.eog == native.eog()
    assert (vocabulary.bos, vocabulary.eos) == (native.token("bos"), native.token("eos"))
    assert vocabulary.add_bos == native.flag("add_bos")


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_library_and_spell_the_text(runtime, native, text):
    ids = runtime.tokenize(text)
    assert ids == native.tokenize(text)
    continued = runtime.tokenize(text, space_prefix=False)
    spelled = b"".join(runtime.vocabulary.pieces[token] for token in continued)
    assert spelled == text.encode()


def test_what_spells_a_special_token_is_text(runtime):
    vocabulary = runtime.vocabulary
    steering = {*vocabulary.control, *vocabulary.eog, vocabulary.bos, vocabulary.eos}
    for special in vocabulary.special:
        text = f"say {special} twice{special}"
        ids = runtime.tokenize(text, space_prefix=False)
        assert steering.isdisjoint(ids), special
        assert b"".join(vocabulary.pieces[token] for token in ids) == text.encode()


def test_a_prefix_serves_again(runtime):
    prompt = prompt_of(runtime)
    assert runtime.keep(0, 0) == 0
    fresh = feed_all(runtime, 0, [*prompt[:10], 300, 301])
    feed_all(runtime, 1, prompt)
    assert runtime.keep(1, 10) == 10
    np.testing.assert_allclose(feed_all(runtime, 1, [300, 301]), fresh, atol=CLOSE)
    runtime.copy(1, 2, 10)
    np.testing.assert_allclose(feed_all(runtime, 2, [300, 301]), fresh, atol=CLOSE)


def test_a_request_among_seven_others_gives_the_tokens_it_gives_alone(runtime):
    prompts = [prompt_of(runtime, PROMPT[: 12 + 6 * seq]) for seq in range(8)]
    alone = []
    for prompt in prompts:
        feed_all(runtime, 0, prompt)
        alone.append(greedy(runtime, 0, 8))
        runtime.keep(0, 0)
    runtime.decode([Feed(seq, prompt) for seq, prompt in enumerate(prompts)])
    together = [[] for _ in prompts]
    for _ in range(8):
        for seq, made in enumerate(together):
            made.append(int(runtime.logits(seq).argmax()))
        runtime.decode([Feed(seq, (made[-1],)) for seq, made in enumerate(together)])
    assert together == alone


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("quant", QUANTS)
def test_quantised_weights_give_the_tokens_of_the_library(folder, family, quant):
    path = make_model(folder / f"{family}-{quant}.gguf", family, quant)
    runtime = open_llama(path)
    prompt = prompt_of(runtime)
    feed_all(runtime, 0, prompt)
    made = greedy(runtime, 0, 12)
    runtime.close()
    assert made == peer_greedy(path, prompt, 12)


@pytest.mark.parametrize("family", ENCODING)
def test_the_ids_of_an_encoder_are_those_of_the_library(folder, family):
    path = make_model(folder / f"{family}.gguf", family)
    runtime = open_llama(path)
    with NativeModel(path) as native:
        for text in TEXTS:
            assert runtime.tokenize(text) == native.tokenize(text), text
    runtime.close()
