"""Microseconds per token from a row of logits to a token, beside numpy's argmax and the chain one
would write first (a full argsort), all in the same run.

    python tests/benchmarks/bench_sampling.py [--runs 15]

Every figure is the median over the runs, which are interleaved; a ratio is the median of the ratios
within a run. Time is CPU time of the one thread (sampling uses no other and never waits), so that
other work on the machine weighs little. The logits change with every token, and every token is
accepted into the penalty window, as in a real generation. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nitrolib.sampling import Sampler, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable

Row = NDArray[np.float32]

VOCABULARIES = (32_000, 152_064)
CHAINS = {
    "greedy": SamplingParams(temperature=0, repeat_penalty=1),
    "default, no penalties": SamplingParams(repeat_penalty=1),
    "default": SamplingParams(),
    "default, all penalties": SamplingParams(frequency_penalty=0.2, presence_penalty=0.3),
    "ten banned, a hundred biased": SamplingParams(
        logit_bias=tuple((i, -float("inf") if i < 10 else 1.0) for i in range(110))
    ),
    "top_k 1000": SamplingParams(top_k=1000),
    "top_k 0": SamplingParams(top_k=0),
    "top_k 0, min_p 0": SamplingParams(top_k=0, min_p=0),
    "temperature alone": SamplingParams(top_k=0, top_p=1, min_p=0),
}


def a_model_like_row(rng: np.random.Generator, n_vocab: int) -> Row:
    """Most logits near zero, a few dozen well above."""
    row = rng.normal(0, 2, n_vocab)
    row[rng.permutation(n_vocab)[:50]] += np.linspace(4, 14, 50)
    return row.astype(np.float32)


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


def ours(params: SamplingParams, n_vocab: int) -> Callable[[Row], int]:
    sampler = Sampler(params, n_vocab, 4096)
    sampler.accept(np.random.default_rng(1).integers(0, n_vocab, 500).tolist())

    def sample(row: Row) -> int:
        token = sampler.sample(row)
        sampler.accept((token,))
        return token

    return sample


def microseconds(step: Callable[[Row], int], rows: list[Row], repeats: int) -> float:
    started = time.thread_time()
    for _ in range(repeats):
        for row in rows:
            step(row)
    return (time.thread_time() - started) / (repeats * len(rows)) * 1e6


def measure(n_vocab: int, runs: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    rows = [a_model_like_row(rng, n_vocab) for _ in range(8)]
    steps: dict[str, tuple[Callable[[Row], int], int]] = {
        "numpy argmax": (lambda row: int(row.argmax()), 20),
        "naive argsort chain": (naive(rng), 1),
    }
    steps |= {name: (ours(params, n_vocab), 10) for name, params in CHAINS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs):
        for name, (step, repeats) in steps.items():
            times[name].append(microseconds(step, rows, repeats))

    def ratio(name: str, other: str) -> float:
        pairs = zip(times[name], times[other], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    return {
        name: {
            "microseconds": round(statistics.median(taken), 1),
            "of argmax": round(ratio(name, "numpy argmax"), 2),
            "of naive": round(ratio(name, "naive argsort chain"), 4),
        }
        for name, taken in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    figures = {n_vocab: measure(n_vocab, runs) for n_vocab in VOCABULARIES}
    for n_vocab, rows in figures.items():
        print(f"\n{n_vocab} tokens{'':<20}{'us':>10}{'/ argmax':>10}{'/ naive':>10}")
        for name, row in rows.items():
            cells = row["microseconds"], row["of argmax"], row["of naive"]
            print(f"{name:<32}{cells[0]:>10.1f}{cells[1]:>10.2f}{cells[2]:>10.4f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
