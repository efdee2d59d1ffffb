"""Which devices the installed library can use, and how many layers go to a GPU."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import GpuUnavailable, InvalidRequest
from ..memory import megabytes
from .bindings import PACKAGE

if TYPE_CHECKING:
    from ...gguf import ModelInfo
    from ..base import LoadOptions
    from ..memory import MemoryPlan
    from .bindings import Native

_logger = logging.getLogger(__name__)

_GPU, _INTEGRATED = 1, 2  # ggml_backend_dev_type
# What a driver keeps for itself and rounding takes.
_USABLE_SHARE = 0.92
GPU_HINT = (
    f"build it for the GPU: CMAKE_ARGS='-DGGML_CUDA=on' pip install {PACKAGE} "
    "--force-reinstall --no-cache-dir"
)


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as the library sees it; bytes as the driver gave them just now."""

    name: str
    description: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Layers for the GPU, counted as the library does: those of the model, and one for the output
    matrix; 0 is the CPU alone. `notes` say what differs from what was asked for."""

    layers: int
    device: str = "CPU"
    notes: tuple[str, ...] = ()


def gpus(native: Native) -> tuple[Device, ...]:
    """The GPUs that the library can use."""
    found = []
    for number in range(native.device_count()):
        device = native.device_get(number)
        if native.device_type(device) not in (_GPU, _INTEGRATED):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        native.device_memory(device, ctypes.addressof(free), ctypes.addressof(total))
        found.append(
            Device(
                (native.device_name(device) or b"").decode(errors="replace"),
                (native.device_description(device) or b"").decode(errors="replace"),
                free.value,
                total.value,
            )
        )
    return tuple(found)


def builds(native: Native) -> tuple[str, ...]:
    """What the library was built for: "CPU", "CUDA", "Metal", "Vulkan", ..."""
    names = [native.reg_name(native.reg_get(number)) for number in range(native.reg_count())]
    return tuple((name or b"").decode(errors="replace") for name in names)


def has_gpu_build(native: Native) -> bool:
    """Whether the library was built for a GPU, be there one or not."""
    return any(name not in ("CPU", "BLAS", "RPC") for name in builds(native))


def plan_layers(native: Native, options: LoadOptions, info: ModelInfo, needs: MemoryPlan) -> Layers:
    """How many layers go to the GPU.

    Raises GpuUnavailable for a positive `ngl` that cannot be honoured, unless `gpu_fallback`
    allows the CPU, and InvalidRequest for a GPU or a split that is not there.
    """
    if options.ngl == 0:
        _check_devices(options, ())
        return Layers(layers=0)
    found = gpus(native)
    if not found:
        return _without(native, options)
    _check_devices(options, found)
    if options.main_gpu and not options.tensor_split:
        found = (found[options.main_gpu],)  # that one takes all
    most = info.n_layer + 1
    wanted = most if options.ngl is None else min(options.ngl, most)
    fit = _fitting(info, needs, found)
    name = found[0].name if len(found) == 1 else f"{len(found)} GPUs"
    if wanted <= fit:
        return Layers(layers=wanted, device=name)
    free = megabytes(sum(device.free_bytes for device in found))
    room = f"{fit} of {wanted} layers fit into {free} of GPU memory"
    if options.ngl is not None:
        return _refuse(options, "device", room, f"ngl {fit} would fit")
    if fit == 0:
        return Layers(layers=0, notes=(f"no GPU layers: {room}",))
    return Layers(layers=fit, device=name, notes=(room,))


def _without(native: Native, options: LoadOptions) -> Layers:
    if has_gpu_build(native):
        reason = f"{PACKAGE} finds no GPU that it can use"
        hint = "no GPU is visible to this process (driver, CUDA_VISIBLE_DEVICES, container options)"
        return _refuse(options, "device", reason, hint)
    return _refuse(options, "library", f"{PACKAGE} is built for the CPU alone", GPU_HINT)


def _refuse(options: LoadOptions, missing: str, reason: str, hint: str) -> Layers:
    asked = options.ngl is not None or options.main_gpu or options.tensor_split
    if not asked:
        return Layers(layers=0, notes=(f"no GPU layers: {reason}",))
    if options.gpu_fallback:
        note = f"no GPU layers although {_asked(options)} was asked for: {reason}"
        _logger.warning("%s; %s", note, hint)
        return Layers(layers=0, notes=(note,))
    raise GpuUnavailable(
        f"{_asked(options)} cannot be honoured: {reason}; {hint}",
        reason=reason,
        missing=missing,
        hint=hint,
    )


def _asked(options: LoadOptions) -> str:
    if options.ngl is not None:
        return f"ngl {options.ngl}"
    split = options.tensor_split
    return f"tensor_split {split}" if split else f"main_gpu {options.main_gpu}"


def _check_devices(options: LoadOptions, found: tuple[Device, ...]) -> None:
    names = ", ".join(f"{number} {device.name}" for number, device in enumerate(found)) or "none"
    if options.main_gpu and options.main_gpu >= len(found):
        raise InvalidRequest(
            f"there is no GPU {options.main_gpu}",
            field="main_gpu",
            value=options.main_gpu,
            allowed=names,
        )
    split = options.tensor_split
    if split and (len(split) > len(found) or not _is_split(split)):
        raise InvalidRequest(
            f"tensor_split {split} is no split over {len(found)} GPUs",
            field="tensor_split",
            value=split,
            allowed=f"a part of 0 or more for each of {names}, not all 0",
        )


def _is_split(parts: tuple[float, ...]) -> bool:
    return all(0 <= part < float("inf") for part in parts) and sum(parts) > 0


def _fitting(info: ModelInfo, needs: MemoryPlan, found: tuple[Device, ...]) -> int:
    """Layers that fit beside the scratch, with their part of the KV cache."""
    left = int(sum(device.free_bytes for device in found) * _USABLE_SHARE) - needs.scratch
    a_layer = needs.weights // (info.n_layer + 1) + needs.kv_cache // info.n_layer
    return max(0, min(info.n_layer + 1, left // max(1, a_layer)))
