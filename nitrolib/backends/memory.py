"""What loading a model takes, and what the machine has left: reckoned before anything is loaded,
because the native code answers a failed allocation by ending the process, and touches what it
allocated so late that the kernel may do so at the first long prompt."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelLoadError, NotEnoughMemory
from . import cgroup

if TYPE_CHECKING:
    from ..gguf import ModelInfo

# The nodes of the graph that the library builds at every evaluation, and their tables.
_GRAPH_BYTES = 2 << 20
# What is left for the rest of the program and the kernel.
_RESERVE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes that loading takes: the weights, and over all contexts the KV cache and scratch.

    mapped: whether the weights are pages of the mapped file. repacked: a second copy of weights,
        laid out for the kernels of the CPU.
    """

    weights: int
    kv_cache: int
    scratch: int
    mapped: bool
    repacked: int = 0

    @property
    def total(self) -> int:
        """Everything, mapped weights included."""
        return self.weights + self.repacked + self.kv_cache + self.scratch

    @property
    def anonymous(self) -> int:
        """What must really be free: pages of a mapped file can be dropped and read again."""
        return self.total - (self.weights if self.mapped else 0)


def reckon(info: ModelInfo, *, n_ctx: int, n_seq: int, n_batch: int, mmap: bool) -> MemoryPlan:
    """The plan for `n_seq` contexts of `n_ctx` tokens each.

    KV cache: keys and values, 2 bytes each, of n_embd / n_head * n_head_kv floats a layer and
    token. Scratch: the largest tensors of a batch, which are the logits and the attention scores.
    Measured against the library's own log; it errs on the high side.
    Raises ModelLoadError where layers times context overflow the library's 32-bit count.
    """
    if info.n_layer * n_ctx >= 1 << 31:
        raise ModelLoadError(
            f"{info.n_layer} layers times {n_ctx} tokens of context are more than the library "
            f"can count; at most {((1 << 31) - 1) // info.n_layer} tokens a slot",
            reason="context too large",
        )
    kv_cache = 4 * info.n_layer * n_ctx * info.head_size * info.n_head_kv
    widest = max(info.n_vocab, n_ctx * info.n_head)
    hidden = 6 * info.n_embd + 3 * info.n_ff
    scratch = 4 * n_batch * (widest + hidden) + _GRAPH_BYTES
    return MemoryPlan(
        weights=info.file_bytes, kv_cache=n_seq * kv_cache, scratch=n_seq * scratch, mapped=mmap
    )


def check(plan: MemoryPlan, path: str, available: int | None) -> str | None:
    """Raise NotEnoughMemory if `plan` does not fit; None for `available` is unknown, and passes.

    Returns a note if it fits, but only with the mapped file read from disk again and again.
    """
    if available is None:
        return None
    needed = plan.anonymous + _RESERVE_BYTES
    if needed > available:
        raise NotEnoughMemory(
            f"loading needs {megabytes(needed)} and {megabytes(available)} are free: a smaller "
            "ctx_len, fewer n_parallel"
            + ("" if plan.mapped else ", mmap")
            + " or a smaller model would fit",
            path=path,
            needed_bytes=needed,
            available_bytes=available,
        )
    if plan.mapped and plan.total > available:
        return (
            f"the model file has {megabytes(plan.weights)} and {megabytes(available)} are free: "
            "parts of it will be read from disk again and again"
        )
    return None


def megabytes(count: int) -> str:
    """`count` bytes in words for a message."""
    return f"{count / (1 << 20):,.0f} MiB"


def available_bytes() -> int | None:
    """Memory this process can still take without swapping; None where it cannot be told."""
    if sys.platform == "win32":
        return _windows_available()
    if sys.platform == "darwin":
        return _mac_available()
    amounts = [_linux_available(), cgroup.memory_left()]
    return min((amount for amount in amounts if amount is not None), default=None)


def _linux_available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("total_page_file", ctypes.c_uint64),
        ("available_page_file", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64),
        ("available_virtual", ctypes.c_uint64),
        ("available_extended", ctypes.c_uint64),
    )


def _windows_available() -> int | None:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    try:
        kernel = ctypes.CDLL("kernel32")
        answered = kernel.GlobalMemoryStatusEx(ctypes.byref(status))
    except (OSError, AttributeError):
        return None
    return int(status.available) if answered else None


def _mac_available() -> int | None:
    """The whole memory: macOS compresses and swaps, so only what can never fit is refused."""
    size, length = ctypes.c_uint64(), ctypes.c_size_t(8)
    try:
        answer = ctypes.CDLL(None).sysctlbyname(
            b"hw.memsize", ctypes.byref(size), ctypes.byref(length), None, ctypes.c_size_t(0)
        )
    except (OSError, AttributeError):
        return None
    return int(size.value) if answer == 0 else None


def return_freed() -> None:
    """Have the C library give freed memory back to the system. glibc keeps the large blocks of one
    load for the next, and after a few of them holds twice what was ever needed."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
    except (OSError, AttributeError):  # musl: it gives back by itself
        return


def may_lock(count: int) -> bool:
    """Whether this process may keep `count` bytes in RAM (mlock). Asked before: the native code
    answers a refusal with nothing but a line on stderr."""
    try:
        import resource
    except ImportError:  # Windows: no limit to ask for beforehand
        return True
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return limit == resource.RLIM_INFINITY or limit >= count or _has_ipc_lock()


def _has_ipc_lock(status: Path = Path("/proc/self/status")) -> bool:
    """Whether the process has CAP_IPC_LOCK (bit 14), which frees it from the limit."""
    try:
        for line in status.read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> 14 & 1)
    except (OSError, ValueError, IndexError):
        pass
    return False
