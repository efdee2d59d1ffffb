"""LoadOptions: ranges are checked where they are made, and a backend honours or refuses."""

from __future__ import annotations

import pytest
from support.gguf_maker import make_llama

from nitrolib import InvalidRequest, LoadOptions, LoraAdapter, Unsupported
from nitrolib.backends import load


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_batch", 0),
        ("n_ubatch", 0),
        ("n_ubatch", True),
        ("main_gpu", -1),
        ("lookup", -1),
        ("cache_type_k", "q5_0"),
        ("cache_type_v", ""),
        ("pooling", "max"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        LoadOptions(**{name: value})
    assert caught.value.field == name
    assert caught.value.allowed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_batch", 256),
        ("n_ubatch", 64),
        ("flash_attention", False),
        ("cache_type_k", "q8_0"),
        ("cache_type_v", "q4_0"),
        ("shared_context", True),
        ("main_gpu", 1),
        ("tensor_split", (0.5, 0.5)),
        ("pooling", "mean"),
        ("lora", (LoraAdapter("adapter.gguf"),)),
        ("lookup", 3),
    ],
)
def test_ctransformers_refuses_what_it_cannot_honour(tmp_path, name: str, value: object) -> None:
    path = make_llama(tmp_path / "tiny.gguf")
    with pytest.raises(Unsupported) as caught:
        load(path, LoadOptions(**{name: value}), "ctransformers")
    assert caught.value.field == name
