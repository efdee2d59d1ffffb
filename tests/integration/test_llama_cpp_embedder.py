"""Embeddings and scores through llama-cpp-python: those of the library itself, however texts are
batched and cut into pieces."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.gguf_families import make_model
from support.gguf_maker import make_llama
from support.libllama import NativeModel
from support.llama_peer import peer
from support.llama_runtime import IDS, feed_all, open_llama
from support.models import slow_model
from support.waiting import when

from nitrolib.backends import Feed
from nitrolib.backends.base import Interrupted
from nitrolib.backends.llama_cpp import embedder as module
from nitrolib.errors import InvalidRequest, ModelNotLoaded, NotEnoughMemory, Unsupported

TEXTS = ["hello world", "the cat", "a much longer text about a house and a mountain", "x"]
POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("embedder")


@pytest.fixture(scope="module")
def tiny(folder):
    return make_llama(folder / "tiny.gguf")


@pytest.fixture(scope="module")
def bert(folder):
    return make_model(folder / "bert.gguf", "bert")


def unit(vector) -> np.ndarray:
    return np.asarray(vector) / np.linalg.norm(vector)


@pytest.fixture
def opened():
    """Opens runtimes with their embedders, and closes them."""
    runtimes = []

    def open_both(path, **changes):
        runtime = open_llama(path, **changes)
        runtimes.append(runtime)
        return runtime, runtime.embedder()

    yield open_both
    for runtime in runtimes:
        runtime.close()


# Right numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_are_those_of_llama_cpp_python(tiny, opened, pooling):
    runtime, embedder = opened(tiny, pooling=pooling)
    ids = [embedder.framed(runtime.tokenize(text)) for text in TEXTS]
    found = embedder.embed(ids)
    with peer(
        tiny, embedding=True, pooling_type=POOLINGS[pooling], flash_attn=False, logits_all=False
    ) as llama:
        theirs = llama.embed(TEXTS, normalize=True)
    np.testing.assert_allclose(found, theirs, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), embedder.n_out) == (4, 64)


@pytest.mark.parametrize("family", ["bert", "nomic-bert", "xlm-roberta"])
def test_an_encoder_pools_as_its_file_says(folder, opened, family):
    path = make_model(folder / f"{family}.gguf", family)
    runtime, embedder = opened(path)
    assert runtime.capabilities == {"embedder"}
    ids = [embedder.framed(runtime.tokenize(text)) for text in TEXTS]
    with NativeModel(path) as native:
        for text, mine in zip(TEXTS, ids, strict=True):
            assert mine == native.tokenize(text, special=True)
        expected = [unit(native.pooled(one, embedder.n_out)) for one in ids]
    np.testing.assert_allclose(embedder.embed(ids), expected, atol=2e-3)


@pytest.mark.parametrize(("pooling", "change"), [("none", "last"), (None, "mean")])
def test_no_pooling_is_the_last_vector_and_the_default_the_mean(tiny, opened, pooling, change):
    _, embedder = opened(tiny, pooling=pooling)
    _, other = opened(tiny, pooling=change)
    np.testing.assert_array_equal(embedder.embed([IDS]), other.embed([IDS]))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_text_in_pieces_has_the_vector_of_a_whole_one(tiny, opened, monkeypatch, pooling):
    text = [1, *(260 + number % 200 for number in range(199))]
    _, embedder = opened(tiny, pooling=pooling)
    whole = embedder.embed([text, IDS])
    monkeypatch.setattr(module, "_LOGITS", 512 * 33)  # 33 tokens at a time
    _, other = opened(tiny, pooling=pooling)
    assert other._at_once == 33
    np.testing.assert_allclose(other.embed([text, IDS]), whole, atol=2e-3)
    np.testing.assert_allclose(other.embed([IDS]), whole[1:], atol=2e-3)


@pytest.mark.parametrize("path", ["tiny", "bert"])
def test_a_text_among_others_has_the_vector_it_has_alone(request, opened, path):
    _, embedder = opened(request.getfixturevalue(path))
    texts = [IDS[: 2 + 5 * number] for number in range(6)]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_embeddings_leave_generations_alone(tiny, opened):
    runtime, embedder = opened(tiny)
    expected = feed_all(runtime, 0, IDS)
    runtime.keep(0, 20)
    embedder.embed([IDS[::-1]])
    np.testing.assert_array_equal(feed_all(runtime, 0, IDS[20:]), feed_again(runtime, expected))


def feed_again(runtime, expected):
    np.testing.assert_allclose(runtime.logits(0), expected, atol=5e-3)
    return np.array(runtime.logits(0))


def test_both_may_run_at_once(tiny, opened):
    runtime, embedder = opened(tiny)
    expected = embedder.embed([IDS])
    wrong = []

    def embed():
        for _ in range(30):
            if not np.array_equal(embedder.embed([IDS]), expected):
                wrong.append(1)  # noqa: PERF401

    thread = threading.Thread(target=embed)
    thread.start()
    for _ in range(30):
        feed_all(runtime, 0, IDS)
        runtime.keep(0, 0)
    thread.join()
    assert not wrong


def test_no_texts_have_no_vectors(tiny, opened):
    _, embedder = opened(tiny)
    assert embedder.embed([]).shape == (0, 64)


# Scores -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranker(folder):
    return make_model(folder / "rank.gguf", "bert-reranker")


def test_scores_are_those_of_the_library(ranker, opened):
    runtime, embedder = opened(ranker)
    assert runtime.capabilities == {"embedder", "rank"}
    query = runtime.tokenize("which animal")
    pairs = [embedder.pair(query, runtime.tokenize(text)) for text in TEXTS]
    with NativeModel(ranker) as native:
        cls, sep = native.token("bos"), native.token("sep")
        assert pairs[1] == [cls, *query, sep, *runtime.tokenize(TEXTS[1]), sep]
        expected = [native.pooled(pair, 1)[0] for pair in pairs]
    scores = embedder.rank(pairs)
    np.testing.assert_allclose(scores, expected, atol=2e-3)
    assert len(set(scores.tolist())) == len(TEXTS)
    assert embedder.rank([]).shape == (0,)


def test_a_model_that_scores_makes_no_vectors_and_the_other_way_round(ranker, tiny, opened):
    _, embedder = opened(ranker)
    with pytest.raises(Unsupported):
        embedder.embed([IDS])
    _, embedder = opened(tiny)
    with pytest.raises(Unsupported):
        embedder.rank([IDS])


def test_a_model_without_a_head_for_scores_is_not_asked_for_them(tiny):
    with pytest.raises(InvalidRequest) as caught:
        open_llama(tiny, pooling="rank")
    assert caught.value.field == "pooling"


# Refused, interrupted, closed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        [[]],
        [IDS, []],
        [[5] * 257],
        [[5] * 200, [6] * 57],
        [[5]] * 65,
        [[5, 512]],
        [[5], [-1]],
        [[5.5]],
    ],
)
def test_wrong_texts_never_reach_native_code(tiny, opened, monkeypatch, texts):
    _, embedder = opened(tiny)
    monkeypatch.setattr(embedder._native, "decode", None)
    with pytest.raises(InvalidRequest):
        embedder.embed(texts)


def test_an_encoder_generates_nothing(bert, opened):
    runtime, _ = opened(bert)
    assert runtime.n_ctx == runtime.n_batch
    for call in (
        lambda: runtime.decode([Feed(0, (5,))]),
        lambda: runtime.logits(0),
        lambda: runtime.embed(0),
        lambda: runtime.keep(0, 1),
    ):
        with pytest.raises(Unsupported):
            call()
    runtime.decode([])
    assert (runtime.length(0), runtime.keep(0, 0)) == (0, 0)
    with pytest.raises(InvalidRequest):
        runtime.length(1)


def test_a_model_loaded_without_embeddings_has_no_embedder(tiny):
    runtime = open_llama(tiny, embedding=False)
    assert "embedder" not in runtime.capabilities
    with pytest.raises(Unsupported):
        runtime.embedder()
    runtime.close()


def test_an_interrupted_evaluation_can_be_done_again(folder, opened):
    _, embedder = opened(slow_model(folder), ctx_len=4096)
    expected = embedder.embed([IDS])
    when(lambda: embedder._stopper._running, embedder.interrupt)
    with pytest.raises(Interrupted):
        embedder.embed([[400] * 1024])
    np.testing.assert_array_equal(embedder.embed([IDS]), expected)


def test_a_closed_embedder_refuses_and_so_does_one_of_a_closed_model(tiny, opened):
    runtime, embedder = opened(tiny)
    embedder.close()
    embedder.close()
    with pytest.raises(ModelNotLoaded):
        embedder.embed([IDS])
    other = runtime.embedder()
    runtime.close()
    with pytest.raises(ModelNotLoaded):
        other.embed([IDS])
    with pytest.raises(ModelNotLoaded):
        runtime.embedder()
    assert other.framed([5])[-1] == 5  # the model is gone, and nothing of it is asked


def test_little_memory_shortens_the_texts_of_an_encoder(bert, monkeypatch):
    runtime = open_llama(bert)
    monkeypatch.setattr(module.memory, "available_bytes", lambda: 1 << 20)
    short = runtime.embedder()
    assert 16 <= short.n_batch < runtime.n_ctx
    monkeypatch.setattr(module.memory, "available_bytes", lambda: 1 << 10)
    with pytest.raises(NotEnoughMemory):
        runtime.embedder()
    runtime.close()
