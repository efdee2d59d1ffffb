"""The machine as the server tells of it: plausible numbers, and GPUs as their own tool has them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from nitrolib.adapters.rest import machine

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """\
0, NVIDIA Test 100, 81559, 80000, 1559, 12, 3, 41, 68.25
1, "NVIDIA, Test", 81559, 81000, 559, [N/A], [N/A], [N/A], [Not Supported]
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in for nvidia-smi: it prints a file, or fails where there is none."""
    path = tmp_path / "nvidia-smi"
    path.write_text(f'#!/bin/sh\ncat "{tmp_path}/table"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "table"


def test_memory_and_disk_add_up(tmp_path: Path) -> None:
    found = machine.memory()
    assert 0 < found["used"] < found["total"]
    assert 0 < found["available"] <= found["total"]
    assert 0 <= found["percent"] <= 100
    found = machine.disk(tmp_path)
    assert 0 < found["used"] < found["total"]
    assert 0 <= found["percent"] <= 100
    with pytest.raises(OSError):
        machine.disk(tmp_path / "nowhere")


def test_the_processor_is_measured() -> None:
    found = machine.cpu()
    assert found["threads"] >= 1
    assert found["cores"] is None or 1 <= found["cores"] <= found["threads"]
    assert 0 <= found["usage"] <= 100
    assert found["frequency"] is None or found["frequency"] > 0


def test_gpus_are_told_with_what_is_known_of_them(tool: Path) -> None:
    tool.write_text(TABLE)
    first, second = machine.gpus()
    assert first == {
        "index": 0,
        "name": "NVIDIA Test 100",
        "total_memory_mb": 81559.0,
        "memory_free_mb": 80000.0,
        "memory_used_mb": 1559.0,
        "memory_percent": 1.9,
        "gpu_utilization": 12.0,
        "memory_utilization": 3.0,
        "temperature": 41.0,
        "power_usage_watts": 68.25,
    }
    assert (second["index"], second["name"], second["memory_percent"]) == (1, "NVIDIA, Test", 0.7)
    assert "temperature" not in second


@pytest.mark.parametrize("told", [None, "", "No devices were found\n"])
def test_without_a_gpu_there_are_none(tool: Path, told: str | None) -> None:
    if told is not None:
        tool.write_text(told)
    assert machine.gpus() == []


def test_without_the_tool_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert machine.gpus() == []
