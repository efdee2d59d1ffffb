"""The parsers of the `nitro` command, for tests that compare them with something else."""

from __future__ import annotations

import argparse

from nitrolib.cli import build_parser


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """The parser of every subcommand by its name."""
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the command has no subcommands")


def actions(command: str) -> list[argparse.Action]:
    """The arguments of one subcommand, positional ones included."""
    return subcommands()[command]._actions
