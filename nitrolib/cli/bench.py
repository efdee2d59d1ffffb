"""`nitro bench`: how fast this machine runs a model, with each backend, at several concurrencies.

All engines are loaded at once and measured in turn, so that what disturbs the machine disturbs all
of them; what is compared are medians of the same rounds.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, ModelFileError, ModelLoadError
from . import console
from .arguments import MODEL, STORAGE, add_settings_flags, settings_from, whole_number
from .measure import (
    PROMPT_TOKENS,
    TOKENS,
    Figures,
    Round,
    lengths,
    prompt_of,
    run_round,
    summarise,
)
from .model import model_path, open_engine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ..config import Settings
    from ..engine import Engine, ModelStatus
    from .arguments import Subparsers


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One backend at one concurrency."""

    backend: str
    concurrency: int
    rounds: tuple[Round, ...]

    @property
    def figures(self) -> Figures:
        return summarise(self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: answers of `n_tokens` to prompts of `n_prompt`, so many at once."""

    n_prompt: int
    n_tokens: int
    concurrency: tuple[int, ...]
    repeat: int


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure how fast a model runs here",
        description="Measure prefill and decode speed through the engine, with nothing cached, "
        "and print medians over the rounds. Several backends are measured in turn, in the same "
        "run, and compared with the first.",
    )
    add = parser.add_argument
    add("--json", action="store_true", help="write one JSON object")
    add(
        "--backends",
        metavar="LIST",
        help="backends to compare, separated by commas; 'all' is every one here that runs the "
        "file (default: that of --backend)",
    )
    add(
        "--concurrency",
        type=_counts,
        metavar="LIST",
        help="answers at once, separated by commas, such as 1,2,4,8 (default: --n-parallel)",
    )
    add("--plot", metavar="FILE", help="draw the rates into a .png, .svg or .pdf file")
    add(
        "--prompt-tokens",
        type=whole_number(1),
        metavar="N",
        help=f"length of the prompt (default: {PROMPT_TOKENS}, less in a small context)",
    )
    add(
        "--tokens",
        type=whole_number(2),
        metavar="N",
        help=f"length of the answer (default: {TOKENS}, less in a small context)",
    )
    add("--repeat", type=whole_number(1), default=5, metavar="N", help="rounds (default: 5)")
    add_settings_flags(parser, MODEL)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args, (*MODEL, *STORAGE))
    concurrency = args.concurrency or (settings.n_parallel,)
    if args.plot:
        from .bench_plot import check_plot

        check_plot(args.plot)
    settings = replace(settings, n_parallel=max(concurrency))
    names = backends_for(settings, args.backends)
    with contextlib.ExitStack() as stack:
        engines = {name: stack.enter_context(_engine(settings, name)) for name in names}
        models = {name: _model(engine) for name, engine in engines.items()}
        n_ctx = min(model.n_ctx for model in models.values())
        n_prompt, n_tokens = lengths(args.prompt_tokens, args.tokens, n_ctx)
        plan = Plan(
            n_prompt=n_prompt, n_tokens=n_tokens, concurrency=concurrency, repeat=args.repeat
        )
        results = measure(engines, plan)
    if args.plot:
        _plot(args.plot, models, results, plan)
    if args.json:
        console.print_json(_as_json(models, results, plan))
    else:
        print(_as_text(models, results, plan))
    return 0


def backends_for(settings: Settings, asked: str | None) -> tuple[str, ...]:
    """The backends to measure. Raises InvalidRequest for a name that is none, and what `choose`
    raises for one that cannot run the file."""
    from ..backends import available, choose

    path = model_path(settings)
    if asked is None:
        return (choose(path, settings.backend).backend,)
    if asked != "all":
        names = tuple(dict.fromkeys(part.strip() for part in asked.split(",") if part.strip()))
        if not names:
            raise InvalidRequest(
                "--backends names none", field="backends", value=asked, allowed="all, or names"
            )
        return tuple(choose(path, name).backend for name in names)
    found = []
    for one in available():
        with contextlib.suppress(ModelFileError, ModelLoadError):
            if one.usable:
                found.append(choose(path, one.name).backend)
    if not found:
        choose(path)  # says why nothing runs it
    return tuple(found)


def measure(engines: dict[str, Engine], plan: Plan) -> list[Result]:
    """Every engine at every concurrency, in turn, after one round each that touches every page."""
    rounds: dict[tuple[str, int], list[Round]] = {
        (name, count): [] for count in plan.concurrency for name in engines
    }
    prompts = {name: prompt_of(engine, plan.n_prompt) for name, engine in engines.items()}
    for name, engine in engines.items():
        run_round(engine, prompts[name], plan.n_tokens, max(plan.concurrency))
    for turn in range(plan.repeat):
        order = list(engines.items())
        for count in plan.concurrency:
            for name, engine in reversed(order) if turn % 2 else order:
                one = run_round(engine, prompts[name], plan.n_tokens, count)
                rounds[name, count].append(one)
    return [
        Result(backend=name, concurrency=count, rounds=tuple(found))
        for (name, count), found in rounds.items()
    ]


def ratio(result: Result, first: Result) -> float:
    """How many times the total rate of *first* another backend has: the median over the rounds,
    each compared with the one beside it in time."""
    import statistics

    return statistics.median(
        mine.total_tokens_per_s / other.total_tokens_per_s
        for mine, other in zip(result.rounds, first.rounds, strict=True)
    )


def _counts(text: str) -> tuple[int, ...]:
    """A list of whole numbers, sorted, each once."""
    return tuple(sorted({whole_number(1)(part.strip()) for part in text.split(",")}))


def _engine(settings: Settings, backend: str) -> Engine:
    return open_engine(
        replace(settings, backend=backend), warm_up=True, clean_cache_threshold=0, embedding=False
    )


def _model(engine: Engine) -> ModelStatus:
    model = engine.status().model
    assert model is not None  # loaded by this process
    return model


def _plot(path: str, models: dict[str, ModelStatus], results: Sequence[Result], plan: Plan) -> None:
    from .bench_plot import draw

    by_backend: dict[str, dict[int, Figures]] = {}
    for one in results:
        by_backend.setdefault(one.backend, {})[one.concurrency] = one.figures
    model = next(iter(models.values()))
    title = f"{model.name}: {plan.n_prompt} prompt tokens, {plan.n_tokens} answered"
    draw(path, title, by_backend, plan.concurrency)


def _as_json(
    models: dict[str, ModelStatus], results: Sequence[Result], plan: Plan
) -> dict[str, Any]:
    first = {one.concurrency: one for one in reversed(results)}
    return {
        "models": [
            {
                "path": model.path,
                "name": model.name,
                "architecture": model.architecture,
                "backend": model.backend,
                "library": model.library,
                "threads": model.threads,
                "gpu_layers": model.gpu_layers,
                "n_ctx": model.n_ctx,
                "n_parallel": model.n_parallel,
                "notes": list(model.notes),
            }
            for model in models.values()
        ],
        "prompt_tokens": plan.n_prompt,
        "tokens": plan.n_tokens,
        "repeat": plan.repeat,
        "results": [
            {
                "backend": one.backend,
                "concurrency": one.concurrency,
                "ratio": ratio(one, first[one.concurrency]),
                **one.figures,
                "answers": [asdict(m) for turn in one.rounds for m in turn.measures],
            }
            for one in results
        ],
    }


_ROWS = (
    ("prefill, tokens/s", 1, "prefill_tokens_per_s"),
    ("decode, tokens/s", 1, "decode_tokens_per_s"),
    ("first token, ms", 1000, "first_token_s"),
    ("in total, tokens/s", 1, "total_tokens_per_s"),
)


def _as_text(models: dict[str, ModelStatus], results: Sequence[Result], plan: Plan) -> str:
    model = next(iter(models.values()))
    head = [
        ("model", f"{model.name} ({model.architecture})"),
        *(
            ("backend", f"{one.backend}, {one.library}, threads {one.threads}, "
             f"GPU layers {one.gpu_layers}")
            for one in models.values()
        ),
        ("prompt, answer", f"{plan.n_prompt}, {plan.n_tokens} tokens"),
        ("rounds", str(plan.repeat)),
        *(("note", f"{one.backend}: {note}") for one in models.values() for note in one.notes),
    ]  # fmt: skip
    first = {one.concurrency: one for one in reversed(results)}
    parts = [console.table(head)]
    for one in results:
        lines = [f"{one.backend}, {one.concurrency} at once"]
        if len(models) > 1 and one is not first[one.concurrency]:
            other = first[one.concurrency]
            lines[0] += f": {ratio(one, other):.2f} times {other.backend} in total"
        lines.append(f"{'':<20}{'median':>10}{'min':>10}{'max':>10}")
        for name, scale, key in _ROWS:
            of = one.figures[key]
            cells = "".join(f"{of[what] * scale:>10.1f}" for what in ("median", "min", "max"))
            lines.append(f"{name:<20}{cells}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
