"""A short run of the GGUF fuzzer; the long one is `python tests/fuzz/gguf_fuzz.py`."""

from __future__ import annotations

from fuzz.gguf_fuzz import fuzz


def test_damaged_files_are_refused_or_run_and_never_crash_or_hang(backend: str) -> None:
    outcomes, faults = fuzz(600, seed=2, backend=backend)
    assert faults == []
    assert sum(outcomes.values()) == 600
    # All the ways must have been taken, or the run says little.
    assert outcomes["damaged"] > 100
    assert outcomes["unsupported"] > 10
    assert outcomes["loaded"] > 30


def test_the_fuzzer_sees_a_crash_when_files_are_not_verified(backend: str) -> None:
    # llama-cpp-python's library checks more itself: the first crash is further on.
    start = {"ctransformers": 0, "llama-cpp-python": 38}[backend]
    outcomes, faults = fuzz(8, seed=1, start=start, backend=backend, unguarded=True)
    assert outcomes["crash"] >= 1
    assert sum("crash at file" in fault for fault in faults) == outcomes["crash"]
