"""Settings of loading: every switch of LoadOptions that an operator may want."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

from nitrolib import InvalidRequest, LoadOptions, LoraAdapter
from nitrolib.backends.base import CacheType, Pooling
from nitrolib.config import Settings
from nitrolib.config.settings import CACHE_TYPES, POOLINGS

# Not an operator's: what a client or the code decides, or what has a setting of another name.
_OTHERWISE = {
    "caching",
    "embedding",
    "gpu_fallback",
    "lora",
    "mlock",
    "mmap",
    "provisional",
    "warm_up",
}


def test_every_switch_of_loading_is_a_setting() -> None:
    names = {field.name for field in fields(LoadOptions)} - _OTHERWISE
    assert names <= {field.name for field in fields(Settings)}


def test_the_choices_are_those_of_the_backends() -> None:
    assert get_args(CacheType) == CACHE_TYPES
    assert get_args(Pooling) == POOLINGS


def test_without_settings_everything_is_left_to_the_backend() -> None:
    assert Settings(model="m.gguf").load_options() == LoadOptions(cont_batching=False)


def test_what_was_set_reaches_the_backend() -> None:
    environ = {
        "NITRO_MODEL": "m.gguf",
        "NITRO_N_BATCH": "256",
        "NITRO_N_UBATCH": "64",
        "NITRO_FLASH_ATTENTION": "no",
        "NITRO_CACHE_TYPE_K": "q8_0",
        "NITRO_CACHE_TYPE_V": "q4_0",
        "NITRO_SHARED_CONTEXT": "yes",
        "NITRO_MAIN_GPU": "1",
        "NITRO_TENSOR_SPLIT": "1,1,0.5",
        "NITRO_POOLING": "cls",
        "NITRO_LORAS": "a.gguf,b=c.gguf=0.5",
        "NITRO_LOOKUP": "4",
    }
    assert Settings.from_environment(environ).load_options() == LoadOptions(
        cont_batching=False,
        n_batch=256,
        n_ubatch=64,
        flash_attention=False,
        cache_type_k="q8_0",
        cache_type_v="q4_0",
        shared_context=True,
        main_gpu=1,
        tensor_split=(1.0, 1.0, 0.5),
        pooling="cls",
        lora=(LoraAdapter("a.gguf"), LoraAdapter("b=c.gguf", 0.5)),
        lookup=4,
    )


@pytest.mark.parametrize("text", ["", "a", "1,,1", "0,0", "-1,2", "nan", "inf,1"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings(tensor_split=text)
    assert caught.value.field == "tensor_split"


@pytest.mark.parametrize(
    ("text", "adapter"),
    [
        ("a.gguf", LoraAdapter("a.gguf")),
        ("a.gguf=2", LoraAdapter("a.gguf", 2.0)),
        ("a.gguf=-0.25", LoraAdapter("a.gguf", -0.25)),
        ("x=1/a.gguf", LoraAdapter("x=1/a.gguf")),
        ("a=1=1", LoraAdapter("a=1", 1.0)),
        ("a.gguf=nan", LoraAdapter("a.gguf=nan")),
        ("=1", LoraAdapter("=1")),
    ],
)
def test_an_adapter_is_a_path_and_perhaps_a_strength(text: str, adapter: LoraAdapter) -> None:
    assert Settings(loras=(text,)).load_options().lora == (adapter,)
