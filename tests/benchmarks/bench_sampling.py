"""Microseconds per token from a row of logits to a token, beside numpy's argmax, the chain one
would write first (a full argsort) and, where llama-cpp-python is installed, llama.cpp's own
compiled chain, all in the same run.

    python tests/benchmarks/bench_sampling.py [--runs 15]

Every figure is the median over the runs, which are interleaved; a ratio is the median of the ratios
within a run. Time is CPU time of the one thread (sampling uses no other and never waits), so that
other work on the machine weighs little. The logits change with every token, and every token is
accepted into the windows of the penalties, as in a real generation. The history is of 4,096 tokens
and repeats itself now and then. Both sides begin at the row of logits where the model left it and
end with the token accepted; llama.cpp's is `llama_sampler_sample`. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import numpy as np
from numpy.typing import NDArray

from nitrolib.sampling import Breakers, Sampler, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable

Row = NDArray[np.float32]

VOCABULARIES = (32_000, 152_064)
CONTEXT_LENGTH = 4096
CHAINS = {
    "greedy": SamplingParams(temperature=0, repeat_penalty=1),
    "default": SamplingParams(repeat_penalty=1),
    "default, repeat penalty": SamplingParams(),
    "default, all penalties": SamplingParams(frequency_penalty=0.2, presence_penalty=0.3),
    "default, DRY": SamplingParams(repeat_penalty=1, dry_multiplier=0.8),
    "everything on": SamplingParams(
        frequency_penalty=0.2,
        presence_penalty=0.3,
        dry_multiplier=0.8,
        top_n_sigma=2.0,
        typical_p=0.95,
        xtc_probability=0.5,
        dynatemp_range=0.3,
    ),
    "ten banned, a hundred biased": SamplingParams(
        repeat_penalty=1,
        logit_bias=tuple((i, -float("inf") if i < 10 else 1.0) for i in range(110)),
    ),
    "mirostat 1": SamplingParams(mirostat=1),
    "mirostat 2": SamplingParams(mirostat=2),
    "top_k 1000": SamplingParams(repeat_penalty=1, top_k=1000),
    "top_k 0": SamplingParams(repeat_penalty=1, top_k=0),
    "top_k 0, min_p 0": SamplingParams(repeat_penalty=1, top_k=0, min_p=0),
    "top_k 0, typical_p 0.9": SamplingParams(repeat_penalty=1, top_k=0, typical_p=0.9),
    "temperature alone": SamplingParams(repeat_penalty=1, top_k=0, top_p=1, min_p=0),
}
BARS = {  # most of llama.cpp's time, for each vocabulary
    "default": (1.0, 0.65),
    "default, repeat penalty": (0.5, 0.25),
    "everything on": (1.0, 0.5),
}


class Step(NamedTuple):
    """One token: the row to write the logits into, untimed, and what is timed; and how often."""

    row: Row
    run: Callable[[], object]
    repeats: int


def a_model_like_row(rng: np.random.Generator, n_vocab: int) -> Row:
    """Most logits near zero, a few dozen well above."""
    row = rng.normal(0, 2, n_vocab)
    row[rng.permutation(n_vocab)[:50]] += np.linspace(4, 14, 50)
    return row.astype(np.float32)


def a_history(n_vocab: int) -> list[int]:
    """A context full of common tokens, with a passage of 30 that comes again and again."""
    rng = np.random.default_rng(1)
    history = (rng.zipf(1.3, CONTEXT_LENGTH) % n_vocab).tolist()
    passage = history[:30]
    for start in range(200, CONTEXT_LENGTH, 400):
        history[start : start + 30] = passage
    return history


def naive(rng: np.random.Generator) -> Callable[[Row], int]:
    """top_k 40, top_p 0.95, min_p 0.05, temperature 0.8 by sorting the vocabulary."""

    def sample(row: Row) -> int:
        order = np.argsort(-row)[:40]
        logits = row[order].astype(np.float64)
        weights = np.exp(logits - logits[0])
        sums = np.cumsum(weights / weights.sum())
        logits = logits[: int(np.searchsorted(sums, 0.95)) + 1]
        logits = logits[logits >= logits[0] + np.log(0.05)] / 0.8
        weights = np.exp(logits - logits[0])
        return int(order[rng.choice(len(logits), p=weights / weights.sum())])

    return sample


def ours(params: SamplingParams, n_vocab: int) -> Step:
    sampler = Sampler(params, n_vocab, CONTEXT_LENGTH, breakers=Breakers(frozenset(), {}))
    sampler.accept_prompt(a_history(n_vocab))
    row = np.empty(n_vocab, np.float32)
    return Step(row, lambda: sampler.accept((sampler.sample(row),)), 6)


class Peer:
    """The same chains of llama.cpp, if it is there."""

    def __init__(self, n_vocab: int) -> None:
        try:
            from support import llama_chain
        except ImportError:
            self._native = None
            return
        self._native = llama_chain
        self._n_vocab = n_vocab
        self._logits = llama_chain.LlamaLogits(n_vocab)

    def step(self, params: SamplingParams) -> Step | None:
        if self._native is None or params.mirostat or params.logit_bias:
            return None
        chain = self._native.chain(params, self._n_vocab, CONTEXT_LENGTH)
        for token in a_history(self._n_vocab):
            chain.accept(token)
        logits = self._logits
        return Step(logits.row, lambda: logits.sample(chain), 2)


def microseconds(step: Step, rows: list[Row]) -> float:
    clock = time.thread_time
    total = 0.0
    for _ in range(step.repeats):
        for row in rows:
            step.row[:] = row
            started = clock()
            step.run()
            total += clock() - started
            started = clock()
            total -= clock() - started  # what reading the clock takes
    return total / (step.repeats * len(rows)) * 1e6


def measure(n_vocab: int, runs: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    rows = [a_model_like_row(rng, n_vocab) for _ in range(8)]
    row, sort_chain = np.empty(n_vocab, np.float32), naive(rng)
    steps = {
        "numpy argmax": Step(row, lambda: row.argmax(), 10),
        "naive argsort chain": Step(row, lambda: sort_chain(row), 1),
    }
    native = Peer(n_vocab)
    for name, params in CHAINS.items():
        steps[name] = ours(params, n_vocab)
        peer = native.step(params)
        if peer is not None:
            steps[f"llama.cpp: {name}"] = peer
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs):
        for name, step in steps.items():
            times[name].append(microseconds(step, rows))

    def ratio(name: str, other: str) -> float:
        pairs = zip(times[name], times[other], strict=True)
        return statistics.median(mine / peer for mine, peer in pairs)

    figures = {}
    for name in [*list(steps)[:2], *CHAINS]:
        figures[name] = {
            "microseconds": round(statistics.median(times[name]), 1),
            "of argmax": round(ratio(name, "numpy argmax"), 2),
            "of naive": round(ratio(name, "naive argsort chain"), 4),
        }
        peer_name = f"llama.cpp: {name}"
        if peer_name in steps:
            figures[name]["llama.cpp"] = round(statistics.median(times[peer_name]), 1)
            figures[name]["of llama.cpp"] = round(ratio(name, peer_name), 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    figures = {n_vocab: measure(n_vocab, runs) for n_vocab in VOCABULARIES}
    for place, (n_vocab, rows) in enumerate(figures.items()):
        title = f"{n_vocab} tokens"
        print(
            f"\n{title:<30}{'us':>9}{'/ argmax':>10}{'/ naive':>9}{'C us':>9}{'/ C':>7}{'bar':>6}"
        )
        for name, row in rows.items():
            cells = row["microseconds"], row["of argmax"], row["of naive"]
            line = f"{name:<30}{cells[0]:>9.1f}{cells[1]:>10.2f}{cells[2]:>9.4f}"
            if "llama.cpp" in row:
                line += f"{row['llama.cpp']:>9.1f}{row['of llama.cpp']:>7.2f}"
                line += f"{BARS[name][place]:>6.2f}" if name in BARS else ""
            print(line)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
