"""The examples of the documents run as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nitrolib.cli import main

ROOT = Path(__file__).resolve().parents[2]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


EXAMPLES = [
    pytest.param(code, id=f"{document}-{number}")
    for document in ("README.md", "docs/library.md", "docs/models.md")
    for number, code in enumerate(blocks(document, "python"), 1)
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_a_python_example_runs_and_says_something(code: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert run.stderr == ""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_readme_has_one_command_for_the_main_job_and_one_for_the_tests() -> None:
    first = blocks("README.md", "sh")[0].splitlines()
    assert first == ["pip install '.[server]' && nitro serve", "pip install '.[test]' && pytest"]


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_between_documents_lead_somewhere(document: str) -> None:
    check_links(ROOT / "docs" / document)


def test_links_of_the_readme_lead_somewhere() -> None:
    check_links(ROOT / "README.md")


def check_links(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_terminal_examples_of_the_readme_are_commands_that_exist() -> None:
    lines = [line for line in blocks("README.md", "sh")[2].splitlines() if line.strip()]
    assert len(lines) == 6
    for line in lines:
        command = line.split()[1]
        assert main([command, "--help"]) == 0
