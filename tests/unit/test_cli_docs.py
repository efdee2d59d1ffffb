"""docs/command.md says what the command line is."""

from __future__ import annotations

import re

import pytest
from support.commandline import DOCUMENT, SHARED, actions, documented, subcommands, written

from nitrolib.cli import chat

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_parsers() -> None:
    """`python tests/support/commandline.py` brings them up to date."""
    assert written(TEXT) == TEXT


@pytest.mark.parametrize("command", subcommands())
def test_every_flag_of_a_command_is_documented_for_it(command: str) -> None:
    tables = documented(TEXT)
    told = tables[command]
    shared = re.search(r"And the flags of: (.*)\.", told)
    for group in shared[1].split(", ") if shared else ():
        told += tables[group]
    for action in actions(command):
        for flag in action.option_strings:
            assert flag in ("-h", "--help") or re.search(rf"`{flag}[ `]", told), flag


def test_the_document_has_a_table_of_every_command_and_group() -> None:
    assert {*documented(TEXT)} == {*subcommands(), *SHARED}


def test_every_flag_in_an_example_exists() -> None:
    known = {f for command in subcommands() for a in actions(command) for f in a.option_strings}
    used = {*re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", TEXT)}
    assert used <= known


def test_the_commands_of_the_chat_are_documented() -> None:
    for command in chat.COMMANDS:
        assert f"`{command}`" in TEXT, command
