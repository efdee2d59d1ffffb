"""Which backend runs a file, and what is said when none does."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
from support.gguf_draft import string
from support.gguf_maker import llama_draft, make_llama

from nitrolib.backends import LoadOptions, available, choose, load
from nitrolib.errors import BackendUnavailable, InvalidRequest, ModelFileError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("choose") / "m.gguf")


@pytest.fixture
def no_llama(monkeypatch):
    """llama-cpp-python is not installed."""
    from nitrolib.backends.llama_cpp import bindings

    monkeypatch.setattr(bindings, "_native", None)
    monkeypatch.setattr(bindings, "installed_version", lambda: None)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    draft = llama_draft()
    draft["general.architecture"] = string("qwen2")
    draft.metadata = [
        (key.replace("llama.", "qwen2.") if key.startswith("llama.") else key, value)
        for key, value in draft.metadata
    ]
    return draft.write(tmp_path_factory.mktemp("choose") / "qwen2.gguf")


def test_a_file_that_both_run_is_for_llama_cpp_python(model):
    choice = choose(model)
    assert choice.backend == "llama-cpp-python"
    assert choice.reason == "it is installed and runs this file"


def test_without_llama_cpp_python_a_file_within_the_rule_is_for_ctransformers(model, no_llama):
    choice = choose(model)
    assert choice.backend == "ctransformers"
    assert choice.reason == (
        "it runs this file; llama-cpp-python does not: llama-cpp-python is not installed"
    )
    runtime = load(model, LoadOptions(ctx_len=64, threads=1, ngl=0))
    assert (runtime.report.backend, runtime.report.reason) == ("ctransformers", choice.reason)
    runtime.close()


def test_a_backend_that_was_asked_for_is_the_choice(model):
    assert choose(model, "ctransformers").reason == "it was asked for"


def test_a_sound_file_that_nothing_runs_says_what_would(other, no_llama):
    with pytest.raises(BackendUnavailable, match="llama-cpp-python is not installed") as caught:
        choose(other)
    assert "qwen2" in caught.value.reason
    assert caught.value.hint == "pip install 'llama-cpp-python>=0.3.36,<0.4'"
    assert caught.value.path == str(other)


def test_the_report_of_a_loaded_model_has_the_reason(model):
    runtime = load(model, LoadOptions(ctx_len=64, threads=1), "llama-cpp-python")
    assert (runtime.report.backend, runtime.report.reason) == (
        "llama-cpp-python",
        "it was asked for",
    )
    runtime.close()


def test_a_named_backend_refuses_what_it_cannot_run(other):
    with pytest.raises(ModelFileError) as caught:
        choose(other, "ctransformers")
    assert caught.value.unsupported


def test_a_damaged_file_is_a_model_file_error_for_every_backend(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF but not really")
    for backend in ("auto", "ctransformers"):
        with pytest.raises(ModelFileError):
            load(path, LoadOptions(), backend)


@pytest.mark.parametrize("path", ["/no/such/file.gguf", "/tmp", "/dev/null", "bad\0name", ""])
def test_what_is_no_file_is_a_model_file_error(path):
    with pytest.raises(ModelFileError):
        load(path)


def test_an_unknown_backend_is_refused_naming_those_there_are(model):
    with pytest.raises(InvalidRequest) as caught:
        load(model, LoadOptions(), "vllm")
    assert (caught.value.field, caught.value.value) == ("backend", "vllm")
    assert caught.value.allowed == "auto, llama-cpp-python, ctransformers"


def test_available_describes_the_installed_libraries():
    by_name = {info.name: info for info in available()}
    assert set(by_name) == {"ctransformers", "llama-cpp-python"}
    for info in by_name.values():
        assert (info.usable, info.reason) == (True, "")
        assert info.library in info.variants
    assert by_name["ctransformers"].version == "0.2.27"
    assert by_name["llama-cpp-python"].version == importlib.metadata.version("llama-cpp-python")


def test_available_says_what_to_install(monkeypatch):
    from nitrolib.backends import library
    from nitrolib.backends.llama_cpp import bindings

    monkeypatch.setattr(library, "package_folder", lambda: None)
    monkeypatch.setattr(bindings, "_native", None)
    monkeypatch.setattr(importlib.metadata, "version", _not_found)
    for info in available():
        assert not info.usable
        assert info.version is None
        assert info.hint.startswith("pip install")
        assert not info.gpu


def _not_found(name):
    raise importlib.metadata.PackageNotFoundError(name)


def test_importing_the_backends_loads_no_native_library():
    code = (
        "import sys, nitrolib.backends;"
        "print(*{'nitrolib.backends.ctransformers', 'nitrolib.backends.llama_cpp', 'llama_cpp',"
        "'ctypes', 'numpy'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
