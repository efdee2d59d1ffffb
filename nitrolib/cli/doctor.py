"""`nitro doctor`: tell what can run here and what to install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    import argparse

    from .arguments import Subparsers


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
    from .examination import examine

    report = examine()
    if args.json:
        console.print_json(report)
    else:
        print(_as_text(report))
    return 0 if report["can_run"] else 1


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
        if not one["gpu_build"]:
            found += ", built for the processor alone"
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
