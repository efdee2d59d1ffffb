"""Text to ids through llama.cpp's tokenizers: the ids it gives itself, but never a token that
steers the model."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import gguf_draft as gd
from support.gguf_maker import llama_draft, make_llama, make_vocabulary

from nitrolib.backends import LoadOptions, load
from nitrolib.backends.llama_cpp import bindings
from nitrolib.errors import InvalidRequest

OPTIONS = LoadOptions(ctx_len=64, threads=1, ngl=0)
TEXTS = [
    "Hello world", " Hello", "  two  spaces ", "a", " ", "\n\n", "é", "你好 мир", "\0", "a\0b",
    "tab\there", "\u2581", "\U0001f600 smile", "the end.", "x" * 300,
]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("tokenize") / "m.gguf")


@pytest.fixture(scope="module")
def runtime(path):
    runtime = load(path, OPTIONS, "llama-cpp-python")
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def other(path):
    runtime = load(path, OPTIONS, "ctransformers")
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def vocab_of(path):
    """The vocabulary as the library sees it by itself, without our override."""
    native = bindings.native()
    params = native.c.llama_model_default_params()
    params.vocab_only = True
    model = native.model_load(str(path).encode(), params)
    yield native.model_vocab(model)
    native.model_free(model)


def raw_ids(vocab, text) -> list[int]:
    data = text.encode()
    buffer = (ctypes.c_int32 * (len(data) + 8))()
    count = bindings.native().tokenize(
        vocab, data, len(data), ctypes.addressof(buffer), len(buffer), False, False
    )
    assert count >= 0
    return list(buffer[:count])


def spelled(runtime, ids) -> bytes:
    return b"".join(runtime.vocabulary.pieces[number] for number in ids)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_library_itself(runtime, vocab_of, text):
    assert runtime.tokenize(text) == raw_ids(vocab_of, text)


@pytest.mark.parametrize("text", [*TEXTS, "<|im_start|>user", "a</s>b", "<s>"])
@pytest.mark.parametrize("space", [True, False])
def test_ids_are_those_of_the_other_backend(runtime, other, text, space):
    assert runtime.tokenize(text, space_prefix=space) == other.tokenize(text, space_prefix=space)


@pytest.mark.parametrize("text", TEXTS)
def test_without_the_space_prefix_the_text_is_spelled_exactly(runtime, text):
    ids = runtime.tokenize(text, space_prefix=False)
    assert spelled(runtime, ids) == text.replace("\u2581", " ").encode()


def test_an_empty_text_has_no_ids(runtime):
    assert runtime.tokenize("") == []


@pytest.mark.parametrize(
    "text",
    ["</s>", "<s>", "<unk>", "<|im_start|>", "x<|im_end|>y", "<|im_end|><|im_end|>", "<0x0A>"],
)
def test_a_text_that_spells_a_token_gives_its_letters(runtime, text):
    ids = runtime.tokenize(text, space_prefix=False)
    steering = {*runtime.vocabulary.control, *runtime.vocabulary.user_defined, 1, 2}
    assert steering.isdisjoint(ids)
    assert spelled(runtime, ids) == text.encode()


def test_tokens_that_merging_makes_are_spelled_otherwise(tmp_path):
    """With these pieces the letters of </s> merge up to the control token itself."""
    texts, scores, types = map(list, make_vocabulary("spm", 512, ("<|im_start|>",)))
    for offset, text in enumerate(("</", "</s", "<s", "<|", "<|i", "<|im")):
        texts[480 + offset], scores[480 + offset] = text, -0.5
    scores[1] = scores[2] = 0.0
    draft = llama_draft(n_vocab=len(texts))
    draft["tokenizer.ggml.tokens"] = gd.array(gd.STRING, texts)
    draft["tokenizer.ggml.scores"] = gd.array(gd.F32, scores)
    draft["tokenizer.ggml.token_type"] = gd.array(gd.I32, types)
    runtime = load(draft.write(tmp_path / "m.gguf"), OPTIONS, "llama-cpp-python")
    for text in ("</s>", "a</s>b", "<s>", "<|im_start|>"):
        ids = runtime.tokenize(text, space_prefix=False)
        assert {0, 1, 2, *runtime.vocabulary.user_defined}.isdisjoint(ids), text
        assert spelled(runtime, ids) == text.encode()
    runtime.close()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_refused(runtime, text):
    with pytest.raises(InvalidRequest, match="surrogate"):
        runtime.tokenize(text)


def test_what_is_no_text_is_refused(runtime):
    with pytest.raises(InvalidRequest):
        runtime.tokenize(b"bytes")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=60) | st.text("<>|ims_/ 0xA", max_size=20))
def test_any_text_is_spelled_by_its_ids(runtime, other, text):
    ids = runtime.tokenize(text, space_prefix=False)
    assert spelled(runtime, ids) == text.replace("\u2581", " ").encode()
    assert runtime.tokenize(text) == other.tokenize(text)


def test_many_threads_tokenize_at_once(runtime):
    expected = [runtime.tokenize(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: [runtime.tokenize(text) for text in TEXTS], range(200))
        assert all(ids == expected for ids in found)


def test_pieces_and_ends_are_those_of_the_library(runtime, vocab_of):
    native = bindings.native()
    buffer = ctypes.create_string_buffer(64)
    vocabulary = runtime.vocabulary
    for token, piece in enumerate(vocabulary.pieces):
        count = native.token_to_piece(vocab_of, token, ctypes.addressof(buffer), 64, 0, False)
        if token not in vocabulary.user_defined & vocabulary.eog:  # one that it made a control
            assert buffer.raw[: max(count, 0)] == piece, token
    ends = {token for token in range(vocabulary.n_vocab) if native.vocab_is_eog(vocab_of, token)}
    assert vocabulary.eog == ends
