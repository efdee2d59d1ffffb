"""`nitro doctor`: what this machine and this installation can do, and what to install.

The report is made first, as plain data, then shown as text or JSON. The trial answer is generated
in a process of its own: if native code dies here, the doctor has something to say about it.
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
from typing import TYPE_CHECKING, Any

from ..errors import NitroError
from . import console

if TYPE_CHECKING:
    import argparse

    from .arguments import Subparsers

_TRIAL_TIMEOUT_S = 120
_NEEDED = ("ctransformers", "jinja2", "jsonschema", "numpy")
_EXTRAS = {"server": ("flask", "gunicorn")}


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "doctor",
        help="tell what can run here and what to install",
        description="Look at this machine and this installation, generate a few tokens as a "
        "check, and tell what to install. Ends with status 1 when nothing can run.",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    report = examine()
    if args.json:
        console.print_json(report)
    else:
        print(_as_text(report))
    return 0 if report["can_run"] else 1


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
    try:
        Settings.from_environment()
    except NitroError as error:
        fault = error.message
    return {"variables": names, "unknown": list(unknown_variables()), "fault": fault}


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
    for extra, versions in report["extras"].items():
        if None in versions.values():
            advice.append(f"pip install 'nitrolib[{extra}]' (for nitro serve)")
    if report["gpu"] and not report["gpu"]["usable"] and report["gpu"]["missing"] == "library":
        advice.append(f"{report['gpu']['hint']} (for GPU layers: {report['gpu']['reason']})")
    return advice


def _as_text(report: dict[str, Any]) -> str:
    style = console.Style.of_stdout()
    yes, no = style.green("yes"), style.red("no")
    rows = [
        ("nitrolib", f"{report['nitrolib']}, Python {report['python']}, {report['platform']}"),
        ("packages", _versions(report["packages"])),
        *((f"extra {name}", _versions(of)) for name, of in report["extras"].items()),
        ("settings", _settings_row(report["settings"])),
    ]
    machine, gpu, model, trial = (report[key] for key in ("machine", "gpu", "model", "trial"))
    if machine:
        rows += _machine_rows(machine)
    for one in report["backends"]:
        found = f"the {one['library']} library of {', '.join(one['variants'])}"
        told = f"{yes}, {found}" if one["usable"] else f"{no}: {one['reason']}"
        rows.append((f"{one['name']} {one['version'] or ''}".strip(), told))
    if gpu:
        devices = ", ".join(
            f"{one['name']} ({one['free_bytes'] >> 20:,} MiB free)" for one in gpu["devices"]
        )
        told = f"{yes} {devices}".strip() if gpu["usable"] else f"{no}: {gpu['reason']}"
        rows.append(("GPU layers", told))
    if model:
        told = f"{yes}, {model['path']}" if model["sound"] else f"{no}: {model['reason']}"
        rows.append(("bundled model", told))
    if trial:
        rows.append(("trial answer", _trial_row(trial, yes, no)))
    lines = [console.table(rows), ""]
    lines += [f"To do: {console.printable(one)}" for one in report["advice"]]
    lines.append(
        style.bold("Models can run here." if report["can_run"] else "Nothing can run here yet.")
    )
    return "\n".join(lines)


def _machine_rows(machine: dict[str, Any]) -> list[tuple[str, str]]:
    free = machine["available_bytes"]
    return [
        (
            "processor",
            f"{machine['processor']}, {machine['cores']} cores usable, "
            f"{machine['default_threads']} threads by default, "
            f"{' '.join(machine['cpu_features']) or 'no vector features'}",
        ),
        ("memory", "unknown" if free is None else f"{free >> 20:,} MiB free"),
    ]


def _versions(packages: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())


def _settings_row(settings: dict[str, Any]) -> str:
    if settings["fault"]:
        return console.printable(settings["fault"])
    return ", ".join(settings["variables"]) or "all at their defaults"


def _trial_row(trial: dict[str, Any], yes: str, no: str) -> str:
    if not trial["passed"]:
        return f"{no}: {console.printable(trial['reason'])}"
    count = trial["completion_tokens"]
    return f"{yes}, {count} tokens in {trial['seconds'] * 1000:.0f} ms"
