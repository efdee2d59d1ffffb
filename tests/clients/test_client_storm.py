"""A short storm of OpenAI clients; `tests/support/client_storm.py` blows for a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.client_storm import storm

if TYPE_CHECKING:
    from pathlib import Path


def test_a_storm_of_clients_ends_with_all_slots_free(tmp_path: Path, backend: str) -> None:
    counts = storm(tmp_path, seconds=6, threads=32, backend=backend)
    done = {name for (name, outcome), count in counts.items() if outcome == "done" and count}
    assert done == {"chat", "stream", "leave_early", "embed", "reload"}
