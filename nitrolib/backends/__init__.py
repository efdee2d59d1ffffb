"""The backends, and which of them runs a file: the only package that touches native libraries.

A backend is a small entry of `_BACKENDS`; its module is imported when it is used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import BackendUnavailable, InvalidRequest, ModelFileError, NitroError
from .base import Feed, LoadOptions, LoraAdapter, Output, Runtime, RuntimeReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..gguf import GGUFFile, ModelInfo
    from .memory import MemoryPlan

__all__ = [
    "BackendInfo",
    "Choice",
    "Feed",
    "Layers",
    "LoadOptions",
    "LoraAdapter",
    "Needs",
    "Output",
    "Runtime",
    "RuntimeReport",
    "available",
    "choose",
    "choose_file",
    "gpu_layers",
    "load",
    "needs",
]


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend for a file, and why it is this one, in words for `status()`."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """A backend on this machine. `variants` are the library builds that are installed, `library`
    the one a CPU run would use, and `gpu` whether any of them was built for a GPU; if not `usable`,
    `reason` says why and `hint` what to do."""

    name: str
    version: str | None
    variants: tuple[str, ...]
    library: str | None
    usable: bool
    reason: str = ""
    hint: str = ""
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Needs:
    """What loading a file takes: the context of a slot in tokens, the memory, and what differs from
    what was asked for."""

    n_ctx: int
    memory: MemoryPlan
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers that go to a GPU of this machine, and what differs from what was asked for."""

    count: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Backend:
    """What the registry knows without importing the backend's module. `verify` raises
    ModelFileError for a file that `load` must not be given, `open` BackendUnavailable where the
    library is missing or cannot run here. `needs` and `layers` foresee what `load` does.
    `strength` says why a choice falls on it."""

    load: Callable[[str, LoadOptions, GGUFFile], Runtime]
    verify: Callable[[GGUFFile], object]
    open: Callable[[], object]
    describe: Callable[[], BackendInfo]
    needs: Callable[[LoadOptions, ModelInfo], Needs]
    layers: Callable[[LoadOptions, ModelInfo, MemoryPlan], Layers]
    strength: str


def load(
    path: str | os.PathLike[str], options: LoadOptions | None = None, backend: str = "auto"
) -> Runtime:
    """Load a model with the backend that `choose` names.

    Raises ModelFileError, InvalidRequest, or ModelLoadError and its kinds (BackendUnavailable,
    GpuUnavailable, NotEnoughMemory); never anything native.
    """
    file, choice = _choose(os.fspath(path), backend)
    runtime = _BACKENDS[choice.backend].load(file.path, options or LoadOptions(), file)
    runtime.report = replace(runtime.report, reason=choice.reason)
    return runtime


def choose(path: str | os.PathLike[str], backend: str = "auto") -> Choice:
    """The backend that would load the file at `path`, and why; the file is verified for it.

    Raises ModelFileError for a damaged file (and, when a backend is named, for one that it cannot
    run), BackendUnavailable for a sound file that no installed backend runs.
    """
    return _choose(os.fspath(path), backend)[1]


def _choose(path: str, backend: str) -> tuple[GGUFFile, Choice]:
    from ..gguf import open_gguf

    if backend != "auto":
        _checked(backend)
    file = open_gguf(path)
    return file, choose_file(file, backend)


def choose_file(file: GGUFFile, backend: str = "auto") -> Choice:
    """As `choose`, for a header that was read already, also of a file that is not here yet."""
    if backend != "auto":
        _BACKENDS[_checked(backend)].verify(file)
        return Choice(backend, "it was asked for")
    refusals: dict[str, NitroError] = {}
    for name, entry in _BACKENDS.items():
        refusal = _refusal(entry, file)
        if refusal is None:
            return Choice(name, _why(entry, refusals))
        refusals[name] = refusal
    raise _nothing_runs(file.path, refusals)


def _refusal(entry: _Backend, file: GGUFFile) -> NitroError | None:
    """Why a backend cannot run a file, or None; raises ModelFileError for a damaged one."""
    try:
        entry.verify(file)
        entry.open()
    except ModelFileError as error:
        if not error.unsupported:
            raise
        return error
    except BackendUnavailable as error:
        return error
    return None


def _why(entry: _Backend, refusals: dict[str, NitroError]) -> str:
    """Why the choice falls on `entry`: its strength, and what is wrong with those before it."""
    others = [
        f"{name} does not: {getattr(error, 'reason', None) or error.message}"
        for name, error in refusals.items()
    ]
    return "; ".join([entry.strength, *others])


def needs(info: ModelInfo, options: LoadOptions, backend: str) -> Needs:
    """What loading a verified file with `options` would take; nothing is loaded. Raises
    InvalidRequest for options that `backend` cannot honour."""
    return _BACKENDS[_checked(backend)].needs(options, info)


def gpu_layers(info: ModelInfo, options: LoadOptions, memory: MemoryPlan, backend: str) -> Layers:
    """How many layers would go to a GPU; raises GpuUnavailable as `load` would."""
    return _BACKENDS[_checked(backend)].layers(options, info, memory)


def available() -> tuple[BackendInfo, ...]:
    """Every backend known to this version, usable or not, for `nitro doctor`."""
    return tuple(entry.describe() for entry in _BACKENDS.values())


def _checked(backend: str) -> str:
    if backend in _BACKENDS:
        return backend
    raise InvalidRequest(
        f"there is no backend {backend!r}",
        field="backend",
        value=backend,
        allowed=", ".join(["auto", *_BACKENDS]),
    )


def _nothing_runs(path: str, refusals: dict[str, NitroError]) -> BackendUnavailable:
    """The file is sound, and this says for each backend why it does not run it, and what would."""
    told = "; ".join(f"{name}: {error.message}" for name, error in refusals.items())
    missing = [error for error in refusals.values() if isinstance(error, BackendUnavailable)]
    hints = [hint for error in missing if (hint := getattr(error, "hint", ""))]
    would = " or ".join(hints) or "no backend of this version of nitrolib runs such a model"
    return BackendUnavailable(
        f"no backend that is installed runs {path}. {told}. What would: {would}",
        path=path,
        reason=told,
        backend="auto",
        hint=would,
    )


# ctransformers ------------------------------------------------------------------------------------


def _load_ctransformers(path: str, options: LoadOptions, file: GGUFFile) -> Runtime:
    from . import ctransformers

    return ctransformers.load(path, options, file)


def _verify_ctransformers(file: GGUFFile) -> object:
    from ..gguf import CTRANSFORMERS, verify_file

    return verify_file(file, CTRANSFORMERS)


def _open_ctransformers() -> object:
    from . import library

    return library.cpu_variant(library.installed_variants())


def _needs_ctransformers(options: LoadOptions, info: ModelInfo) -> Needs:
    from . import ctransformers

    ctransformers.check_options(options)
    n_ctx, notes = ctransformers.context_length(options, info)
    return Needs(n_ctx, ctransformers.memory_plan(options, info, n_ctx), notes)


def _layers_ctransformers(options: LoadOptions, info: ModelInfo, memory: MemoryPlan) -> Layers:
    from . import gpu

    plan = gpu.plan_layers(options, info, memory)
    return Layers(plan.layers, plan.notes)


def _describe_ctransformers() -> BackendInfo:
    import importlib.metadata  # costs as much as all of this package, and only this needs it

    from . import library

    try:
        version: str | None = importlib.metadata.version(library.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = None
    variants = library.installed_variants()
    names = tuple(variant.name for variant in variants)
    gpu = any(variant.device != "cpu" for variant in variants)
    try:
        chosen = library.cpu_variant(variants)
        library.open_library(chosen)
    except BackendUnavailable as error:
        return BackendInfo(
            name="ctransformers",
            version=version,
            variants=names,
            library=None,
            usable=False,
            reason=error.reason,
            hint=getattr(error, "hint", ""),
            gpu=gpu,
        )
    return BackendInfo(
        name="ctransformers",
        version=version,
        variants=names,
        library=chosen.name,
        usable=True,
        gpu=gpu,
    )


# llama-cpp-python ---------------------------------------------------------------------------------


def _load_llama_cpp(path: str, options: LoadOptions, file: GGUFFile) -> Runtime:
    from . import llama_cpp

    return llama_cpp.load(path, options, file)


def _verify_llama_cpp(file: GGUFFile) -> object:
    from ..gguf import LLAMA_CPP, verify_file

    return verify_file(file, LLAMA_CPP)


def _open_llama_cpp() -> object:
    from .llama_cpp import bindings

    return bindings.native()


def _needs_llama_cpp(options: LoadOptions, info: ModelInfo) -> Needs:
    from .llama_cpp import plan

    found = plan.sizes(options, info)
    return Needs(found.n_ctx, plan.memory_plan(options, info), found.notes)


def _layers_llama_cpp(options: LoadOptions, info: ModelInfo, memory: MemoryPlan) -> Layers:
    from .llama_cpp import bindings, devices

    plan = devices.plan_layers(bindings.native(), options, info, memory)
    return Layers(plan.layers, plan.notes)


def _describe_llama_cpp() -> BackendInfo:
    from .llama_cpp import bindings, devices

    version = bindings.installed_version()
    try:
        native = bindings.native()
    except BackendUnavailable as error:
        return BackendInfo(
            name=bindings.PACKAGE,
            version=version,
            variants=(),
            library=None,
            usable=False,
            reason=error.reason,
            hint=getattr(error, "hint", ""),
        )
    return BackendInfo(
        name=bindings.PACKAGE,
        version=version,
        variants=devices.builds(native),
        library="CPU",
        usable=True,
        gpu=devices.has_gpu_build(native),
    )


# In the order in which "auto" asks them.
_BACKENDS = {
    "llama-cpp-python": _Backend(
        _load_llama_cpp,
        _verify_llama_cpp,
        _open_llama_cpp,
        _describe_llama_cpp,
        _needs_llama_cpp,
        _layers_llama_cpp,
        "it is installed and runs this file",
    ),
    "ctransformers": _Backend(
        _load_ctransformers,
        _verify_ctransformers,
        _open_ctransformers,
        _describe_ctransformers,
        _needs_ctransformers,
        _layers_ctransformers,
        "it runs this file",
    ),
}
