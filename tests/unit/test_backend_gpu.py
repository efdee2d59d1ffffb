"""GPU layers: what is missing is found out, and said, before a CUDA library is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.gguf_maker import make_llama

from nitrolib.backends import LoadOptions, gpu, gpu_trial, load
from nitrolib.backends.gpu import GpuDevice, GpuProbe
from nitrolib.backends.library import Variant
from nitrolib.backends.memory import MemoryPlan
from nitrolib.errors import GpuUnavailable

CUDA = Variant("cuda", Path("/lib/cuda/libctransformers.so"), "cuda")
CPU = Variant("avx2", Path("/lib/avx2/libctransformers.so"), "cpu")
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")


def opener(*present: str):
    """A stand-in for ctypes.CDLL on a machine that has just these libraries."""

    def open_library(name: str) -> SimpleNamespace:
        if not any(part in name for part in present):
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace()

    return open_library


def fail_trial(_libraries):
    raise AssertionError("tried although something was missing")


def one_device(_libraries):
    return {"devices": [{"name": "A100", "capability": 80, "free_bytes": 9, "total_bytes": 10}]}


# Probing ------------------------------------------------------------------------------------------


def test_without_a_driver_nothing_else_is_looked_for():
    found = gpu.probe((CPU, CUDA), open_library=opener("cudart", "cublas"), trial=fail_trial)
    assert (found.usable, found.missing) == (False, "driver")
    assert "driver" in found.hint


@pytest.mark.parametrize("present", [("libcuda.so",), ("libcuda.so", "cudart")])
def test_without_the_cuda_libraries_the_packages_are_named(present):
    found = gpu.probe((CPU, CUDA), open_library=opener(*present), trial=fail_trial)
    assert (found.usable, found.missing) == (False, "library")
    assert found.hint == "pip install nvidia-cuda-runtime-cu12 nvidia-cublas-cu12"


def test_without_the_wheels_cuda_library_nothing_is_tried():
    found = gpu.probe((CPU,), open_library=opener("cuda", "cublas"), trial=fail_trial)
    assert (found.usable, found.missing) == (False, "library")
    assert "CT_CUBLAS=1" in found.hint


@pytest.mark.parametrize("missing", ["driver", "device", "library"])
def test_what_the_trial_misses_is_passed_on(missing):
    found = gpu.probe(
        (CUDA,),
        open_library=opener("cuda", "cublas"),
        trial=lambda _libraries: {"missing": missing, "reason": "it said so"},
    )
    assert (found.usable, found.missing, found.reason) == (False, missing, "it said so")
    assert found.hint


def test_the_trial_gets_the_libraries_in_the_order_they_are_loaded():
    tried = []

    def trial(libraries):
        tried.extend(libraries)
        return one_device(libraries)

    found = gpu.probe((CPU, CUDA), open_library=opener("cuda", "cublas"), trial=trial)
    assert tried == ["libcudart.so.12", "libcublas.so.12", str(CUDA.path)]
    assert found.usable
    assert found.variant == CUDA
    assert found.preload == ("libcudart.so.12", "libcublas.so.12")
    assert found.devices == (GpuDevice("A100", 9, 10),)


def test_libraries_of_the_nvidia_packages_are_found(tmp_path, monkeypatch):
    for folder, name in (("cuda_runtime", "libcudart.so.12"), ("cublas", "libcublas.so.12")):
        (tmp_path / folder / "lib").mkdir(parents=True)
        (tmp_path / folder / "lib" / name).touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _name: spec)
    found = gpu.probe((CUDA,), open_library=opener("libcuda.so", str(tmp_path)), trial=one_device)
    assert found.usable
    assert found.preload == (
        str(tmp_path / "cuda_runtime/lib/libcudart.so.12"),
        str(tmp_path / "cublas/lib/libcublas.so.12"),
    )


def test_a_mac_needs_a_library_built_for_metal(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    found = gpu.probe((CPU,), open_library=opener(), trial=fail_trial)
    assert (found.usable, found.missing) == (False, "library")
    assert "CT_METAL=1" in found.hint
    metal = Variant("local", Path("/lib/local/libctransformers.dylib"), "metal")
    assert gpu.probe((CPU, metal), open_library=opener(), trial=fail_trial).variant == metal


# The trial ----------------------------------------------------------------------------------------


class FakeDriver:
    """The driver API as ctypes sees it, with results that can be set."""

    def __init__(self, *, init=0, version=12020, count=1, capability=(8, 0)) -> None:
        self.init, self.version, self.count, self.capability = init, version, count, capability
        self.cuInit = lambda _flags: self.init
        self.cuDriverGetVersion = lambda out: self._set(out, self.version)
        self.cuDeviceGetCount = lambda out: self._set(out, self.count)
        self.cuDeviceGet = lambda out, _number: self._set(out, 0)
        self.cuDevicePrimaryCtxRetain = lambda out, _device: self._set(out, 1)
        self.cuCtxSetCurrent = lambda _context: 0

    @staticmethod
    def _set(pointer, value) -> int:
        pointer._obj.value = value
        return 0

    def cuDeviceGetName(self, buffer, _size, _device) -> int:  # noqa: N802
        buffer.value = b"Fake 3000"
        return 0

    def cuDeviceGetAttribute(self, out, which, _device) -> int:  # noqa: N802
        return self._set(out, self.capability[which.value - 75])

    def cuMemGetInfo_v2(self, free, total) -> int:  # noqa: N802
        self._set(free, 7 * GIB)
        return self._set(total, 8 * GIB)


def _inspect(driver, libraries=()):
    started = []

    def open_library(name: str):
        if name in gpu_trial.DRIVER_NAMES:
            return driver
        if name == "missing.so":
            raise OSError("missing.so: no such file")
        return SimpleNamespace(llama_backend_init=lambda _numa: started.append(name))

    return gpu_trial.inspect(list(libraries), open_library), started


@pytest.mark.parametrize(
    ("driver", "missing"),
    [
        (FakeDriver(init=100), "device"),
        (FakeDriver(init=999), "driver"),
        (FakeDriver(version=11080), "driver"),
        (FakeDriver(count=0), "device"),
        (FakeDriver(capability=(5, 0)), "device"),
    ],
)
def test_a_driver_that_will_not_do_is_told_before_cuda_is_opened(driver, missing):
    answer, started = _inspect(driver, ["cuda.so"])
    assert answer["missing"] == missing
    assert answer["reason"]
    assert started == []


def test_a_device_is_described_and_the_last_library_started():
    answer, started = _inspect(FakeDriver(), ["cudart.so", "cuda.so"])
    assert started == ["cuda.so"]
    assert answer == {
        "devices": [
            {
                "name": "Fake 3000",
                "capability": 80,
                "free_bytes": 7 * GIB,
                "total_bytes": 8 * GIB,
            }
        ]
    }


def test_a_library_that_does_not_open_is_missing():
    answer, started = _inspect(FakeDriver(), ["missing.so"])
    assert answer["missing"] == "library"
    assert started == []


def test_the_trial_is_a_script_that_needs_nothing_installed():
    run = subprocess.run(
        [sys.executable, "-I", "-S", gpu_trial.__file__], capture_output=True, check=True
    )
    answer = json.loads(run.stdout)
    assert set(answer) in ({"devices"}, {"missing", "reason"})


def _script(monkeypatch, tmp_path, code: str) -> None:
    path = tmp_path / "trial.py"
    path.write_text(code)
    monkeypatch.setattr(gpu_trial, "__file__", str(path))


def test_a_trial_that_exits_with_1_is_an_answer_with_its_last_line(monkeypatch, tmp_path):
    _script(monkeypatch, tmp_path, "import sys; sys.exit('CUDA error 35 at x.cu: too old')")
    assert gpu.run_trial([]) == {"missing": "device", "reason": "CUDA error 35 at x.cu: too old"}


def test_a_trial_that_crashes_is_an_answer(monkeypatch, tmp_path):
    _script(monkeypatch, tmp_path, "import os; os.abort()")
    answer = gpu.run_trial([])
    assert answer["missing"] == "device"
    assert answer["reason"]


def test_a_trial_that_hangs_is_an_answer(monkeypatch, tmp_path):
    _script(monkeypatch, tmp_path, "import time; time.sleep(60)")
    monkeypatch.setattr(gpu, "_TRIAL_TIMEOUT_S", 0.2)
    assert "timed out" in gpu.run_trial([])["reason"]


def test_a_trial_that_prints_nonsense_is_an_answer(monkeypatch, tmp_path):
    _script(monkeypatch, tmp_path, "print('hello')")
    assert gpu.run_trial([])["missing"] == "device"


def test_a_frozen_program_has_no_trial(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert gpu.run_trial([])["missing"] == "device"


# Deciding -----------------------------------------------------------------------------------------

INFO = SimpleNamespace(n_layer=10)
NEEDS = MemoryPlan(weights=11 * GIB, kv_cache=2 * GIB, scratch=GIB, mapped=True)
NONE = GpuProbe(usable=False, missing="driver", reason="there is no driver", hint="get one")


def _with(free: int):
    device = GpuDevice("A100", free, free)
    return lambda: GpuProbe(usable=True, variant=CUDA, preload=("a",), devices=(device,))


def test_ngl_0_does_not_even_look():
    assert gpu.plan_layers(LoadOptions(ngl=0), INFO, NEEDS, fail_trial).layers == 0


def test_asked_for_layers_that_cannot_be_raise_with_the_missing_piece():
    with pytest.raises(GpuUnavailable, match="ngl 33 cannot be honoured") as caught:
        gpu.plan_layers(LoadOptions(ngl=33), INFO, NEEDS, lambda: NONE)
    assert caught.value.missing == "driver"
    assert caught.value.hint == "get one"


def test_the_fallback_is_the_cpu_with_a_note():
    plan = gpu.plan_layers(LoadOptions(ngl=33, gpu_fallback=True), INFO, NEEDS, lambda: NONE)
    assert (plan.layers, plan.variant) == (0, None)
    assert plan.notes == ("no GPU layers although ngl 33 was asked for: there is no driver",)


def test_as_many_as_possible_may_be_none():
    plan = gpu.plan_layers(LoadOptions(ngl=None), INFO, NEEDS, lambda: NONE)
    assert plan.layers == 0
    assert plan.notes == ("no GPU layers: there is no driver",)


@pytest.mark.parametrize(("ngl", "layers"), [(1, 1), (10, 10), (13, 13), (100, 13), (None, 13)])
def test_layers_are_counted_up_to_all_of_them(ngl, layers):
    plan = gpu.plan_layers(LoadOptions(ngl=ngl), INFO, NEEDS, _with(100 * GIB))
    assert (plan.layers, plan.variant, plan.preload, plan.notes) == (layers, CUDA, ("a",), ())


def test_as_many_as_fit_are_taken_with_a_note():
    plan = gpu.plan_layers(LoadOptions(ngl=None), INFO, NEEDS, _with(8 * GIB))
    assert plan.layers == 6  # 0.9 * 8 GiB, less 1 for scratch, at 1 a layer
    assert "6 of 13 layers" in plan.notes[0]


def test_no_room_at_all_is_the_cpu():
    plan = gpu.plan_layers(LoadOptions(ngl=None), INFO, NEEDS, _with(GIB))
    assert (plan.layers, plan.variant) == (0, None)
    assert plan.notes[0].startswith("no GPU layers: 0 of 13")


def test_more_layers_than_fit_are_refused_saying_how_many_would():
    with pytest.raises(GpuUnavailable, match="ngl 6 would fit"):
        gpu.plan_layers(LoadOptions(ngl=9), INFO, NEEDS, _with(8 * GIB))


def test_loading_with_layers_and_no_gpu_raises_and_the_process_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.gpu_trial, "open_driver", lambda _open: None)
    path = make_llama(tmp_path / "m.gguf")
    with pytest.raises(GpuUnavailable) as caught:
        load(path, LoadOptions(ctx_len=32, threads=1, ngl=5), "ctransformers")
    assert caught.value.missing == "driver"
    options = LoadOptions(ctx_len=32, threads=1, ngl=5, gpu_fallback=True)
    runtime = load(path, options, "ctransformers")
    runtime.close()
    assert runtime.report.gpu_layers == 0
    assert any("ngl 5 was asked for" in note for note in runtime.report.notes)


def test_opening_the_driver_library_is_tried_under_all_its_names():
    tried = []

    def open_library(name: str):
        tried.append(name)
        raise OSError

    assert gpu_trial.open_driver(open_library) is None
    assert tuple(tried) == gpu_trial.DRIVER_NAMES
