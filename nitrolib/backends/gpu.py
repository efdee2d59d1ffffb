"""Whether GPU layers can be used here, and how many: found out before the CUDA library is opened,
because that library answers a missing driver or device, and a full one, with exit(1).

CUDA is tried in a child process (`gpu_trial`). Metal needs no trial: it fails cleanly.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import GpuUnavailable
from . import gpu_trial
from .library import BUILD_HINT, Variant, installed_variants
from .memory import megabytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..gguf import ModelInfo
    from .base import LoadOptions
    from .memory import MemoryPlan

Missing = Literal["driver", "device", "library"]

_WINDOWS = sys.platform == "win32"
RUNTIME_NAMES = (
    ("cudart64_12.dll", "cublas64_12.dll") if _WINDOWS else ("libcudart.so.12", "libcublas.so.12")
)
_RUNTIME_FOLDERS = ("cuda_runtime", "cublas")
_HINTS = {
    "driver": "install the NVIDIA driver, for CUDA 12 or newer",
    "device": "no GPU is visible to this process (CUDA_VISIBLE_DEVICES, container options)",
    "library": "pip install nvidia-cuda-runtime-cu12 nvidia-cublas-cu12",
}
# Weights are uploaded in one piece each and the allocator rounds up.
_USABLE_SHARE = 0.9
_TRIAL_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """A CUDA device; bytes as the driver gave them when it was asked."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProbe:
    """What `probe` found. If `usable`, `variant` is the library to open after `preload`; else
    `missing` is what is not there, `reason` how that was seen and `hint` what to do."""

    usable: bool
    variant: Variant | None = None
    preload: tuple[str, ...] = ()
    devices: tuple[GpuDevice, ...] = ()
    missing: Missing | None = None
    reason: str = ""
    hint: str = ""


def probe(
    variants: tuple[Variant, ...] | None = None,
    *,
    open_library: Callable[[str], Any] = ctypes.CDLL,
    trial: Callable[[Iterable[str]], dict[str, Any]] | None = None,
) -> GpuProbe:
    """Look for a GPU: driver, CUDA libraries, then a trial in a child process.

    Cheap where there is no driver; with one, the trial takes about a second. `open_library` and
    `trial` are for tests.
    """
    variants = installed_variants() if variants is None else variants
    if sys.platform == "darwin":
        return _probe_metal(variants)
    if gpu_trial.open_driver(open_library) is None:
        return _without("driver", "there is no NVIDIA driver")
    variant = _preferred(variants, "cuda")
    if variant is None:
        return _without(
            "library", "ctransformers has no CUDA library here", f"CT_CUBLAS=1 {BUILD_HINT}"
        )
    preload = _runtime_libraries(open_library)
    if preload is None:
        return _without("library", f"{' or '.join(RUNTIME_NAMES)} cannot be opened")
    answer = (trial or run_trial)([*preload, str(variant.path)])
    if "devices" not in answer:
        return _without(answer["missing"], answer["reason"])
    devices = tuple(
        GpuDevice(device["name"], device["free_bytes"], device["total_bytes"])
        for device in answer["devices"]
    )
    return GpuProbe(usable=True, variant=variant, preload=preload, devices=devices)


def _probe_metal(variants: tuple[Variant, ...]) -> GpuProbe:
    variant = _preferred(variants, "metal")
    if variant is None:
        return _without(
            "library", "ctransformers was not built for Metal", f"CT_METAL=1 {BUILD_HINT}"
        )
    return GpuProbe(usable=True, variant=variant)


def _preferred(variants: tuple[Variant, ...], device: str) -> Variant | None:
    """The library for `device`, the one built on this machine first."""
    fitting = [variant for variant in variants if variant.device == device]
    return min(fitting, key=lambda variant: variant.name != "local", default=None)


def _without(missing: Missing, reason: str, hint: str | None = None) -> GpuProbe:
    return GpuProbe(usable=False, missing=missing, reason=reason, hint=hint or _HINTS[missing])


def _runtime_libraries(open_library: Callable[[str], Any]) -> tuple[str, ...] | None:
    """What must be opened before the CUDA library: names the system finds by itself, or files of
    the nvidia cu12 packages; None if they are nowhere."""
    found = []
    for name, folder in zip(RUNTIME_NAMES, _RUNTIME_FOLDERS, strict=True):
        for candidate in (name, *_packaged(folder, name)):
            try:
                open_library(candidate)
            except OSError:
                continue
            found.append(candidate)
            break
        else:
            return None
    return tuple(found)


def _packaged(folder: str, name: str) -> list[str]:
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(root) / folder / ("bin" if _WINDOWS else "lib") / name for root in roots]
    return [str(file) for file in files if file.is_file()]


def run_trial(libraries: Iterable[str]) -> dict[str, Any]:
    """Run `gpu_trial` in a child process and return its answer; a child that died, hung or could
    not be started is an answer too."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return {"missing": "device", "reason": "no Python to try CUDA with in a process of its own"}
    command = [sys.executable, "-I", gpu_trial.__file__, *libraries]
    try:
        child = subprocess.run(  # noqa: S603 - our own script, no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRIAL_TIMEOUT_S,
            check=False,
        )
        answer = json.loads(child.stdout) if child.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return {"missing": "device", "reason": f"the trial of CUDA failed: {error}"}
    if not isinstance(answer, dict):
        told = child.stderr.decode(errors="replace").strip().splitlines()
        reason = told[-1] if told else f"the trial of CUDA ended with code {child.returncode}"
        return {"missing": "device", "reason": reason}
    return answer


# Deciding -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPlan:
    """Layers for the GPU and the library for them; `layers` 0 is the CPU alone. `notes` say what
    differs from what was asked."""

    layers: int
    variant: Variant | None = None
    preload: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan_layers(
    options: LoadOptions,
    info: ModelInfo,
    memory: MemoryPlan,
    find: Callable[[], GpuProbe] = probe,
) -> GpuPlan:
    """How many layers go to the GPU.

    Layers are counted as the library does: n_layer of them, one more for the output matrix, two
    more for the KV cache. Raises GpuUnavailable for a positive `ngl` that cannot be honoured,
    unless `gpu_fallback` allows the CPU.
    """
    if options.ngl == 0:
        return GpuPlan(layers=0)
    found = find()
    if not found.usable:
        return _refuse(options, found.missing, found.reason, found.hint)
    most = info.n_layer + 3
    fit = most if not found.devices else _fitting(info, memory, found.devices[0].free_bytes)
    wanted = most if options.ngl is None else min(options.ngl, most)
    if wanted > fit:
        free = megabytes(found.devices[0].free_bytes)
        room = f"{fit} of {wanted} layers fit into {free} of GPU memory"
        if options.ngl is not None:
            return _refuse(options, "device", room, f"ngl {fit} would fit")
        if fit == 0:
            return GpuPlan(layers=0, notes=(f"no GPU layers: {room}",))
        return GpuPlan(layers=fit, variant=found.variant, preload=found.preload, notes=(room,))
    return GpuPlan(layers=wanted, variant=found.variant, preload=found.preload)


def _refuse(options: LoadOptions, missing: Missing | None, reason: str, hint: str) -> GpuPlan:
    if options.ngl is None or options.gpu_fallback:
        asked = "" if options.ngl is None else f" although ngl {options.ngl} was asked for"
        return GpuPlan(layers=0, notes=(f"no GPU layers{asked}: {reason}",))
    raise GpuUnavailable(
        f"ngl {options.ngl} cannot be honoured: {reason}; {hint}",
        reason=reason,
        missing=missing,
        hint=hint,
    )


def _fitting(info: ModelInfo, memory: MemoryPlan, free_bytes: int) -> int:
    """Layers, in the library's count, that fit into `free_bytes` beside the scratch."""
    left = int(free_bytes * _USABLE_SHARE) - memory.scratch
    a_layer = max(1, memory.weights // (info.n_layer + 1))
    steps = [a_layer] * (info.n_layer + 1) + [memory.kv_cache // 2 + 1] * 2
    for layers, size in enumerate(steps):
        left -= size
        if left < 0:
            return layers
    return len(steps)
