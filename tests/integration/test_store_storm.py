"""A short storm of kills; `tests/support/store_storm.py` does it a hundred times."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from support.store_storm import storm
from support.stores import KINDS, store_url

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform == "win32", reason="the storm kills with SIGKILL")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_acknowledged_is_missing_after_a_kill(kind: str, tmp_path: Path) -> None:
    with store_url(kind, tmp_path) as url:
        counts = storm(url, count=8)
    assert {"thread", "message", "rename", "run", "answer", "delete"} <= counts.keys()
