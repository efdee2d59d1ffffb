"""Which shared library is opened, and that a wrong one is refused before it is used."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from nitrolib.backends import library, native
from nitrolib.backends.library import ContextBudget, NativeLog, Variant
from nitrolib.errors import BackendUnavailable, ModelLoadError

ALL = frozenset({"avx", "f16c", "avx2", "fma"})


def _variants(*names: str) -> tuple[Variant, ...]:
    return tuple(
        Variant(name, Path(f"/lib/{name}/x.so"), "cuda" if name == "cuda" else "cpu")
        for name in names
    )


@pytest.fixture
def on(monkeypatch):
    """Pretend to be another machine."""

    def pretend(system: str, machine: str) -> None:
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(library.platform, "machine", lambda: machine)

    return pretend


WHEEL = _variants("avx", "avx2", "basic", "cuda")


@pytest.mark.parametrize(
    ("features", "name"),
    [
        (ALL, "avx2"),
        (ALL - {"fma"}, "avx"),
        (ALL - {"avx2"}, "avx"),
        ({"avx", "f16c"}, "avx"),
        ({"avx"}, "basic"),
        (set(), "basic"),
    ],
)
def test_the_fastest_library_the_processor_can_run_is_chosen(on, features, name):
    on("linux", "x86_64")
    assert library.cpu_variant(WHEEL, frozenset(features)).name == name


def test_a_library_built_here_comes_first(on):
    on("linux", "aarch64")
    assert library.cpu_variant((*WHEEL, *_variants("local")), frozenset()).name == "local"


def test_a_cuda_build_is_never_taken_for_a_cpu_run(on):
    on("linux", "x86_64")
    built_here = Variant("local", Path("/x.so"), "cuda")
    assert library.cpu_variant((*WHEEL, built_here), ALL).name == "avx2"


@pytest.mark.parametrize(("system", "machine"), [("linux", "aarch64"), ("win32", "ARM64")])
def test_a_machine_without_a_library_is_told_how_to_build_one(on, system, machine):
    on(system, machine)
    with pytest.raises(BackendUnavailable, match="no library for") as caught:
        library.cpu_variant(WHEEL, ALL)
    assert "--no-binary" in caught.value.hint
    assert caught.value.backend == "ctransformers"


def test_arm_macs_run_the_basic_library(on):
    on("darwin", "arm64")
    assert library.cpu_variant(_variants("avx", "avx2", "basic"), frozenset()).name == "basic"


@pytest.mark.parametrize(
    ("system", "file"),
    [
        ("linux", "libctransformers.so"),
        ("darwin", "libctransformers.dylib"),
        ("win32", "ctransformers.dll"),
    ],
)
def test_every_system_finds_its_own_files(monkeypatch, system, file):
    monkeypatch.setattr(sys, "platform", system)
    found = library.installed_variants()
    assert {"avx", "avx2", "basic"} <= {variant.name for variant in found}
    assert {variant.path.name for variant in found} == {file}


def test_a_missing_package_is_told_how_to_install(monkeypatch):
    monkeypatch.setattr(library, "package_folder", lambda: None)
    assert library.installed_variants() == ()
    with pytest.raises(BackendUnavailable, match="not installed") as caught:
        library.cpu_variant(())
    assert caught.value.hint.startswith("pip install")


def test_the_wheels_cuda_library_is_recognised_without_opening_it():
    devices = {variant.name: variant.device for variant in library.installed_variants()}
    assert devices["cuda"] == "cuda"
    assert devices["avx2"] == "cpu"


def test_finding_a_library_imports_neither_the_package_nor_cpuinfo():
    code = (
        "import sys; from nitrolib.backends.library import find_library; find_library();"
        "print(*{'ctransformers', 'cpuinfo', 'huggingface_hub'} & sys.modules.keys())"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ""


def test_numpy_tells_the_processor_features_under_old_and_new_names(monkeypatch):
    core = library.importlib.import_module("numpy._core._multiarray_umath")
    monkeypatch.setattr(core, "__cpu_features__", {"X86_V3": True})
    assert library.cpu_features() == ALL
    monkeypatch.setattr(
        core, "__cpu_features__", {"AVX": True, "F16C": True, "AVX2": False, "FMA3": True}
    )
    assert library.cpu_features() == {"avx", "f16c", "fma"}


# Binding ------------------------------------------------------------------------------------------


class FakeFunction:
    """A C function that fills the structure it returns with given bytes."""

    def __init__(self, content: bytes = b"") -> None:
        self.content, self.restype = content, None

    def __call__(self):
        return self.restype.from_buffer_copy(self.content.ljust(ctypes.sizeof(self.restype)))


def _fake(content: bytes) -> SimpleNamespace:
    functions = {name: FakeFunction() for name in native.Native.__slots__}
    return SimpleNamespace(**functions, llama_context_default_params=FakeFunction(content))


def test_the_declared_layout_is_64_bytes():
    assert ctypes.sizeof(native.ContextParams) == 64


def test_a_library_with_the_expected_defaults_is_bound():
    assert native.bind(_fake(bytes(native.default_params())), "x.so").llama_eval.argtypes


@pytest.mark.parametrize("place", [0, 4, 8, 12, 16, 24, 32, 36, 40, 48, *range(56, 64)])
def test_any_other_default_is_refused(place):
    content = bytearray(bytes(native.default_params()))
    content[place] ^= 1
    with pytest.raises(BackendUnavailable, match="laid out differently") as caught:
        native.bind(_fake(bytes(content)), "x.so")
    assert caught.value.hint.startswith("pip install")


@pytest.mark.parametrize(
    "symbol", ["llama_eval", "llama_tokenize_with_model", "llama_context_default_params"]
)
def test_a_library_without_a_function_is_refused_naming_it(symbol):
    fake = _fake(bytes(native.default_params()))
    delattr(fake, symbol)
    with pytest.raises(BackendUnavailable, match=symbol):
        native.bind(fake, "x.so")


def test_every_cpu_library_of_the_wheel_has_the_layout():
    for name in ("avx2", "avx", "basic"):
        variant = next(v for v in library.installed_variants() if v.name == name)
        code = (
            "import ctypes, sys; from nitrolib.backends.native import bind;"
            "bind(ctypes.CDLL(sys.argv[1]), sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", code, str(variant.path)], check=True)


def test_a_file_that_is_no_library_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "libctransformers.so"
    path.write_bytes(b"not a library")
    with pytest.raises(BackendUnavailable, match="cannot be opened") as caught:
        library.open_library(Variant("local", path, "cpu"))
    assert caught.value.reason
    assert "--no-binary" in caught.value.hint


def test_a_library_is_opened_once():
    variant = library.cpu_variant(library.installed_variants())
    assert library.open_library(variant) is library.open_library(variant)


# Log and budget -----------------------------------------------------------------------------------


def test_native_lines_go_to_the_logger_whole(caplog):
    log = NativeLog()
    with caplog.at_level(logging.DEBUG, "nitrolib.native"):
        for part in (b"load", b"ing ", b"model\n.", b".\nerror loading model: bad \xff\n"):
            log.callback(4, part, None)
    assert caplog.messages == ["loading model", "..", "error loading model: bad �"]
    assert log.reason() == "bad �"
    log.clear()
    assert log.reason() == ""


def test_the_log_keeps_a_bounded_number_of_lines():
    log = NativeLog()
    for number in range(1000):
        log.callback(4, b"line %d\n" % number, None)
    assert len(log.lines) == 64


def test_contexts_beyond_the_native_table_are_refused():
    budget = ContextBudget()
    budget.take(60)
    with pytest.raises(ModelLoadError, match="64 contexts") as caught:
        budget.take(2)
    assert (caught.value.needed, caught.value.left) == (2, 1)
    budget.take(1)
    budget.give(61)
    budget.take(61)


def test_locks_are_new_after_a_fork():
    opened = library.open_library(library.cpu_variant(library.installed_variants()))
    before = opened.loading
    with before:
        library.forget_locks()
        assert opened.loading is not before
        assert opened.loading.acquire(blocking=False)
        opened.loading.release()
    assert isinstance(library._opening, type(threading.Lock()))


def test_a_cpu_library_has_no_turns_and_a_gpu_library_has():
    cpu, cuda = (Variant("x", Path("/x.so"), device) for device in ("cpu", "cuda"))
    with library._turn(cpu):
        pass
    turn = library._turn(cuda)
    with turn, turn:  # memory may be freed by whoever holds it
        other = threading.Thread(target=lambda: taken.append(turn.acquire(blocking=False)))
        taken: list[bool] = []
        other.start()
        other.join()
    assert taken == [False]
