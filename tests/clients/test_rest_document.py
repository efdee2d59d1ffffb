"""The Python examples of docs/rest.md run against a server as printed, its address apart."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.models import chat_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = (Path(__file__).parents[2] / "docs" / "rest.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
EXAMPLES = [code for code in BLOCKS if "OpenAI(" in code]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("model")
    with serve(model=chat_model(folder), backend=backend, data_dir=folder / "data") as running:
        yield running


@pytest.mark.parametrize("code", EXAMPLES, ids=["chat", "structured", "openai", "jan"])
def test_an_example_runs_and_says_something(server: Server, tmp_path: Path, code: str) -> None:
    assert "http://localhost:3928" in code
    script = tmp_path / "example.py"
    script.write_text(code.replace("http://localhost:3928", server.url), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert "None" not in run.stdout
