"""What a GPU computes against what the processor computes, with both backends.

Run where a GPU is at hand: `pytest -m gpu`. Elsewhere every test here is skipped, and says why.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.gguf_maker import make_llama

from nitrolib import Engine, Feed, LoadOptions, SamplingParams
from nitrolib.backends import load
from nitrolib.errors import BackendUnavailable, GpuUnavailable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu

BACKENDS = ("ctransformers", "llama-cpp-python")
PROMPT = [1, *range(300, 420)]
LAYERS = 2  # of the tiny model


@functools.cache
def why_not(backend: str, path: Path) -> str:
    """Why this machine runs no layer of `path` on a GPU with `backend`; "" if it does."""
    try:
        load(path, LoadOptions(ngl=1), backend).close()
    except (BackendUnavailable, GpuUnavailable) as error:
        return error.reason
    return ""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("gpu") / "tiny.gguf", quant="F16")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, path: Path) -> str:
    reason = why_not(request.param, path)
    if reason:
        pytest.skip(f"no GPU for {request.param}: {reason}")
    return str(request.param)


def logits_after(path: Path, backend: str, ngl: int, chunk: int) -> np.ndarray:
    """Logits after the prompt, evaluated in pieces of `chunk`, and after each of 8 more tokens."""
    runtime = load(path, LoadOptions(ngl=ngl, threads=1), backend)
    try:
        assert runtime.report.gpu_layers == ngl
        for start in range(0, len(PROMPT), chunk):
            runtime.decode([Feed(0, PROMPT[start : start + chunk])])
        rows = [runtime.logits(0).copy()]
        for token in range(200, 208):
            runtime.decode([Feed(0, (token,))])
            rows.append(runtime.logits(0).copy())
        return np.stack(rows)
    finally:
        runtime.close()


@pytest.mark.parametrize("ngl", [1, LAYERS, LAYERS + 1], ids=["partial", "layers", "full"])
@pytest.mark.parametrize("chunk", [len(PROMPT), 32])
def test_prefill_and_decode_on_the_gpu_are_those_of_the_processor(
    path: Path, backend: str, ngl: int, chunk: int
) -> None:
    on_gpu = logits_after(path, backend, ngl, chunk)
    on_cpu = logits_after(path, backend, 0, chunk)
    # Products of 16-bit floats, added up in another order: a hundredth of the logits' spread.
    assert np.abs(on_gpu - on_cpu).max() < 0.05 * on_cpu.std()


def test_all_layers_is_what_a_machine_with_room_takes(path: Path, backend: str) -> None:
    runtime = load(path, LoadOptions(ngl=None), backend)
    assert runtime.report.gpu_layers > LAYERS
    runtime.close()


def test_an_answer_from_the_gpu_is_repeatable_and_streams(path: Path, backend: str) -> None:
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    with Engine.open(path, LoadOptions(ngl=LAYERS + 1), backend) as engine:
        whole = engine.complete(PROMPT, params, cache_prompt=False)
        streamed = [chunk.text for chunk in engine.stream(PROMPT, params, cache_prompt=False)]
    assert "".join(streamed) == whole.text
    assert whole.usage.completion_tokens == 24
