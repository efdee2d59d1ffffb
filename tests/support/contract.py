"""Holds a server against its own OpenAPI document, with schemathesis and all its checks.

    python -m support.contract --examples 100 [--dialects locallab] [--phases fuzzing]

starts a server with the bundled model and runs until every operation was tried.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .file_server import file_server
from .models import chat_model
from .server import ROOT, Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TESTS = Path(__file__).resolve().parents[1]
PHASES = "examples,coverage,fuzzing,stateful"
SHARED = "nitro,openai,jan,llama-server"
KEY = "contract"  # of the server
CTX_LEN = 128  # answers are short then, whatever a request asks for


@contextlib.contextmanager
def contract_server(folder: Path, dialects: str) -> Iterator[Server]:
    """A server of *dialects* with a key, its bundled model among the models in *folder*. What it
    may fetch is on this machine: nothing is there."""
    place = folder / "models" / "demo" / "model.gguf"
    place.parent.mkdir(parents=True)
    spare = shutil.copy(chat_model(folder), folder / "spare.gguf")
    shutil.copy(spare, place)
    with file_server() as files, _environ(HF_ENDPOINT=files.url):
        more = {"download_hosts": "127.0.0.1", "download_private": 1, "locallab_rate": 0}
        with serve(
            model=place, data_dir=folder, ctx_len=CTX_LEN, dialects=dialects, api_key=KEY, **more
        ) as running:
            yield running


def run_contract(
    server: Server, folder: Path, *, examples: int, phases: str = PHASES, more: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against *server*, made by `contract_server` with *folder*."""
    command = [sys.executable, "-m", "schemathesis.cli"]
    command += ["--config-file", str(Path(__file__).with_name("contract.toml"))]
    command += ["run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"]
    command += ["--phases", phases, "--max-examples", str(examples), *more]
    paths = os.pathsep.join((str(TESTS), str(ROOT)))
    spare, model = folder / "spare.gguf", folder / "models" / "demo" / "model.gguf"
    variables = {"CONTRACT_MODEL": str(model), "CONTRACT_SPARE": str(spare), "PYTHONPATH": paths}
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@contextlib.contextmanager
def _environ(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="of every operation")
    parser.add_argument("--dialects", default=SHARED)
    parser.add_argument("--phases", default=PHASES)
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contract_server(folder, options.dialects) as server:
            run = run_contract(
                server, folder, examples=options.examples, phases=options.phases, more=more
            )
            print(run.stdout)
            if "Traceback" in server.log:
                print(server.log)
                return 1
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
