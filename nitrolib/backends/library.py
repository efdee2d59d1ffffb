"""Which of ctransformers' shared libraries to open, and the opened one: at most one of each file in
a process, with its log, its lock and its count of native contexts.

The `ctransformers` package itself is never imported: its __init__ brings in a hub client, and its
own choice of a library starts child processes at every load.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import logging
import platform
import sys
import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import BackendUnavailable, ModelLoadError
from .native import LogCallback, Native, bind

PACKAGE = "ctransformers"
INSTALL_HINT = "pip install 'ctransformers>=0.2.27,<0.3'"
BUILD_HINT = "pip install 'ctransformers>=0.2.27,<0.3' --no-binary ctransformers"

Device = Literal["cpu", "cuda", "metal"]

_logger = logging.getLogger("nitrolib.native")


# Finding ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variant:
    """One library file of the installed package. `device` is what it needs to be opened at all:
    a CUDA build ends the process where there is no CUDA."""

    name: str
    path: Path
    device: Device


def package_folder() -> Path | None:
    """Where ctransformers is installed, without importing it; None if it is not."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def installed_variants(folder: Path | None = None) -> tuple[Variant, ...]:
    """The libraries for this platform that lie in the package, in the order of their names."""
    folder = package_folder() if folder is None else folder
    if folder is None:
        return ()
    found = sorted(folder.glob(f"lib/*/{_file_name()}"))
    return tuple(
        Variant(path.parent.name, path, _device(path, path.stat().st_mtime_ns)) for path in found
    )


def _file_name() -> str:
    if sys.platform == "win32":
        return "ctransformers.dll"
    return "libctransformers.dylib" if sys.platform == "darwin" else "libctransformers.so"


@functools.cache
def _device(path: Path, _mtime_ns: int) -> Device:
    """What a library was built for, by the names it exports: read, not opened, because opening
    is what must not happen by mistake. Once for each state of the file."""
    content = path.read_bytes()
    if b"ggml_init_cublas" in content:
        return "cuda"
    return "metal" if b"ggml_metal_init" in content else "cpu"


def cpu_variant(variants: tuple[Variant, ...], features: frozenset[str] | None = None) -> Variant:
    """The fastest library this processor can run without a GPU.

    One that was built on this machine ("local") comes first. Raises BackendUnavailable where there
    is none, saying what to install.
    """
    by_name = {variant.name: variant for variant in variants if variant.device != "cuda"}
    features = cpu_features() if features is None else features
    for name in ("local", *_runnable(features)):
        if name in by_name:
            return by_name[name]
    raise _none_found(variants)


def _runnable(features: frozenset[str]) -> list[str]:
    """Names of the wheel's libraries that run with `features`, the fastest first.

    The wheel has x86 builds for every system, and the macOS "basic" one holds Arm code as well.
    """
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        return ["basic"] if sys.platform == "darwin" and machine == "arm64" else []
    names = ["basic"]
    if {"avx", "f16c"} <= features:
        names.insert(0, "avx")
        if {"avx2", "fma"} <= features:
            names.insert(0, "avx2")
    return names


def _none_found(variants: tuple[Variant, ...]) -> BackendUnavailable:
    system = f"{platform.system()} {platform.machine()}"
    if package_folder() is None and not variants:
        reason, hint = "ctransformers is not installed", INSTALL_HINT
    else:
        reason, hint = f"ctransformers has no library for {system}", BUILD_HINT
    return BackendUnavailable(f"{reason}: {hint}", reason=reason, backend=PACKAGE, hint=hint)


def cpu_features() -> frozenset[str]:
    """Which of "avx", "f16c", "avx2", "fma" this processor has, by numpy's own detection."""
    try:
        core = importlib.import_module("numpy._core._multiarray_umath")
    except ImportError:  # numpy 1
        core = importlib.import_module("numpy.core._multiarray_umath")
    known: dict[str, bool] = getattr(core, "__cpu_features__", {})
    if known.get("X86_V3"):  # the level that contains them all, and replaces their names
        return frozenset({"avx", "f16c", "avx2", "fma"})
    names = {"AVX": "avx", "F16C": "f16c", "AVX2": "avx2", "FMA3": "fma"}
    return frozenset(ours for theirs, ours in names.items() if known.get(theirs))


def find_library() -> Path:
    """The file that `load` would open for a CPU run. Raises BackendUnavailable."""
    return cpu_variant(installed_variants()).path


# Opening ------------------------------------------------------------------------------------------


class NativeLog:
    """What the library says: to the logger "nitrolib.native" at DEBUG, and the last lines kept, so
    that a failed load can be reported with the native reason."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=64)
        self._partial = ""
        # ctypes keeps no reference: this one must live as long as the library may log.
        self.callback = LogCallback(self._receive)

    def _receive(self, _level: int, text: bytes | None, _data: int | None) -> None:
        self._partial += (text or b"").decode(errors="replace")
        *whole, self._partial = self._partial.split("\n")
        for line in whole:
            self.lines.append(line)
            _logger.debug("%s", line)

    def clear(self) -> None:
        """Forget what was said so far: what follows belongs to one load."""
        self.lines.clear()
        self._partial = ""

    def reason(self) -> str:
        """The line that tells why a load failed; "" if the library gave none."""
        marks = ("error", "failed", "invalid", "unable", "cannot")
        told = [line for line in self.lines if any(mark in line.lower() for mark in marks)]
        return told[0].removeprefix("error loading model: ").strip() if told else ""


class ContextBudget:
    """Places in the library's fixed table of 64 contexts; the 65th ends the process.

    A model takes one, each of its contexts one, and each evaluation one while it runs. Three are
    kept for the loading under way, of which there is one at a time.
    """

    TABLE, LOADING = 64, 3

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def free(self) -> int:
        """Places that can still be taken."""
        return self.TABLE - self.LOADING - self._taken

    def take(self, places: int) -> None:
        """Take `places` or raise ModelLoadError."""
        with self._lock:
            if places > self.free:
                raise ModelLoadError(
                    f"the native library holds {self.TABLE} contexts in a process: this model "
                    f"needs {places} and {self.free} are left; fewer n_parallel would fit, or "
                    "another process",
                    reason="too many native contexts",
                    needed=places,
                    left=self.free,
                )
            self._taken += places

    def give(self, places: int) -> None:
        """Give back what `take` took."""
        with self._lock:
            self._taken -= places


class Library:
    """An opened library. `loading` is held while a model is loaded or a context made.

    `turn` is held around everything that touches a GPU: a GPU build has one scratch memory and
    one pool for all its models. It may be taken again by its holder, since memory is freed
    wherever its last user lets go. For a CPU build it is no lock at all.
    """

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        try:
            handle = ctypes.CDLL(str(variant.path))
        except OSError as error:
            raise BackendUnavailable(
                f"{variant.path} cannot be opened: {error}",
                reason=str(error),
                backend=PACKAGE,
                hint=f"on musl, or with a glibc before 2.29: {BUILD_HINT}",
            ) from error
        self.native: Native = bind(handle, str(variant.path))
        self.log = NativeLog()
        self.budget = ContextBudget()
        self.loading = threading.Lock()
        self.turn = _turn(variant)
        self.native.llama_log_set(self.log.callback, None)
        self.native.llama_backend_init(False)


def _turn(variant: Variant) -> AbstractContextManager[object]:
    return nullcontext() if variant.device == "cpu" else threading.RLock()


_opened: dict[Path, Library] = {}
_opening = threading.Lock()


def open_library(variant: Variant) -> Library:
    """The library of `variant`, opened at the first call; raises BackendUnavailable.

    A variant whose device is "cuda" may only be given after `gpu.probe` found one.
    """
    path = variant.path.resolve()
    with _opening:
        if path not in _opened:
            _opened[path] = Library(variant)
        return _opened[path]


def forget_locks() -> None:
    """In the child of a fork: whoever held a lock exists no more."""
    global _opening
    _opening = threading.Lock()
    for library in _opened.values():
        library.loading = threading.Lock()
        library.turn = _turn(library.variant)
