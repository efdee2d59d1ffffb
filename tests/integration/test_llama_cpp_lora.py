"""LoRA adapters on llama-cpp-python: their numbers, their strengths, and files that are none."""

from __future__ import annotations

import numpy as np
import pytest
from support.gguf_draft import f32, string
from support.gguf_families import lora_draft, make_lora
from support.gguf_maker import llama_draft, make_llama
from support.libllama import NativeModel
from support.llama_runtime import CLOSE, IDS, feed_all, open_llama

from nitrolib.backends import LoraAdapter, load
from nitrolib.backends.llama_cpp import bindings
from nitrolib.errors import InvalidRequest, ModelFileError, ModelLoadError, Unsupported


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def tiny(folder):
    return make_llama(folder / "tiny.gguf")


@pytest.fixture(scope="module")
def first(folder):
    return str(make_lora(folder / "first.gguf"))


@pytest.fixture(scope="module")
def second(folder):
    return str(make_lora(folder / "second.gguf", seed=2))


@pytest.fixture
def runtime(tiny, first, second):
    runtime = open_llama(tiny, lora=(LoraAdapter(first), LoraAdapter(second, 0.0)))
    yield runtime
    runtime.close()


def logits(runtime, *scales) -> np.ndarray:
    runtime.keep(0, 0)
    runtime.use_adapters(scales)
    return feed_all(runtime, 0, IDS)


@pytest.mark.parametrize("scale", [1.0, 0.25, -0.5])
def test_an_adapter_acts_as_strongly_as_it_is_told(tiny, runtime, first, scale):
    with NativeModel(tiny) as native:
        plain, adapted = native.logits(IDS)[-1], native.logits(IDS, (first, scale))[-1]
    assert abs(plain - adapted).max() > 0.1
    np.testing.assert_allclose(logits(runtime, scale, 0.0), adapted, atol=CLOSE)


def test_the_strength_of_the_options_holds_from_the_start(tiny, first, runtime):
    adapted = logits(runtime, 0.25, 0.0)
    other = open_llama(tiny, lora=(LoraAdapter(first, 0.25),))
    np.testing.assert_allclose(feed_all(other, 0, IDS), adapted, atol=CLOSE)
    other.close()


def test_embeddings_are_those_of_the_strength_in_the_options(tiny, first):
    vectors = []
    for scale in (0.0, 1.0):
        runtime = open_llama(tiny, lora=(LoraAdapter(first, scale),))
        vectors.append(runtime.embedder().embed([IDS])[0])
        runtime.close()
    plain = open_llama(tiny)
    np.testing.assert_allclose(plain.embedder().embed([IDS])[0], vectors[0], atol=1e-6)
    plain.close()
    assert abs(vectors[0] - vectors[1]).max() > 0.01


def test_all_off_is_the_plain_model_again(tiny, runtime):
    plain = open_llama(tiny)
    expected = feed_all(plain, 0, IDS)
    plain.close()
    assert "lora" not in plain.capabilities
    logits(runtime, 1.0, 1.0)
    np.testing.assert_array_equal(logits(runtime, 0.0, 0.0), expected)


def test_adapters_add_up(runtime):
    assert "lora" in runtime.capabilities
    assert len(runtime.adapters) == 2
    each = [logits(runtime, 1.0, 0.0), logits(runtime, 0.0, 1.0), logits(runtime, 1.0, 1.0)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(each[one] - each[other]).max() > 0.1


@pytest.mark.parametrize(
    "scales", [(), (1.0,), (1.0, 1.0, 1.0), (1.0, float("nan")), (1.0, float("inf")), (1.0, "1")]
)
def test_strengths_that_are_none_are_refused(runtime, scales):
    with pytest.raises(InvalidRequest) as caught:
        runtime.use_adapters(scales)
    assert caught.value.field == "lora"


def _without(key):
    draft = lora_draft(llama_draft())
    draft.metadata = [entry for entry in draft.metadata if entry[0] != key]
    return draft


def _with(key, value):
    draft = lora_draft(llama_draft())
    draft[key] = value
    return draft


def _half():
    draft = lora_draft(llama_draft())
    draft.tensors.pop()
    return draft


@pytest.mark.parametrize(
    "draft",
    [
        llama_draft(),
        _without("general.type"),
        _without("adapter.lora.alpha"),
        _with("adapter.type", string("control_vector")),
        _with("general.architecture", string("qwen2")),
        _with("adapter.lora.alpha", f32(float("nan"))),
        _with("adapter.lora.alpha", string("8")),
        _half(),
    ],
    ids=lambda _: "",
)
def test_a_file_that_is_no_adapter_never_reaches_native_code(tmp_path, tiny, monkeypatch, draft):
    path = draft.write(tmp_path / "wrong.gguf")
    native = bindings.native()
    monkeypatch.setattr(native, "adapter_init", None)
    monkeypatch.setattr(native, "model_load", None)  # it is looked at before the model is loaded
    with pytest.raises(ModelFileError) as caught:
        open_llama(tiny, lora=(LoraAdapter(str(path)),))
    assert caught.value.path == str(path)


def test_a_damaged_or_missing_adapter_is_a_model_file_error(tmp_path, tiny, first):
    cut = tmp_path / "cut.gguf"
    with open(first, "rb") as file:
        cut.write_bytes(file.read()[:-1000])
    for path in (cut, tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelFileError):
            open_llama(tiny, lora=(LoraAdapter(str(path)),))


def test_an_adapter_of_another_shape_is_refused_by_the_library(tmp_path, tiny):
    path = make_lora(tmp_path / "wide.gguf", llama_draft(shape="15M"))
    with pytest.raises(ModelLoadError, match="adapter") as caught:
        open_llama(tiny, lora=(LoraAdapter(str(path)),))
    assert caught.value.path == str(path)
    assert caught.value.reason


def test_a_strength_that_is_no_number_is_refused_before_loading(tiny, first):
    with pytest.raises(InvalidRequest):
        open_llama(tiny, lora=(LoraAdapter(first, float("nan")),))


def test_ctransformers_has_no_adapters(tiny, first):
    from nitrolib.backends import LoadOptions

    with pytest.raises(Unsupported):
        load(tiny, LoadOptions(ngl=0, lora=(LoraAdapter(first),)), "ctransformers")
