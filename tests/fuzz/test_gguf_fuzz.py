"""A short run of the GGUF fuzzer; the long one is `python tests/fuzz/gguf_fuzz.py`."""

from __future__ import annotations

from fuzz.gguf_fuzz import fuzz


def test_damaged_files_are_refused_or_run_and_never_crash_or_hang() -> None:
    outcomes, faults = fuzz(600, seed=2)
    assert faults == []
    assert sum(outcomes.values()) == 600
    # All the ways must have been taken, or the run says little.
    assert outcomes["damaged"] > 100
    assert outcomes["unsupported"] > 10
    assert outcomes["loaded"] > 30


def test_the_fuzzer_sees_a_crash_when_files_are_not_verified() -> None:
    outcomes, faults = fuzz(8, seed=1, unguarded=True)
    assert outcomes["crash"] >= 1
    assert sum("crash at file" in fault for fault in faults) == outcomes["crash"]
