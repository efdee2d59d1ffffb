"""The machine as the server sees it now: processor, memory, disk, GPUs."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

__all__ = ["cpu", "disk", "gpus", "memory"]

_MEASURED_S = 0.1  # how long the processor is watched: what it did before is nobody's question
_SMI_TIMEOUT_S = 5

# What nvidia-smi is asked for, and what it is called here.
_GPU_FIELDS = {
    "index": "index",
    "name": "name",
    "memory.total": "total_memory_mb",
    "memory.free": "memory_free_mb",
    "memory.used": "memory_used_mb",
    "utilization.gpu": "gpu_utilization",
    "utilization.memory": "memory_utilization",
    "temperature.gpu": "temperature",
    "power.draw": "power_usage_watts",
}


def cpu() -> dict[str, Any]:
    """Cores (physical; None where unknown), threads, usage in per cent over a tenth of a second,
    and the frequency in MHz (None where unknown)."""
    import psutil

    return {
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count() or 1,
        "usage": psutil.cpu_percent(interval=_MEASURED_S),
        "frequency": _frequency(),
    }


def memory() -> dict[str, Any]:
    """RAM in bytes, and how many per cent are used."""
    import psutil

    now = psutil.virtual_memory()
    return {
        "total": now.total,
        "available": now.available,
        "used": now.used,
        "percent": now.percent,
    }


def disk(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The disk that holds *path*, in bytes. Raises OSError where there is none."""
    now = shutil.disk_usage(path)
    percent = round(100 * now.used / now.total, 1) if now.total else 0.0
    return {"total": now.total, "free": now.free, "used": now.used, "percent": percent}


def gpus() -> list[dict[str, Any]]:
    """NVIDIA's GPUs as its own tool tells of them, memory in MiB; [] where there is no such tool or
    no GPU. Numbers that the tool does not know are left out."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(  # noqa: S603 - a fixed command, no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    rows = csv.reader(told.splitlines(), skipinitialspace=True)
    return [_gpu(row) for row in rows if len(row) == len(_GPU_FIELDS)]


def _gpu(row: list[str]) -> dict[str, Any]:
    texts = dict(zip(_GPU_FIELDS.values(), row, strict=True))
    numbers = {name: _number(text) for name, text in texts.items() if name != "name"}
    found: dict[str, Any] = {"index": int(numbers.pop("index") or 0), "name": texts["name"]}
    found["total_memory_mb"] = numbers.pop("total_memory_mb") or 0.0
    found |= {name: number for name, number in numbers.items() if number is not None}
    if "memory_used_mb" in found and found["total_memory_mb"]:
        share = found["memory_used_mb"] / found["total_memory_mb"]
        found["memory_percent"] = round(100 * share, 1)
    return found


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:  # "[N/A]"
        return None
    return number if math.isfinite(number) else None


def _frequency() -> float | None:
    import psutil

    try:
        now = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):  # not every machine tells
        return None
    return None if now is None else float(now.current)
