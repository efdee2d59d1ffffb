"""The object of a model: every key of OpenAI's and of Jan's two schemas, with the right type."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama

from nitrolib.adapters.rest.model_object import known_models, model_object
from nitrolib.backends.base import LoadOptions
from nitrolib.models import Registry

if TYPE_CHECKING:
    from pathlib import Path

OPENAI = {"id": str, "object": str, "created": int, "owned_by": str}
MODEL_DTO: dict[str, Any] = {
    "source_url": str, "id": str, "object": str, "name": str, "version": str, "description": str,
    "format": str, "ctx_len": int, "prompt_template": str, "temperature": (int, float),
    "top_p": (int, float), "max_tokens": int, "stop": list, "frequency_penalty": (int, float),
    "presence_penalty": (int, float), "author": str, "tags": list, "size": int, "cover": str,
    "engine": str, "stream": bool,
}  # fmt: skip
OLDER: dict[str, Any] = {
    "type": str, "version": str, "id": str, "name": str, "created": int, "state": str,
    "format": str, "source_url": str, "settings": dict, "parameters": dict,
}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    make_llama(folder / "small.gguf")
    manifest = {
        "name": "Small",
        "version": 1,
        "settings": {"ctx_len": "512", "embedding": "false"},
        "parameters": {"temperature": 0.3, "max_tokens": 999_999, "stop": ["END"]},
        "metadata": {"author": "Ada", "tags": ["tiny"], "cover": "x.png"},
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return Registry(tmp_path / "models")


def seat(key: str, path: Path) -> Any:
    model = SimpleNamespace(gpu_layers=7)
    engine = SimpleNamespace(status=lambda: SimpleNamespace(model=model))
    options = LoadOptions(ctx_len=1024, n_parallel=4, embedding=False)
    return SimpleNamespace(key=key, path=str(path), options=options, engine=engine)


def test_it_has_every_key_of_all_schemas(registry: Registry) -> None:
    made = model_object(registry.get("small"), state="available")
    for keys in (OPENAI, MODEL_DTO, OLDER):
        for name, kind in keys.items():
            assert isinstance(made[name], kind), name
    assert made["settings"].keys() == {"ctx_len", "ngl", "embedding", "n_parallel"}
    own = {"temperature", "token_limit", "top_k", "top_p", "stream"}
    assert made["parameters"].keys() == own
    for group in ("settings", "parameters", "metadata"):
        assert all(isinstance(value, str) for value in made[group].values())
    assert json.loads(json.dumps(made)) == made


def test_it_says_what_the_manifest_says(registry: Registry) -> None:
    made = model_object(registry.get("small"), state="available")
    assert (made["name"], made["version"], made["author"]) == ("Small", "1.0", "Ada")
    assert (made["tags"], made["cover"], made["stop"]) == (["tiny"], "x.png", ["END"])
    assert (made["temperature"], made["parameters"]["temperature"]) == (0.3, "0.3")
    assert made["settings"]["ctx_len"] == "512"
    assert made["settings"]["embedding"] == "false"
    assert made["settings"]["ngl"] == "100"
    assert made["source_url"].startswith("file:///")
    assert made["size"] > 0


def test_no_answer_is_promised_longer_than_the_context(registry: Registry) -> None:
    made = model_object(registry.get("small"), state="available")
    assert made["max_tokens"] == made["ctx_len"]
    assert made["parameters"]["token_limit"] == str(made["ctx_len"])


def test_a_loaded_model_shows_how_it_was_loaded(registry: Registry) -> None:
    entry = registry.get("small")
    assert entry.path is not None
    made = model_object(entry, seat("small", entry.path), state="available")
    assert made["settings"] == {
        "ctx_len": "1024",
        "ngl": "7",
        "embedding": "false",
        "n_parallel": "4",
    }


def test_a_model_that_was_loaded_by_its_path_is_known_too(
    registry: Registry, tmp_path: Path
) -> None:
    path = make_llama(tmp_path / "elsewhere.gguf")
    pool = SimpleNamespace(seats=lambda: (seat("elsewhere", path),))
    found = known_models(SimpleNamespace(registry=registry, pool=pool))  # type: ignore[arg-type]
    assert [(entry.id, one is not None) for entry, one in found] == [
        ("elsewhere", True),
        ("small", False),
    ]
    made = model_object(*found[0], state="available")
    assert made["created"] > 1_500_000_000
    assert made["assets"] == [path.as_uri()]
