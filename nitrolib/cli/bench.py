"""`nitro bench`: how fast this machine runs a model, measured through the real Engine.

Prefill and decode are told apart by the engine's own timings of each request; the time to the first
token and the total rate are read off the clock here, as a caller sees them.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from . import console
from .arguments import MODEL, add_settings_flags, settings_from, whole_number
from .model import open_engine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..engine import Completion, Engine, Generation, ModelStatus
    from .arguments import Subparsers

_TEXT = "It was a bright day, and the children went down to the river to look for round stones. "
_PROMPT_TOKENS, _TOKENS = 256, 64


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


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure how fast a model runs here",
        description="Measure prefill and decode speed through the engine, with nothing cached, "
        "and print medians over the rounds. With --n-parallel the answers of a round are generated "
        "side by side.",
    )
    add = parser.add_argument
    add("--json", action="store_true", help="write one JSON object")
    add(
        "--prompt-tokens",
        type=whole_number(1),
        metavar="N",
        help=f"length of the prompt (default: {_PROMPT_TOKENS}, less in a small context)",
    )
    add(
        "--tokens",
        type=whole_number(2),
        metavar="N",
        help=f"length of the answer (default: {_TOKENS}, less in a small context)",
    )
    add("--repeat", type=whole_number(1), default=5, metavar="N", help="rounds (default: 5)")
    add_settings_flags(parser, MODEL)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args, MODEL)
    with open_engine(settings, warm_up=True, clean_cache_threshold=0) as engine:
        model = engine.status().model
        assert model is not None  # loaded by this process
        n_prompt, n_tokens = lengths(args.prompt_tokens, args.tokens, model.n_ctx)
        prompt = _prompt(engine, n_prompt)
        _round(engine, prompt, n_tokens, model.n_parallel)  # touches every page once; not counted
        rounds = [_round(engine, prompt, n_tokens, model.n_parallel) for _ in range(args.repeat)]
    report = summarise(rounds)
    if args.json:
        console.print_json(_as_json(model, n_prompt, n_tokens, rounds, report))
    else:
        print(_as_text(model, n_prompt, n_tokens, rounds, report))
    return 0


def lengths(prompt: int | None, answer: int | None, n_ctx: int) -> tuple[int, int]:
    """Tokens of prompt and answer: those asked for, or defaults that fit a slot of *n_ctx*.

    Raises InvalidRequest where what was asked for does not fit.
    """
    n_tokens = answer or min(_TOKENS, max(2, (n_ctx - (prompt or 0)) // 5))
    n_prompt = prompt or min(_PROMPT_TOKENS, max(1, n_ctx - n_tokens))
    if n_prompt + n_tokens > n_ctx:
        raise InvalidRequest(
            f"{n_prompt} prompt tokens and {n_tokens} more do not fit a context of {n_ctx}; "
            "--ctx-len may enlarge it",
            field="prompt_tokens",
            value=n_prompt,
            allowed=f"prompt_tokens + tokens of at most {n_ctx}",
        )
    return n_prompt, n_tokens


def summarise(rounds: list[Round]) -> dict[str, dict[str, float]]:
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


def _prompt(engine: Engine, length: int) -> tuple[int, ...]:
    """English text of exactly *length* tokens, BOS included."""
    ids = engine.tokenize(_TEXT, add_bos=True)
    body = ids[1:] or ids
    while len(ids) < length:
        ids = ids + body
    return tuple(ids[:length])


def _round(engine: Engine, prompt: tuple[int, ...], n_tokens: int, n_parallel: int) -> Round:
    from ..engine import GenerationRequest
    from ..sampling import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=n_tokens, ignore_eos=True)
    request = GenerationRequest(prompt=prompt, params=params, cache_prompt=False)
    started = time.perf_counter()
    with ThreadPoolExecutor(n_parallel) as readers:
        running = [engine.submit(request) for _ in range(n_parallel)]
        measures = tuple(readers.map(_reader(started), running))
    return Round(measures=measures, wall_s=time.perf_counter() - started)


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


def _as_json(
    model: ModelStatus,
    n_prompt: int,
    n_tokens: int,
    rounds: list[Round],
    report: dict[str, dict[str, float]],
) -> dict[str, Any]:
    return {
        "model": {
            "path": model.path,
            "name": model.name,
            "architecture": model.architecture,
            "backend": model.backend,
            "library": model.library,
            "threads": model.threads,
            "gpu_layers": model.gpu_layers,
            "n_ctx": model.n_ctx,
        },
        "prompt_tokens": n_prompt,
        "tokens": n_tokens,
        "n_parallel": model.n_parallel,
        "repeat": len(rounds),
        **report,
        "answers": [asdict(measure) for one in rounds for measure in one.measures],
        "notes": list(model.notes),
    }


def _as_text(
    model: ModelStatus,
    n_prompt: int,
    n_tokens: int,
    rounds: list[Round],
    report: dict[str, dict[str, float]],
) -> str:
    head = [
        ("model", f"{model.name} ({model.architecture})"),
        ("backend", f"{model.backend}, {model.library}"),
        ("threads", f"{model.threads}, GPU layers {model.gpu_layers}"),
        ("prompt, answer", f"{n_prompt}, {n_tokens} tokens"),
        ("rounds", f"{len(rounds)} of {model.n_parallel} at a time"),
        *(("note", note) for note in model.notes),
    ]
    rows = [
        ("prefill, tokens/s", 1, report["prefill_tokens_per_s"]),
        ("decode, tokens/s", 1, report["decode_tokens_per_s"]),
        ("first token, ms", 1000, report["first_token_s"]),
        ("in total, tokens/s", 1, report["total_tokens_per_s"]),
    ]
    lines = [f"{'':<20}{'median':>10}{'min':>10}{'max':>10}"]
    for name, scale, of in rows:
        figures = "".join(f"{of[key] * scale:>10.1f}" for key in ("median", "min", "max"))
        lines.append(f"{name:<20}{figures}")
    return console.table(head) + "\n\n" + "\n".join(lines)
