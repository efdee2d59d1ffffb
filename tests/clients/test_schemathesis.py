"""The server keeps to its own document: schemathesis makes requests of it, good and bad ones, and
holds every answer against it. SCHEMATHESIS_EXAMPLES=100 makes more of them, in all phases."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from support.contract import PHASES, SHARED, contract_server, run_contract

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))


@pytest.mark.timeout(6 * 3600 if EXAMPLES else 1800)  # it takes 20 s, or 40, of one core
@pytest.mark.parametrize("dialects", [SHARED, "openai", "jan", "locallab", "llama-server"])
def test_every_operation_keeps_to_the_document(dialects: str, tmp_path: Path) -> None:
    phases = PHASES if EXAMPLES else "examples,fuzzing"
    examples = EXAMPLES or (4 if dialects == SHARED else 2)
    with contract_server(tmp_path, dialects) as server:
        run = run_contract(server, tmp_path, examples=examples, phases=phases)
        assert run.returncode == 0, run.stdout[-20_000:]
        log = server.log
        before, found, after = log.partition("Traceback")
        assert not found, before[-1000:] + found + after[:9000]
