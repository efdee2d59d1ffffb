"""LoRA adapters: their files, proved before native code sees them, and their strengths in a
context."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InvalidRequest, ModelLoadError
from ...gguf import FileIdentity, open_gguf
from .log import reason
from .opening import native_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...gguf import GGUFFile, ModelInfo
    from ..base import LoraAdapter
    from ..handle import Handle
    from .bindings import Native

_TYPES = frozenset({"F32", "F16", "BF16", "Q8_0", "Q4_0"})  # what adapters are written in


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter whose file was proved, and the state it was in then."""

    adapter: LoraAdapter
    identity: FileIdentity


def verify_adapters(adapters: Sequence[LoraAdapter], info: ModelInfo) -> tuple[AdapterFile, ...]:
    """Prove that the files are LoRA adapters for the model. Raises ModelFileError, and
    InvalidRequest for a strength that is no finite number."""
    check_scales(tuple(adapter.scale for adapter in adapters), len(adapters))
    return tuple(AdapterFile(adapter, _verified(adapter.path, info)) for adapter in adapters)


def _verified(path: str, info: ModelInfo) -> FileIdentity:
    file = open_gguf(path)
    _expect(file, "general.type", "adapter")
    _expect(file, "adapter.type", "lora")
    _expect(file, "general.architecture", info.architecture)
    alpha = file.metadata.number("adapter.lora.alpha")
    if alpha is None or not math.isfinite(alpha):
        file.fail(f"the value is {alpha}; a finite number is needed", key="adapter.lora.alpha")
    if "adapter.alora.invocation_tokens" in file.metadata:
        file.fail(
            "an adapter that certain tokens switch on is not supported",
            key="adapter.alora.invocation_tokens",
            unsupported=True,
        )
    _check_tensors(file)
    return file.identity


def _expect(file: GGUFFile, key: str, value: str) -> None:
    found = file.metadata.text(key)
    if found != value:
        file.fail(f"the value is {found!r}; a LoRA adapter here has {value!r}", key=key)


def _check_tensors(file: GGUFFile) -> None:
    """Pairs of matrices; which of the model they belong to, and whether they fit, the library
    checks itself."""
    if not file.tensors:
        file.fail("the adapter has no tensors")
    for name, tensor in file.tensors.items():
        base, _, half = name.rpartition(".lora_")
        other = f"{base}.lora_{'b' if half == 'a' else 'a'}"
        if half not in ("a", "b") or other not in file.tensors:
            file.fail("it is no half of a pair of lora_a and lora_b", tensor=name)
        if not 2 <= len(tensor.shape) <= 3 or tensor.type.name not in _TYPES:
            file.fail(f"shape {tensor.shape} of {tensor.type.name} is none of a pair", tensor=name)


def open_adapters(native: Native, model: Handle, files: Sequence[AdapterFile]) -> tuple[int, ...]:
    """Load adapters beside the model, which frees them with itself. Before a context is made: it
    makes room for those there are. Raises ModelLoadError."""
    return tuple(_open(native, model, file) for file in files)


def _open(native: Native, model: Handle, file: AdapterFile) -> int:
    path = file.adapter.path
    with native.log.reported() as errors:
        address: int | None = native.adapter_init(model.address, native_path(path))
    if not address:
        why = reason(errors) or "the library gave no reason"
        raise ModelLoadError(
            f"the adapter {path} could not be loaded: {why}", path=path, reason=why
        )
    if FileIdentity.of(path) != file.identity:
        raise ModelLoadError(
            f"{path} changed while it was loaded", path=path, reason="file changed"
        )
    return address


class AdapterSet:
    """The adapters of a context and how strongly each acts on its next evaluations."""

    def __init__(self, native: Native, context: int, addresses: tuple[int, ...]) -> None:
        self._native, self._context, self._addresses = native, context, addresses
        self._scales = (0.0,) * len(addresses)

    def use(self, scales: tuple[float, ...]) -> None:
        """Set all strengths. Raises InvalidRequest unless there is a finite one for each."""
        check_scales(scales, len(self._addresses))
        if scales == self._scales:
            return
        # One of strength 0 would still be computed.
        acting = [pair for pair in zip(self._addresses, scales, strict=True) if pair[1]]
        addresses = (ctypes.c_void_p * max(1, len(acting)))(*(address for address, _ in acting))
        factors = (ctypes.c_float * max(1, len(acting)))(*(scale for _, scale in acting))
        self._native.set_adapters(
            self._context, ctypes.addressof(addresses), len(acting), ctypes.addressof(factors)
        )
        self._scales = tuple(scales)


def check_scales(scales: tuple[float, ...], count: int) -> None:
    """Raise InvalidRequest unless there is a finite strength for each of `count` adapters."""
    if len(scales) != count or not all(map(_is_scale, scales)):
        raise InvalidRequest(
            f"{scales!r} are no strengths of {count} adapters",
            field="lora",
            value=scales,
            allowed=f"{count} finite numbers",
        )


def _is_scale(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e38  # false for NaN too
