"""Tries CUDA in a process of its own: run as a script, with the library files to load in order.

A missing device or a driver that does not fit makes the CUDA library call exit(1), and a driver
that was initialised does not survive a fork. So the process that is to live never finds out itself.
Prints one line of JSON; needs nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DRIVER_NAMES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
NEEDED_DRIVER = 12000  # the CUDA runtime 12 of the wheel's library
NEEDED_CAPABILITY = 52  # the oldest architecture it was compiled for
_NO_DEVICE = 100


def inspect(
    libraries: list[str], open_library: Callable[[str], Any] = ctypes.CDLL
) -> dict[str, Any]:
    """What the driver says: {"devices": [...]}, or {"missing": "driver" | "device" | "library",
    "reason": ...}. Each device has name, capability (80 is 8.0), total and free bytes."""
    driver = open_driver(open_library)
    if driver is None:
        return _missing("driver", "no CUDA driver library")
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        return _missing("device", "the CUDA driver finds no device")
    if code != 0:
        return _missing("driver", f"the CUDA driver does not start (error {code})")
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value < NEEDED_DRIVER:
        return _missing(
            "driver", f"the CUDA driver is for {version.value // 1000}, not 12 or newer"
        )
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return _missing("device", "the CUDA driver finds no device")
    devices = [_describe(driver, number) for number in range(count.value)]
    old = [device["name"] for device in devices if device["capability"] < NEEDED_CAPABILITY]
    if old:
        return _missing("device", f"{', '.join(old)}: older than compute capability 5.2")
    try:
        loaded = [open_library(path) for path in libraries]
    except OSError as error:
        return _missing("library", str(error))
    if loaded:
        # Makes the CUDA part start; where it cannot, this process ends here with code 1.
        loaded[-1].llama_backend_init(ctypes.c_bool(False))
    return {"devices": devices}


def open_driver(open_library: Callable[[str], Any] = ctypes.CDLL) -> Any | None:
    """The driver's library, or None where there is none. Opening it starts nothing."""
    for name in DRIVER_NAMES:
        try:
            return open_library(name)
        except OSError:  # noqa: PERF203 - two names
            continue
    return None


def _describe(driver: Any, number: int) -> dict[str, Any]:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    name = ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), ctypes.c_int(number))
    driver.cuDeviceGetName(name, ctypes.c_int(len(name)), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), ctypes.c_int(75), device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), ctypes.c_int(76), device)
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0:
        driver.cuCtxSetCurrent(context)
        driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return {
        "name": name.value.decode(errors="replace"),
        "capability": major.value * 10 + minor.value,
        "total_bytes": total.value,
        "free_bytes": free.value,
    }


def _missing(what: str, reason: str) -> dict[str, Any]:
    return {"missing": what, "reason": reason}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(inspect(sys.argv[1:])) + "\n")
