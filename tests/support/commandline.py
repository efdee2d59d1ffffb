"""The parsers of the `nitro` command, and the tables of docs/command.md made from them.

`python tests/support/commandline.py` writes the tables into the document again.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from nitrolib.cli import build_parser  # noqa: E402 - only the line above makes it importable
from nitrolib.config import OPTIONS  # noqa: E402

DOCUMENT = ROOT / "docs" / "command.md"
SHARED = ("model", "prompt", "sampling")
_BLOCK = re.compile(r"(<!-- flags: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_VARIABLES = {option.flag: option.variable for option in OPTIONS} | {"--config": "NITRO_CONFIG"}


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """The parser of every subcommand by its name."""
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the command has no subcommands")


def actions(command: str) -> list[argparse.Action]:
    """The arguments of one subcommand, positional ones included."""
    return subcommands()[command]._actions


def documented(text: str) -> dict[str, str]:
    """The tables in the document by what they are about."""
    return {found[2]: found[0] for found in _BLOCK.finditer(text)}


def written(text: str) -> str:
    """The document with every table made anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", text)


def table(about: str) -> str:
    """The flags of a command, or of one of the groups that commands share."""
    if about in SHARED:
        rows = _shared(about)
    else:
        taken = {name for group in SHARED for name in _names(_shared(group))}
        rows = [a for a in actions(about) if a.dest != "help" and not {*_words(a)} & taken]
    lines = ["| Argument | Variable | |", "|---|---|---|"]
    lines += [f"| {_spelled(a)} | {_variable(a)} | {_help(a)} |" for a in rows]
    if about not in SHARED and (groups := _groups(about)):
        lines += ["", f"And the flags of: {', '.join(groups)}."]
    return "\n".join(lines)


def _groups(command: str) -> list[str]:
    """The shared groups that a command takes all of, `--model` of `nitro inspect` excepted."""
    names = {*_names(actions(command))}
    return [group for group in SHARED if {*_names(_shared(group))} - {"--model"} <= names]


def _shared(group: str) -> list[argparse.Action]:
    titles = {one.title: one for one in subcommands()["run"]._action_groups}
    return titles[group]._group_actions


def _names(several: list[argparse.Action]) -> list[str]:
    return [word for action in several for word in _words(action)]


def _words(action: argparse.Action) -> list[str]:
    return list(action.option_strings) or [str(action.metavar)]


def _spelled(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 or not action.option_strings else f" {_metavar(action)}"
    return ", ".join(f"`{word}{value}`" for word in _words(action))


def _metavar(action: argparse.Action) -> str:
    return " or ".join(action.choices) if action.choices else str(action.metavar)


def _variable(action: argparse.Action) -> str:
    found = [_VARIABLES[word] for word in _words(action) if word in _VARIABLES]
    return f"`{found[0]}`" if found else ""


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
