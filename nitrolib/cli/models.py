"""`nitro models`: what the models folder holds; adding a file in place, removing a model."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, NitroError
from . import console
from .arguments import STORAGE, add_settings_flags, settings_from
from .progress import size

if TYPE_CHECKING:
    import argparse

    from ..models import ModelEntry, Registry
    from .arguments import Subparsers

_EPILOG = """\
'nitro models' lists the models. 'nitro models add FILE' remembers a file where it lies, as the
model --id or its own name. 'nitro models rm ID ...' forgets models and deletes what was downloaded
of them; a file that lies elsewhere stays."""


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "models",
        help="list, add and remove models",
        description="List the models of the models folder, add one, or remove some.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "action",
        nargs="?",
        metavar="ACTION",
        choices=("list", "add", "rm"),
        default="list",
        help="list, add or rm (default: list)",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="FILE to add, or ID to remove")
    parser.add_argument("--id", metavar="ID", help="what to call a file that is added")
    parser.add_argument("--json", action="store_true", help="write one JSON object (list)")
    add_settings_flags(parser, STORAGE, without=("database_url",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..models import Registry

    logging.getLogger("nitrolib.models").addHandler(logging.NullHandler())  # told here instead
    registry = Registry(settings_from(args, STORAGE).models_folder)
    if args.action == "add":
        return _add(registry, args)
    if args.action == "rm":
        return _remove(registry, args.names)
    if args.names:
        raise InvalidRequest("list takes no names", field="NAME", value=args.names[0])
    return _list(registry, as_json=args.json)


def _list(registry: Registry, *, as_json: bool) -> int:
    entries = registry.entries()
    problems = registry.problems()
    if as_json:
        told = {"folder": str(registry.root), "models": [_as_json(entry) for entry in entries]}
        console.print_json({**told, "problems": problems})
        return 0
    for name, reason in problems.items():
        console.complain(f"warning: {name}: {reason}")
    if entries:
        print(_columns([("ID", "SIZE", "WEIGHTS", "FILE"), *map(_row, entries)]))
    else:
        console.complain(f"no models in {registry.root}; 'nitro pull' fetches one")
    return 0


def _add(registry: Registry, args: argparse.Namespace) -> int:
    from ..models.ids import id_from_name

    if len(args.names) != 1:
        raise InvalidRequest("add takes one FILE", field="NAME", value=" ".join(args.names))
    path = args.names[0]
    print(registry.add(args.id or id_from_name(os.path.basename(path)), path=path).id)
    return 0


def _remove(registry: Registry, ids: list[str]) -> int:
    """Every one that can be; status 1 if any could not."""
    if not ids:
        raise InvalidRequest("rm takes at least one ID", field="NAME", value="")
    return max([_remove_one(registry, id) for id in ids])  # noqa: A001


def _remove_one(registry: Registry, id: str) -> int:  # noqa: A002 - the word of every dialect
    try:
        registry.remove(id)
    except NitroError as error:
        console.complain(error.message)
        return 1
    return 0


def _row(entry: ModelEntry) -> tuple[str, ...]:
    facts = entry.facts
    weights = f"{facts.size_label} {facts.quantization}".strip() if facts is not None else "-"
    if not entry.present:
        where = "absent; 'nitro pull' with its id fetches it" if not entry.in_place else "gone"
    elif facts is None:
        where = "damaged"
    else:
        where = str(entry.path) if entry.in_place else "here"
    return entry.id, size(entry.size_bytes) if entry.present else "-", weights, where


def _columns(rows: list[tuple[str, ...]]) -> str:
    shown = [[console.printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in shown) for index in range(len(shown[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in shown)
    return "\n".join(line.rstrip() for line in lines)


def _as_json(entry: ModelEntry) -> dict[str, Any]:
    facts = entry.facts
    return {
        "id": entry.id,
        "name": entry.name,
        "path": None if entry.path is None else str(entry.path),
        "present": entry.present,
        "in_place": entry.in_place,
        "size_bytes": entry.size_bytes,
        "source_url": entry.source_url,
        "architecture": None if facts is None else facts.info.architecture,
        "quantization": None if facts is None else facts.quantization,
        "size_label": None if facts is None else facts.size_label,
        "context_length": None if facts is None else facts.info.n_ctx_train,
    }
