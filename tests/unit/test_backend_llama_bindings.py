"""What is asked of an installed llama-cpp-python, and what is said of one that does not fit; its
devices and its log."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support.gguf_maker import make_llama

from nitrolib.backends import LoadOptions
from nitrolib.backends.llama_cpp import bindings, devices
from nitrolib.backends.llama_cpp.log import NativeLog, reason
from nitrolib.backends.memory import MemoryPlan
from nitrolib.errors import BackendUnavailable, GpuUnavailable, InvalidRequest
from nitrolib.gguf import ModelInfo

# The library --------------------------------------------------------------------------------------


def test_the_installed_library_fits_and_is_opened_once():
    native = bindings.native()
    assert bindings.native() is native
    assert native.version == importlib.metadata.version("llama-cpp-python")
    assert native.max_sequences() == 256


@pytest.mark.parametrize("version", ["0.3.35", "0.2.90", "0.4.0", "1.0", "unknown"])
def test_another_version_is_refused_saying_which_is_needed(monkeypatch, version):
    monkeypatch.setattr(bindings, "_native", None)
    monkeypatch.setattr(bindings, "installed_version", lambda: version)
    with pytest.raises(BackendUnavailable, match=r">=0\.3\.36,<0\.4") as caught:
        bindings.native()
    assert caught.value.backend == "llama-cpp-python"
    assert caught.value.hint.startswith("pip install")


def test_a_package_that_cannot_be_imported_is_told(monkeypatch):
    monkeypatch.setattr(bindings, "_native", None)

    def broken(name):
        raise RuntimeError("Failed to load shared library")

    monkeypatch.setattr(bindings.importlib, "import_module", broken)
    with pytest.raises(BackendUnavailable, match="shared library") as caught:
        bindings.native()
    assert "--force-reinstall" in caught.value.hint


def test_a_structure_without_a_field_is_another_api():
    c = bindings.native().c
    fields = [field for field in c.llama_context_params._fields_ if field[0] != "kv_unified"]
    fake = SimpleNamespace(
        llama_model_params=c.llama_model_params,
        llama_context_params=SimpleNamespace(_fields_=fields),
        llama_batch=c.llama_batch,
        llama_model_kv_override=c.llama_model_kv_override,
    )
    with pytest.raises(BackendUnavailable, match="kv_unified"):
        bindings._check_layout(fake, "0.3.36")


def test_a_library_whose_defaults_lie_elsewhere_is_refused():
    c = bindings.native().c
    fake = SimpleNamespace(**{name: getattr(c, name) for name in bindings._FIELDS})
    fake.llama_model_default_params = c.llama_model_default_params
    params = c.llama_context_default_params()
    params.n_ctx = 7
    fake.llama_context_default_params = lambda: params
    with pytest.raises(BackendUnavailable, match="does not fit"):
        bindings._check_layout(fake, "0.3.36")


def test_a_missing_function_is_named():
    with pytest.raises(BackendUnavailable, match="llama_no_such"):
        bindings.native()._function("llama_no_such", None)


@pytest.mark.parametrize(
    ("given", "spin"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "passive"}, None),
    ],
)
def test_spinning_is_bounded_unless_the_user_chose(monkeypatch, given, spin):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "GGML_NO_BACKTRACE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    bindings.prepare_environment()
    assert os.environ.get("GOMP_SPINCOUNT") == spin
    assert os.environ["GGML_NO_BACKTRACE"] == "1"


def test_the_environment_is_there_before_the_library():
    code = (
        "import os, sys\n"
        "from nitrolib.backends.llama_cpp import bindings\n"
        "assert 'llama_cpp' not in sys.modules and 'GOMP_SPINCOUNT' not in os.environ\n"
        "bindings.native(); print(os.environ['GOMP_SPINCOUNT'])"
    )
    environ = {name: text for name, text in os.environ.items() if "GOMP" not in name}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert run.stdout.strip() == "1000"
    assert run.stderr == "", "the library is silent"


# Devices ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    return ModelInfo.from_file(make_llama(tmp_path_factory.mktemp("devices") / "m.gguf"))


NEEDS = MemoryPlan(weights=300 << 20, kv_cache=20 << 20, scratch=10 << 20, mapped=True)


def machine(*free_mib, names=("CUDA", "CPU")):
    """A library that sees GPUs with so much free memory."""
    kinds = [devices._GPU] * len(free_mib) + [0]

    def memory(device, free, total):
        amount = (free_mib[device] if device < len(free_mib) else 0) << 20
        devices.ctypes.c_size_t.from_address(free).value = amount
        devices.ctypes.c_size_t.from_address(total).value = 2 * amount

    return SimpleNamespace(
        device_count=lambda: len(kinds),
        device_get=lambda number: number,
        device_type=kinds.__getitem__,
        device_name=lambda device: b"CUDA%d" % device,
        device_description=lambda device: b"a GPU",
        device_memory=memory,
        reg_count=lambda: len(names),
        reg_get=lambda number: number,
        reg_name=lambda number: names[number].encode(),
    )


def plan(native, info, **changes):
    return devices.plan_layers(native, LoadOptions(**changes), info, NEEDS)


def test_the_cpu_build_here_is_known_as_one():
    native = bindings.native()
    if devices.gpus(native):
        pytest.skip("this library sees a GPU")
    assert "CPU" in devices.builds(native)


def test_no_layers_asked_for_are_none_whatever_there_is(info):
    assert plan(machine(9000), info, ngl=0) == devices.Layers(layers=0)


def test_a_gpu_takes_all_layers_and_the_output_by_default(info):
    assert plan(machine(9000), info).layers == info.n_layer + 1
    assert plan(machine(9000), info, ngl=1).layers == 1
    assert plan(machine(9000), info, ngl=100).layers == info.n_layer + 1
    assert plan(machine(9000), info).device == "CUDA0"
    assert plan(machine(9000, 9000), info).device == "2 GPUs"
    assert plan(machine(9000, 9000), info, main_gpu=1).device == "CUDA1"
    assert plan(machine(9000, 1), info, main_gpu=1).layers == 0


def test_a_small_gpu_takes_what_fits(info):
    found = plan(machine(240), info)
    assert 0 < found.layers <= info.n_layer
    assert "fit" in found.notes[0]
    with pytest.raises(GpuUnavailable, match="would fit") as caught:
        plan(machine(240), info, ngl=99)
    assert caught.value.missing == "device"


@pytest.mark.parametrize(("names", "missing"), [(("CPU",), "library"), (("CUDA", "CPU"), "device")])
def test_layers_without_a_gpu_are_refused_or_a_loud_note(info, caplog, names, missing):
    native = machine(names=names)
    with pytest.raises(GpuUnavailable) as caught:
        plan(native, info, ngl=5)
    assert caught.value.missing == missing
    assert caught.value.hint
    found = plan(native, info, ngl=5, gpu_fallback=True)
    assert found.layers == 0
    assert "ngl 5" in found.notes[0]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    caplog.clear()
    assert plan(native, info).notes[0].startswith("no GPU layers: ")
    assert not caplog.records


@pytest.mark.parametrize("changes", [{"main_gpu": 1}, {"tensor_split": (1.0, 2.0)}])
def test_a_gpu_that_was_named_is_not_passed_over(info, changes):
    with pytest.raises(GpuUnavailable, match=next(iter(changes))):
        plan(machine(names=("CPU",)), info, **changes)
    found = plan(machine(names=("CPU",)), info, gpu_fallback=True, **changes)
    assert next(iter(changes)) in found.notes[0]
    with pytest.raises(InvalidRequest):
        plan(machine(9000), info, ngl=0, **changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"main_gpu": 2}, "main_gpu"),
        ({"tensor_split": (1.0, 1.0, 1.0)}, "tensor_split"),
        ({"tensor_split": (0.0, 0.0)}, "tensor_split"),
        ({"tensor_split": (-1.0, 2.0)}, "tensor_split"),
        ({"tensor_split": (float("nan"), 2.0)}, "tensor_split"),
    ],
)
def test_a_gpu_or_a_split_that_is_not_there_is_refused(info, changes, field):
    with pytest.raises(InvalidRequest) as caught:
        plan(machine(9000, 9000), info, **changes)
    assert caught.value.field == field


# The log ------------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "nitrolib.native")
    return NativeLog(lambda function: function)


def test_lines_keep_their_level_and_are_put_together(log, caplog):
    log.callback(2, b"first ", None)
    log.callback(5, b"line\nsecond", None)
    log.callback(5, b" line\n", None)
    log.callback(3, b"careful\n", None)
    log.callback(4, b"broken \xff\n", None)
    told = [(record.levelname, record.message) for record in caplog.records]
    assert told == [
        ("DEBUG", "first line"),
        ("DEBUG", "second line"),
        ("WARNING", "careful"),
        ("ERROR", "broken \ufffd"),
    ]


def test_what_a_decode_says_is_told_by_its_exception_alone(log, caplog):
    errors = log.listen()
    log.callback(3, b"removing entries\n", None)
    log.callback(4, b"failed to decode, ret = 2\n", None)
    log.rest()
    assert errors == ["failed to decode, ret = 2"]
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


def test_errors_that_an_exception_will_tell_are_collected(log, caplog):
    with log.reported() as errors:
        log.callback(4, b"llama_load: no such thing\n", None)
        log.callback(3, b"careful\n", None)
    log.callback(4, b"later\n", None)
    assert errors == ["llama_load: no such thing"]
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING", "ERROR"]
    assert reason(errors) == "no such thing"
    assert reason([]) == ""
    load = ["llama_model_load: error loading model: missing tensor", "llama: failed to load"]
    assert reason(load) == "missing tensor"
