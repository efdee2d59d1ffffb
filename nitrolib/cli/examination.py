"""What this machine and this installation can do, as plain data: the report of `nitro doctor`.

The trial answer is generated in a process of its own: if native code dies here, the report has
something to say about it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import NitroError

__all__ = ["examine"]

_TRIAL_TIMEOUT_S = 120
_NEEDED = ("ctransformers", "jinja2", "jsonschema", "numpy")
_EXTRAS = {"server": ("flask", "gunicorn")}


def examine() -> dict[str, Any]:
    """The whole report; nothing that is missing or broken raises."""
    packages = {name: _version(name) for name in _NEEDED}
    report: dict[str, Any] = {
        "nitrolib": _own_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": {
            extra: {name: _version(name) for name in names} for extra, names in _EXTRAS.items()
        },
        "settings": _settings(),
    }
    missing = [name for name, version in packages.items() if version is None]
    if "numpy" in missing:  # nothing below can even be imported
        report |= {"machine": None, "backends": [], "gpu": None, "model": None, "trial": None}
    else:
        report |= {"machine": _machine(), "backends": _backends(), "gpu": _gpu()}
        report["model"] = _model()
        report["trial"] = _trial()
    report["can_run"] = bool(report["trial"] and report["trial"]["passed"])
    report["advice"] = _advice(report, missing)
    return report


def _own_version() -> str:
    from .._version import __version__

    return __version__


def _version(package: str) -> str | None:
    """Its version; None if it is not there, as far as can be told without importing it."""
    if find_spec(package) is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _settings() -> dict[str, Any]:
    """Whether the NITRO_* variables of this environment would do for a server."""
    from ..config import OPTIONS, Settings, unknown_variables

    names = [option.variable for option in OPTIONS if os.environ.get(option.variable)]
    fault = None
    ngl = None
    try:
        ngl = Settings.from_environment().ngl
    except NitroError as error:
        fault = error.message
    unknown = list(unknown_variables())
    return {"variables": names, "unknown": unknown, "fault": fault, "ngl": ngl}


def _machine() -> dict[str, Any]:
    from ..backends.library import cpu_features
    from ..backends.memory import available_bytes
    from ..backends.threads import available_cores, choose_threads

    cores = available_cores()
    return {
        "processor": platform.machine(),
        "cores": cores,
        "default_threads": choose_threads(None, cores),
        "cpu_features": sorted(cpu_features()),
        "available_bytes": available_bytes(),
    }


def _backends() -> list[dict[str, Any]]:
    from ..backends import available

    return [
        {
            "name": one.name,
            "version": one.version,
            "usable": one.usable,
            "library": one.library,
            "variants": list(one.variants),
            "gpu_build": one.gpu,
            "reason": one.reason,
            "hint": one.hint,
        }
        for one in available()
    ]


def _gpu() -> dict[str, Any]:
    from ..backends.gpu import probe

    found = probe()
    return {
        "usable": found.usable,
        "devices": [
            {"name": one.name, "free_bytes": one.free_bytes, "total_bytes": one.total_bytes}
            for one in found.devices
        ],
        "missing": found.missing,
        "reason": found.reason,
        "hint": found.hint,
    }


def _model() -> dict[str, Any]:
    """The bundled model: where it is and whether it is sound."""
    from ..backends import choose
    from ..gguf import verify

    try:
        from ..demo import model_path

        path = str(model_path())
        info = verify(path)
        choose(path)
    except (NitroError, OSError) as error:
        return {"sound": False, "path": getattr(error, "path", None), "reason": str(error)}
    return {
        "sound": True,
        "path": path,
        "file_bytes": info.file_bytes,
        "architecture": info.architecture,
        "quantization": info.quantization,
        "n_params": info.n_params,
        "reason": "",
    }


def _trial() -> dict[str, Any]:
    """Have a child process generate a few tokens with the bundled model."""
    command = [sys.executable, "-m", "nitrolib", "run", "--json", "--greedy", "--max-tokens", "8"]
    command += ["--ngl", "0", "--threads", "1", "Hello"]
    try:
        child = subprocess.run(  # noqa: S603 - our own command, no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_child_environment(),
            timeout=_TRIAL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"passed": False, "reason": str(error)}
    if child.returncode != 0:
        return {"passed": False, "reason": _last_words(child)}
    answer = json.loads(child.stdout)
    usage, timings = answer["usage"], answer["timings"]
    return {
        "passed": usage["completion_tokens"] > 0,
        "reason": "",
        "text": answer["text"],
        "completion_tokens": usage["completion_tokens"],
        "seconds": timings["prefill_s"] + timings["decode_s"],
    }


def _child_environment() -> dict[str, str]:
    """Ours without the settings in it, and with this very nitrolib on the path."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("NITRO_")}
    home = str(Path(__file__).resolve().parents[2])
    path = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = home if not path else home + os.pathsep + path
    return environ


def _last_words(child: subprocess.CompletedProcess[bytes]) -> str:
    if child.returncode < 0:  # POSIX: minus the signal
        return f"the native library ended the process with signal {-child.returncode}"
    lines = child.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("nitro: ") if lines else f"status {child.returncode}"


def _advice(report: dict[str, Any], missing: list[str]) -> list[str]:
    """What to do, the most urgent first."""
    advice = []
    if missing:
        advice.append(f"pip install {' '.join(missing)} (nitrolib needs them)")
    advice += [
        f"{one['hint']} (for the backend {one['name']}: {one['reason']})"
        for one in report["backends"]
        if not one["usable"] and one["name"] not in missing
    ]
    if report["model"] and not report["model"]["sound"]:
        advice.append(f"reinstall nitrolib: the bundled model cannot be used: "
                      f"{report['model']['reason']}")  # fmt: skip
    if report["settings"]["fault"]:
        advice.append(f"correct the environment: {report['settings']['fault']}")
    advice += [f"correct {name}: it is not a setting" for name in report["settings"]["unknown"]]
    if report["settings"]["ngl"] and report["gpu"] and not _has_gpu(report):
        advice.append(
            f"ngl {report['settings']['ngl']} is set, and no layer can go to a GPU: "
            f"{report['gpu']['reason']}; {report['gpu']['hint']}"
        )
    for extra, versions in report["extras"].items():
        if None in versions.values():
            advice.append(f"pip install 'nitrolib[{extra}]' (for nitro serve)")
    if report["gpu"] and not report["gpu"]["usable"] and report["gpu"]["missing"] == "library":
        advice.append(f"{report['gpu']['hint']} (for GPU layers: {report['gpu']['reason']})")
    return advice


def _has_gpu(report: dict[str, Any]) -> bool:
    return report["gpu"]["usable"] or any(
        one["usable"] and one["gpu_build"] and one["name"] != "ctransformers"
        for one in report["backends"]
    )
