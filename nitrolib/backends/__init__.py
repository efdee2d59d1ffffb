"""The backends, and which of them runs a file: the only package that touches native libraries.

A backend is a small entry of `_BACKENDS`; its module is imported when it is used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BackendUnavailable, InvalidRequest, ModelFileError
from .base import Feed, LoadOptions, LoraAdapter, Output, Runtime, RuntimeReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..gguf import GGUFFile

__all__ = [
    "BackendInfo",
    "Choice",
    "Feed",
    "LoadOptions",
    "LoraAdapter",
    "Output",
    "Runtime",
    "RuntimeReport",
    "available",
    "choose",
    "choose_file",
    "load",
]


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend for a file, and why it is this one, in words for `status()`."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """A backend on this machine. `variants` are the library builds that are installed, `library`
    the one a CPU run would use; if not `usable`, `reason` says why and `hint` what to do."""

    name: str
    version: str | None
    variants: tuple[str, ...]
    library: str | None
    usable: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Backend:
    """What the registry knows without importing the backend's module. `verify` raises
    ModelFileError for a file that `load` must not be given."""

    load: Callable[[str, LoadOptions, GGUFFile], Runtime]
    verify: Callable[[GGUFFile], object]
    describe: Callable[[], BackendInfo]


def load(
    path: str | os.PathLike[str], options: LoadOptions | None = None, backend: str = "auto"
) -> Runtime:
    """Load a model with the backend that `choose` names.

    Raises ModelFileError, InvalidRequest, or ModelLoadError and its kinds (BackendUnavailable,
    GpuUnavailable, NotEnoughMemory); never anything native.
    """
    file, choice = _choose(os.fspath(path), backend)
    return _BACKENDS[choice.backend].load(file.path, options or LoadOptions(), file)


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
    for name, entry in _BACKENDS.items():
        try:
            entry.verify(file)
        except ModelFileError as error:
            if not getattr(error, "unsupported", False):
                raise
            refusal = error
            continue
        return Choice(name, "the file passes its rule")
    raise _nothing_runs(file.path, refusal) from refusal


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


def _nothing_runs(path: str, refusal: ModelFileError) -> BackendUnavailable:
    return BackendUnavailable(
        f"{refusal.message}. The file is sound, but no backend of this version of nitrolib runs "
        "it; llama-cpp-python is the package that runs such models, and nitrolib has no backend "
        "for it yet",
        path=path,
        reason=refusal.message,
        backend="auto",
        hint="a Llama, Llama 2, Mistral 7B, TinyLlama or Vicuna file with a SentencePiece "
        "vocabulary; or llama-cpp-python by itself",
    )


# ctransformers ------------------------------------------------------------------------------------


def _load_ctransformers(path: str, options: LoadOptions, file: GGUFFile) -> Runtime:
    from . import ctransformers

    return ctransformers.load(path, options, file)


def _verify_ctransformers(file: GGUFFile) -> object:
    from ..gguf import CTRANSFORMERS, verify_file

    return verify_file(file, CTRANSFORMERS)


def _describe_ctransformers() -> BackendInfo:
    import importlib.metadata  # costs as much as all of this package, and only this needs it

    from . import library

    try:
        version: str | None = importlib.metadata.version(library.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = None
    variants = library.installed_variants()
    names = tuple(variant.name for variant in variants)
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
        )
    return BackendInfo(
        name="ctransformers", version=version, variants=names, library=chosen.name, usable=True
    )


_BACKENDS = {
    "ctransformers": _Backend(_load_ctransformers, _verify_ctransformers, _describe_ctransformers),
}
