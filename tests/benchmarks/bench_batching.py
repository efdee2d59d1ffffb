"""Every benchmark of continuous batching in one command: ratios against peers of the same run.

    python tests/benchmarks/bench_batching.py               # everything, a table at the end
    python tests/benchmarks/bench_batching.py --only slots prefix --shapes 110M --runs 3

Each side runs in a process of its own (tests/support/bench_sides.py), in turn with the other, with
the same number of native threads. A row gives the median of the ratios of `--runs` rounds, the
smallest and the largest. Needs llama-cpp-python, and for their rows xllamacpp, ctransformers and
`llama-cpp-python[server]`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support.bench_models import bench_model
from support.bench_sides import Side
from support.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPES = ("15M", "110M", "1.1B")
# Tokens of an answer: long enough to be more than noise, short enough that a round ends.
TOKENS = {"15M": 128, "110M": 64, "1.1B": 24}


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure for every round, and the bar that their median should
    reach."""

    name: str
    figures: tuple[float, ...]
    bar: str
    detail: str

    @property
    def cells(self) -> tuple[str, ...]:
        low, middle, high = min(self.figures), statistics.median(self.figures), max(self.figures)
        return (self.name, f"{middle:.3g}", f"{low:.3g} - {high:.3g}", self.bar, self.detail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SUITES), default=tuple(SUITES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--json", type=Path, help="write the rows of this run into a file")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "nitrolib-benchmarks"
    )
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.only:
        for row in SUITES[name](arguments):
            print(" | ".join(row.cells), flush=True)
            rows.append(row)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ")
    print(f"{arguments.threads} native thread(s), {arguments.runs} interleaved rounds\n")
    print("| what | median | range | bar | medians of the sides |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row.cells) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps([row.__dict__ for row in rows], indent=1))


def in_turn(
    runs: int, one: Callable[[int], dict[str, Any]], other: Callable[[int], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Both sides in turn, the order changing, after one unmeasured round each. A side gets the
    number of its round, so that none meets the prompts of an earlier one."""
    one(-1), other(-1)
    ones, others = [], []
    for run in range(runs):
        pair = [(ones, one), (others, other)]
        for found, side in reversed(pair) if run % 2 else pair:
            found.append(side(run))
    return ones, others


def ratio(
    name: str,
    bar: str,
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    names: tuple[str, str],
    key: str = "rate",
    unit: str = "tok/s",
) -> Row:
    values = [[answer[key] for answer in side] for side in sides]
    detail = ", ".join(
        f"{who} {statistics.median(of):.4g} {unit}" for who, of in zip(names, values, strict=True)
    )
    return Row(name, tuple(a / b for a, b in zip(*values, strict=True)), bar, detail)


def slots(arguments: argparse.Namespace) -> Iterator[Row]:
    """Aggregate decode at 1 to 8 slots, greedy, 8-token prompts: Engine against xllamacpp."""
    for shape in arguments.shapes:
        path, tokens = bench_model(arguments.cache, shape), TOKENS[shape]
        for count in (1, 2, 4, 8):
            bar = ">= 1.15" if count == 8 and shape != "15M" else ">= 1.0"
            with (
                Side("nitrolib", path, slots=count, threads=arguments.threads) as ours,
                Side("xllamacpp", path, slots=count, threads=arguments.threads) as theirs,
            ):
                found = in_turn(
                    arguments.runs,
                    lambda n, s=ours, t=tokens: s.run("decode", tokens=t, seed=97 * n),
                    lambda n, s=theirs, t=tokens: s.run("decode", tokens=t, seed=97 * n),
                )
            name = f"decode {shape}, {count} slot{'s' * (count > 1)}: Engine / xllamacpp"
            yield ratio(name, bar, found, ("Engine", "xllamacpp"))


def prefix(arguments: argparse.Namespace) -> Iterator[Row]:
    """16 requests on 4 slots, a common beginning of 300 tokens and 40 of their own."""
    yield from _mixed(
        arguments, "common 300-token prefix", ">= 1.5", {"shared": 300, "own": 40, "cache": True}
    )


def mixed(arguments: argparse.Namespace) -> Iterator[Row]:
    """16 requests on 4 slots with different prompts of 200 tokens."""
    yield from _mixed(arguments, "different 200-token prompts", ">= 1.0", {"own": 200})


def _mixed(
    arguments: argparse.Namespace, what: str, bar: str, prompts: dict[str, Any]
) -> Iterator[Row]:
    order = {"jobs": 16, "tokens": 32, **prompts}
    path = bench_model(arguments.cache, "110M")
    with (
        Side("nitrolib", path, slots=4, threads=arguments.threads) as ours,
        Side("xllamacpp", path, slots=4, threads=arguments.threads) as theirs,
    ):
        found = in_turn(
            arguments.runs,
            lambda n: ours.run("decode", seed=97 * n, **order),
            lambda n: theirs.run("decode", seed=97 * n, **order),
        )
    names = ("Engine", "xllamacpp")
    yield ratio(f"{what}, 16 requests on 4 slots, 110M: rate", bar, found, names)
    name = f"{what}, 16 requests on 4 slots, 110M: mean time to first token"
    yield ratio(name, "<= 0.8", found, names, "first_s", "s")


def overhead(arguments: argparse.Namespace) -> Iterator[Row]:
    """Everything outside the native evaluation at 8 slots, in microseconds a step."""
    for shape, bars in (("15M", ("<= 100", "-")), ("110M", ("<= 200", "<= 400"))):
        if shape not in arguments.shapes:
            continue
        with Side(
            "nitrolib", bench_model(arguments.cache, shape), slots=8, threads=arguments.threads
        ) as ours:
            for sample, bar in zip((False, True), bars, strict=True):
                ours.run("decode", tokens=16, sample=sample)
                found = [
                    ours.run("overhead", tokens=96, sample=sample, seed=97 * run)
                    for run in range(arguments.runs)
                ]
                chain = "default chain" if sample else "greedy"
                native = statistics.median(one["native_us"] for one in found)
                yield Row(
                    f"outside the native call, 8 slots, {shape}, {chain}: microseconds a step",
                    tuple(one["outside_us"] for one in found),
                    bar,
                    f"native call {native:.0f} us",
                )


def prefill(arguments: argparse.Namespace) -> Iterator[Row]:
    """A prompt of 512 tokens, against `Llama.eval`."""
    for shape in arguments.shapes:
        path = bench_model(arguments.cache, shape)
        with (
            Side("nitrolib", path, slots=1, ctx=1024, threads=arguments.threads) as ours,
            Side("llama-cpp-python", path, slots=1, ctx=1024, threads=arguments.threads) as theirs,
        ):
            found = in_turn(
                arguments.runs,
                lambda n, s=ours: s.run("prefill", tokens=512, seed=n + 1),
                lambda n, s=theirs: s.run("prefill", tokens=512, seed=n + 1),
            )
        name = f"prefill of 512 tokens, {shape}: Engine / Llama.eval"
        yield ratio(name, ">= 0.97", found, ("Engine", "Llama.eval"))


def beside(arguments: argparse.Namespace) -> Iterator[Row]:
    """The longest wait of a decoding answer while a prompt of 2,000 tokens is evaluated beside it,
    against the longest evaluation of a part of that prompt."""
    path = bench_model(arguments.cache, "110M")
    with Side("nitrolib", path, slots=2, ctx=2304, threads=arguments.threads) as ours:
        from nitrolib.engine.planning import BESIDE_DECODES

        ours.run("beside", tokens=2000, answer=400)
        found = [ours.run("beside", tokens=2000, answer=400) for _ in range(arguments.runs)]
    waits = tuple(one["gap_s"] / one["part_s"] for one in found)
    gap = statistics.median(one["gap_s"] for one in found)
    detail = f"longest wait {1e3 * gap:.0f} ms"
    yield Row(
        f"longest wait of a decode beside a 2,000-token prefill / longest part of {BESIDE_DECODES}",
        waits,
        "1",
        detail,
    )


def ctransformers(arguments: argparse.Namespace) -> Iterator[Row]:
    """The two backends on one file: prefill, one answer, and 8 answers at once."""
    names = ("llama-cpp-python", "ctransformers")
    for shape in arguments.shapes:
        if shape == "15M":
            continue
        path, tokens = bench_model(arguments.cache, shape), TOKENS[shape]
        for count in (1, 8):
            options = {"slots": count, "ctx": 2048 // count, "threads": arguments.threads}
            with (
                Side("nitrolib", path, **options) as ours,
                Side("nitrolib", path, **options, backend="ctransformers") as theirs,
            ):
                if count == 1:
                    found = in_turn(
                        arguments.runs,
                        lambda n, s=ours: s.run("prefill", tokens=512, seed=n + 1),
                        lambda n, s=theirs: s.run("prefill", tokens=512, seed=n + 1),
                    )
                    yield ratio(f"backends, {shape}: prefill of 512 tokens", "-", found, names)
                found = in_turn(
                    arguments.runs,
                    lambda n, s=ours, t=tokens: s.run("decode", tokens=t, seed=97 * n),
                    lambda n, s=theirs, t=tokens: s.run("decode", tokens=t, seed=97 * n),
                )
                what = "one answer" if count == 1 else "8 answers at once"
                yield ratio(f"backends, {shape}: decode, {what}", "-", found, names)


def instances(arguments: argparse.Namespace) -> Iterator[Row]:
    """8 answers of the Engine at once, against 8 models of ctransformers itself in threads."""
    for shape in arguments.shapes:
        if shape == "15M":
            continue
        path, tokens = bench_model(arguments.cache, shape), TOKENS[shape]
        with (
            Side("nitrolib", path, slots=8, threads=arguments.threads) as ours,
            Side("ctransformers", path, slots=8, threads=arguments.threads) as theirs,
        ):
            found = in_turn(
                arguments.runs,
                lambda n, s=ours, t=tokens: s.run("decode", tokens=t, seed=97 * n),
                lambda n, s=theirs, t=tokens: s.run("decode", tokens=t, seed=97 * n),
            )
        name = f"decode {shape}, 8 slots: Engine / 8 models of ctransformers"
        yield ratio(name, ">= 1.8", found, ("Engine", "ctransformers"))


def memory(arguments: argparse.Namespace) -> Iterator[Row]:
    """What a slot more costs, against what its KV cache takes."""
    path = bench_model(arguments.cache, "110M")
    figures: list[float] = []
    each = needed = 0.0
    for _ in range(arguments.runs):
        found = {}
        for count in (1, 8):
            with Side("nitrolib", path, slots=count, threads=arguments.threads) as side:
                found[count] = side.run("memory")
        each = (found[8]["resident"] - found[1]["resident"]) / 7
        needed = found[1]["kv_cache"]
        figures.append(each / needed)
    yield Row(
        "resident memory of a slot of 512 tokens, 110M / its KV cache",
        tuple(figures),
        "about 1",
        f"a slot {each / 2**20:.1f} MiB, its KV cache {needed / 2**20:.1f} MiB",
    )


def http(arguments: argparse.Namespace) -> Iterator[Row]:
    """8 streaming clients through gunicorn against as many of `python -m llama_cpp.server`."""
    for shape, bar in (("110M", ">= 3.0"), ("1.1B", ">= 2.3")):
        if shape not in arguments.shapes:
            continue
        path, tokens = bench_model(arguments.cache, shape), TOKENS[shape]
        settings = {
            "ctx_len": 8 * 512,
            "n_parallel": 8,
            "threads": arguments.threads,
            "clean_cache_threshold": 0,
            "backend": "llama-cpp-python",
        }
        with serve(model=path, **settings) as server, _peer_server(path, arguments) as port:
            found = in_turn(
                arguments.runs,
                lambda n, p=server.port, t=tokens: _clients(p, 8, t, n),
                lambda n, p=port, t=tokens: _clients(p, 8, t, n),
            )
        name = f"8 streaming clients, {shape}: gunicorn / llama_cpp.server"
        yield ratio(name, bar, found, ("gunicorn", "llama_cpp.server"))


@contextlib.contextmanager
def _peer_server(path: Path, arguments: argparse.Namespace) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--port", str(port),
        "--n_ctx", "512", "--n_threads", str(arguments.threads), "--n_threads_batch",
        str(arguments.threads), "--interrupt_requests", "False", "--verbose", "False",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def _clients(port: int, count: int, tokens: int, run: int) -> dict[str, Any]:
    """Tokens per second that all clients together see, from the first request to the last token."""
    ends = [0.0] * count
    got = [0] * count

    def read(index: int) -> None:
        body = {
            "messages": [{"role": "user", "content": f"Tell me story {run} number {index}."}],
            "stream": True,
            "max_tokens": tokens,
            "temperature": 0,
            "repeat_penalty": 1.0,
        }
        connection = HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        assert response.status == 200, response.read()
        pieces, reason = 0, None
        for line in response:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    pieces += bool(choice["delta"].get("content"))
                    reason = choice.get("finish_reason") or reason
        ends[index] = time.perf_counter()
        # A token that ends inside a character has no event of its own.
        got[index] = tokens if reason == "length" else pieces
        connection.close()

    begin = time.perf_counter()
    threads = [threading.Thread(target=read, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"rate": sum(got) / (max(ends) - begin), "tokens": sum(got)}


SUITES: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "slots": slots,
    "prefix": prefix,
    "mixed": mixed,
    "overhead": overhead,
    "prefill": prefill,
    "beside": beside,
    "memory": memory,
    "http": http,
    "ctransformers": ctransformers,
    "instances": instances,
}

if __name__ == "__main__":
    main()
