"""Measuring an engine: rounds of answers generated side by side, and their medians.

Prefill and decode are told apart by the engine's own timings of each request; the time to the first
token and the total rate are read off the clock here, as a caller sees them.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..engine import Completion, Engine, Generation

__all__ = ["Figures", "Measure", "Round", "lengths", "prompt_of", "run_round", "summarise"]

PROMPT_TOKENS, TOKENS = 256, 64

_TEXT = "It was a bright day, and the children went down to the river to look for round stones. "

Figures = dict[str, dict[str, float]]
"""Name of a figure -> its median, min and max."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One answer: what it did and how long it took, in tokens and seconds."""

    prompt_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float
    first_token_s: float

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.prefill_s

    @property
    def decode_tokens_per_s(self) -> float:
        return (self.completion_tokens - 1) / self.decode_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The answers that were generated side by side, and the wall time of all of them."""

    measures: tuple[Measure, ...]
    wall_s: float

    @property
    def total_tokens_per_s(self) -> float:
        return sum(m.completion_tokens for m in self.measures) / self.wall_s


def lengths(prompt: int | None, answer: int | None, n_ctx: int) -> tuple[int, int]:
    """Tokens of prompt and answer: those asked for, or defaults that fit a slot of *n_ctx*.

    Raises InvalidRequest where what was asked for does not fit.
    """
    n_tokens = answer or min(TOKENS, max(2, (n_ctx - (prompt or 0)) // 5))
    n_prompt = prompt or min(PROMPT_TOKENS, max(1, n_ctx - n_tokens))
    if n_prompt + n_tokens > n_ctx:
        raise InvalidRequest(
            f"{n_prompt} prompt tokens and {n_tokens} more do not fit a context of {n_ctx}; "
            "--ctx-len may enlarge it",
            field="prompt_tokens",
            value=n_prompt,
            allowed=f"prompt_tokens + tokens of at most {n_ctx}",
        )
    return n_prompt, n_tokens


def prompt_of(engine: Engine, length: int) -> tuple[int, ...]:
    """English text of exactly *length* tokens, BOS included."""
    ids = engine.tokenize(_TEXT, add_bos=True)
    body = ids[1:] or ids
    while len(ids) < length:
        ids = ids + body
    return tuple(ids[:length])


def run_round(engine: Engine, prompt: tuple[int, ...], n_tokens: int, answers: int) -> Round:
    """Generate *answers* to a prompt side by side, each of *n_tokens*, with nothing cached."""
    from ..engine import GenerationRequest
    from ..sampling import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=n_tokens, ignore_eos=True)
    request = GenerationRequest(prompt=prompt, params=params, cache_prompt=False)
    started = time.perf_counter()
    with ThreadPoolExecutor(answers) as readers:
        running = [engine.submit(request) for _ in range(answers)]
        measures = tuple(readers.map(_reader(started), running))
    return Round(measures=measures, wall_s=time.perf_counter() - started)


def summarise(rounds: Sequence[Round]) -> Figures:
    """Median, least and most of every figure."""
    answers = [measure for one in rounds for measure in one.measures]
    figures = {
        "prefill_tokens_per_s": [m.prefill_tokens_per_s for m in answers],
        "decode_tokens_per_s": [m.decode_tokens_per_s for m in answers],
        "first_token_s": [m.first_token_s for m in answers],
        "total_tokens_per_s": [one.total_tokens_per_s for one in rounds],
    }
    return {
        name: {"median": statistics.median(of), "min": min(of), "max": max(of)}
        for name, of in figures.items()
    }


def _reader(started: float) -> Callable[[Generation], Measure]:
    def read(generation: Generation) -> Measure:
        chunks = iter(generation)
        next(chunks)
        first_token_s = time.perf_counter() - started
        for _ in chunks:  # dropping the iterator would cancel
            pass
        done: Completion = generation.result()
        return Measure(
            prompt_tokens=done.usage.prompt_tokens,
            completion_tokens=done.usage.completion_tokens,
            prefill_s=done.timings.prefill_s,
            decode_s=done.timings.decode_s,
            first_token_s=first_token_s,
        )

    return read
