"""model.json in every spelling that it has had, and in the one that is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nitrolib.backends import LoadOptions
from nitrolib.backends.threads import available_cores
from nitrolib.errors import InvalidRequest
from nitrolib.models import Manifest
from nitrolib.prompt import PromptTemplate

FINAL = {
    "id": "zephyr-7b",
    "object": "model",
    "name": "Zephyr 7B",
    "version": "1.0",
    "description": "talks",
    "format": "gguf",
    "source_url": "https://huggingface.co/a/b/resolve/main/z.gguf",
    "created": 1700193928,
    "owned_by": "me",
    "settings": {"ctx_len": 4096, "ngl": 100, "embedding": True, "n_parallel": 4,
                 "llama_model_path": "z.gguf"},
    "parameters": {"temperature": 0.7, "top_p": 0.95, "top_k": 40, "stream": True,
                   "max_tokens": 2048, "stop": ["</s>"], "frequency_penalty": 0},
    "metadata": {"author": "A", "tags": ["7B"], "size": 4368438944, "cover": ""},
    "engine": "nitro",
}  # fmt: skip


def test_the_final_form_is_read_and_written_as_it_is() -> None:
    manifest = Manifest.parse(FINAL, "zephyr-7b")
    assert manifest.as_json() == FINAL
    assert json.loads(json.dumps(manifest.as_json())) == FINAL
    assert Manifest.parse(manifest.as_json(), "zephyr-7b") == manifest


def test_texts_of_the_first_form_become_numbers_and_booleans() -> None:
    first = {
        "type": "model", "version": "1", "id": "x", "created": "1700193928", "state": None,
        "settings": {"ctx_len": "2048", "ngl": "100", "embedding": "true", "n_parallel": " 4 "},
        "parameters": {"temperature": "0.7", "token_limit": "2048", "top_k": "0", "top_p": "1",
                       "stream": "False"},
    }  # fmt: skip
    manifest = Manifest.parse(first, "x")
    assert manifest.version == "1.0"
    assert manifest.created == 1700193928
    assert manifest.settings == {"ctx_len": 2048, "ngl": 100, "embedding": True, "n_parallel": 4}
    assert manifest.parameters == {
        "temperature": 0.7, "token_limit": 2048, "top_k": 0, "top_p": 1, "stream": False,
    }  # fmt: skip
    assert manifest.max_tokens == 2048


def test_the_groups_of_the_draft_are_read_and_later_ones_win() -> None:
    draft = {
        "engine_parameters": {"ctx_len": 1024, "ngl": 1},
        "model_parameters": {"temperature": 0.1, "max_tokens": 5},
        "settings": {"ngl": 2},
    }
    manifest = Manifest.parse(draft, "x")
    assert manifest.settings == {"ctx_len": 1024, "ngl": 2}
    assert manifest.parameters == {"temperature": 0.1, "max_tokens": 5}
    assert "engine_parameters" not in manifest.as_json()


def test_sources_tell_the_origin_and_the_file_names() -> None:
    manifest = Manifest.parse(
        {"source_url": "N/A", "sources": [
            {"filename": "m.gguf", "url": "https://h/x?download=true", "sha256": "A" * 64},
            {"url": "https://h/dir/n.gguf?download=true"}, "https://h/p.gguf"]}, "x",
    )  # fmt: skip
    assert manifest.source_url == "https://h/x?download=true"
    assert [file.filename for file in manifest.sources] == ["m.gguf", "n.gguf", "p.gguf"]
    assert manifest.sources[0].sha256 == "a" * 64
    assert Manifest.parse(manifest.as_json(), "x") == manifest


def test_times_in_milliseconds_become_seconds() -> None:
    assert Manifest.parse({"created": 1700193928123}, "x").created == 1700193928
    assert Manifest.parse({"created": 1700193928.9e3}, "x").created == 1700193928
    assert Manifest.parse({}, "x").created == 0


def test_what_is_absent_or_null_has_its_default() -> None:
    nothing = {"name": None, "description": None, "settings": None, "parameters": None,
               "sources": None, "metadata": None, "version": None, "created": None}  # fmt: skip
    assert Manifest.parse(nothing, "x") == Manifest.parse({}, "x") == Manifest(id="x")
    assert Manifest.parse({"settings": {"ngl": None, "ctx_len": ""}}, "x").settings == {}


def test_unknown_keys_are_kept() -> None:
    told = {"extra": {"a": [1]}, "settings": {"flash": "yes"}, "parameters": {"mirostat": "2"}}
    manifest = Manifest.parse(told, "x")
    assert manifest.settings == {"flash": "yes"}
    assert manifest.as_json()["extra"] == {"a": [1]}
    assert manifest.as_json()["parameters"] == {"mirostat": "2"}


def test_the_folder_says_what_the_id_is() -> None:
    assert Manifest.parse({"id": "../../etc"}, "x").id == "x"


def test_a_version_is_a_text_with_a_dot() -> None:
    versions = [Manifest.parse({"version": v}, "x").version for v in (1, "1", 1.5, "1.0", "2024-1")]
    assert versions == ["1.0", "1.0", "1.5", "1.0", "2024-1"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ([], None), ("text", None), (None, None),
        ({"settings": []}, "settings"),
        ({"settings": {"ctx_len": "many"}}, "settings.ctx_len"),
        ({"settings": {"ctx_len": 1.5}}, "settings.ctx_len"),
        ({"settings": {"ctx_len": True}}, "settings.ctx_len"),
        ({"settings": {"ngl": "1e999"}}, "settings.ngl"),
        ({"settings": {"embedding": 1}}, "settings.embedding"),
        ({"settings": {"pre_prompt": 1}}, "settings.pre_prompt"),
        ({"parameters": {"temperature": "hot"}}, "parameters.temperature"),
        ({"parameters": {"temperature": "NaN"}}, "parameters.temperature"),
        ({"parameters": {"top_k": 10**400}}, "parameters.top_k"),
        ({"parameters": {"stop": 7}}, "parameters.stop"),
        ({"parameters": {"stop": [7]}}, "parameters.stop"),
        ({"created": "yesterday"}, "created"),
        ({"name": ["a"]}, "name"),
        ({"sources": {}}, "sources"),
        ({"sources": [7]}, "sources[0]"),
        ({"sources": [{"filename": "../m.gguf", "url": ""}]}, "sources[0].filename"),
        ({"sources": [{"filename": "m.gguf", "url": "", "sha256": "abc"}]}, "sources[0].sha256"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(wrong: Any, field: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Manifest.parse(wrong, "x")
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["../m.gguf", "/m.gguf", "sub/m.gguf", "a\\m.gguf"])
def test_the_model_file_is_a_name_in_the_folder(name: str) -> None:
    manifest = Manifest.parse({"settings": {"llama_model_path": name}}, "x")
    with pytest.raises(InvalidRequest, match="llama_model_path"):
        _ = manifest.model_file


def test_settings_replace_load_options() -> None:
    base = LoadOptions(ctx_len=512, threads=1, ngl=0, provisional=True)
    settings = {"ctx_len": 4096, "ngl": 100, "n_parallel": 4, "embedding": False, "cpu_threads": 64}
    options = Manifest.parse({"settings": settings}, "x").load_options(base)
    assert (options.ctx_len, options.n_parallel, options.embedding) == (4096, 4, False)
    assert (options.ngl, options.gpu_fallback) == (100, True)  # a wish: the status tells if fewer
    assert options.threads == min(64, available_cores())
    assert options.provisional
    assert Manifest(id="x").load_options(base) == base


def test_settings_that_contradict_each_other_are_refused() -> None:
    manifest = Manifest.parse({"settings": {"ctx_len": 2, "n_parallel": 4}}, "x")
    with pytest.raises(InvalidRequest, match="ctx_len"):
        manifest.load_options(LoadOptions())


def test_prompts_make_a_template_and_none_make_none() -> None:
    def template(**settings: str) -> PromptTemplate | None:
        return Manifest.parse({"settings": settings}, "x").template()

    assert template() is None
    assert template(prompt_template="") is None
    assert template(user_prompt="U:") == PromptTemplate(user_prompt="U:")
    chatml = "<|im_start|>system\n{system_message}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>"
    assert template(prompt_template=chatml) == PromptTemplate.from_prompt_template(chatml)
    assert template(prompt_template=chatml, user_prompt="U:") == PromptTemplate(user_prompt="U:")
    begun = template(prompt_template=chatml, pre_prompt="P")
    assert begun is not None
    assert begun.pre_prompt == "P"
    with pytest.raises(InvalidRequest, match="Cannot split"):
        template(prompt_template="no marker")
