"""Every benchmark of the engine on ctransformers in one command: ratios against peers measured in
the same run. `bench_batching.py` has those of the other backend.

    python tests/benchmarks/bench_engine.py                 # everything, a table at the end
    python tests/benchmarks/bench_engine.py --only load import --runs 3

Each comparison runs the two sides in turn, `--runs` times, and prints the median of the ratios with
the smallest and the largest. All sides use the same number of native threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support.bare_loop import BareLoop
from support.bench_models import bench_model
from support.server import serve

from nitrolib import ChatSession, Engine, LoadOptions, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMPT_TOKENS = 16


@dataclass(frozen=True)
class Row:
    """One line of the table: the ratios of all runs and the bar that their median should reach."""

    name: str
    ratios: tuple[float, ...]
    bar: str
    detail: str

    @property
    def cells(self) -> tuple[str, ...]:
        low, middle, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        return (self.name, f"{middle:.3f}", f"{low:.3f} - {high:.3f}", self.bar, self.detail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SUITES), default=tuple(SUITES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=48, help="decoded tokens a run")
    parser.add_argument("--shapes", nargs="+", default=["110M", "1.1B"])
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
    print(f"{arguments.threads} native thread(s), {arguments.runs} interleaved runs\n")
    print("| what | median ratio | range | bar | medians |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row.cells) + " |")


def interleave(
    runs: int, ours: Callable[[], float], theirs: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Both sides in turn, the order changing, after one unmeasured round each."""
    ours(), theirs()
    mine, other = [], []
    for run in range(runs):
        if run % 2:
            other.append(theirs())
            mine.append(ours())
        else:
            mine.append(ours())
            other.append(theirs())
    return mine, other


def compare(
    name: str, bar: str, unit: str, sides: tuple[list[float], list[float]], names: tuple[str, str]
) -> Row:
    mine, other = sides
    detail = ", ".join(
        f"{who} {statistics.median(values):.4g} {unit}"
        for who, values in zip(names, sides, strict=True)
    )
    return Row(name, tuple(a / b for a, b in zip(mine, other, strict=True)), bar, detail)


def prompt_ids(tokens: int) -> list[int]:
    """BOS and ordinary ids, the same for every side."""
    return [1, *(300 + 7 * i % 1000 for i in range(tokens - 1))]


def engine_for(arguments: argparse.Namespace, path: Path, **options: object) -> Engine:
    fields = {"ctx_len": 512, "threads": arguments.threads, "warm_up": False, **options}
    options = LoadOptions(clean_cache_threshold=0, **fields)  # type: ignore[arg-type]
    return Engine.open(path, options, "ctransformers")


def engine_decode_rate(engine: Engine, tokens: int) -> float:
    """Tokens per second as the reader of a Generation sees them, from the first chunk to the last;
    the tokens of the first chunk came with the prompt."""
    params = SamplingParams(
        temperature=0, repeat_penalty=1.0, ignore_eos=True, max_tokens=tokens + 1
    )
    times: list[float] = []
    counts: list[int] = []
    for chunk in engine.stream(prompt_ids(PROMPT_TOKENS), params, cache_prompt=False):
        times.append(time.perf_counter())
        counts.append(len(chunk.token_ids))
    assert sum(counts) == tokens + 1, counts
    return sum(counts[1:]) / (times[-1] - times[0])


def decode(arguments: argparse.Namespace) -> Iterator[Row]:
    """(a) against a bare ctypes loop with numpy's argmax over the same native library."""
    for shape in arguments.shapes:
        path = bench_model(arguments.cache, shape)
        with (
            engine_for(arguments, path) as engine,
            BareLoop(path, n_ctx=512, threads=arguments.threads) as bare,
        ):
            sides = interleave(
                arguments.runs,
                partial(engine_decode_rate, engine, arguments.tokens),
                partial(bare.decode_rate, prompt_ids(PROMPT_TOKENS), arguments.tokens),
            )
        name = f"(a) greedy decode {shape}: Engine / bare ctypes loop"
        yield compare(name, ">= 0.95", "tok/s", sides, ("Engine", "loop"))


def peer(arguments: argparse.Namespace) -> Iterator[Row]:
    """(b) against ctransformers' own LLM.generate, greedy."""
    from ctransformers.llm import LLM, Config

    def generate(llm: LLM) -> float:
        started = count = 0
        begin = 0.0
        for _ in llm.generate(
            prompt_ids(PROMPT_TOKENS), top_k=1, temperature=0, repetition_penalty=1.0
        ):
            if not started:
                started, begin = 1, time.perf_counter()
                continue
            count += 1
            if count == arguments.tokens:
                break
        return count / (time.perf_counter() - begin)

    for shape in arguments.shapes:
        path = bench_model(arguments.cache, shape)
        config = Config(context_length=512, threads=arguments.threads)
        llm = LLM(str(path), "gguf", config=config, lib="avx2")
        with engine_for(arguments, path) as engine:
            ours = partial(engine_decode_rate, engine, arguments.tokens)
            sides = interleave(arguments.runs, ours, partial(generate, llm))
        name = f"(b) greedy decode {shape}: Engine / ctransformers LLM.generate"
        yield compare(name, ">= 1.0", "tok/s", sides, ("Engine", "LLM"))


def http(arguments: argparse.Namespace) -> Iterator[Row]:
    """(c) one streaming HTTP client through gunicorn against the Engine in this process."""
    path = bench_model(arguments.cache, "110M")
    settings = {
        "backend": "ctransformers",
        "ctx_len": 512,
        "threads": arguments.threads,
        "clean_cache_threshold": 0,
    }
    with serve(model=path, **settings) as server, engine_for(arguments, path) as engine:
        sides = interleave(
            arguments.runs,
            partial(http_decode_rate, server.port, arguments.tokens),
            partial(engine_decode_rate, engine, arguments.tokens),
        )
    name = "(c) one streaming client, 110M: gunicorn / Engine"
    yield compare(name, ">= 0.92", "tok/s", sides, ("HTTP", "Engine"))


def http_decode_rate(port: int, tokens: int) -> float:
    """Tokens per second from the first text event to the last, as the client sees them."""
    body = {
        "messages": [{"role": "user", "content": "Hello there"}],
        "stream": True,
        "max_tokens": tokens + 1,
        "temperature": 0,
        "repeat_penalty": 1.0,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    assert response.status == 200, response.read()
    first = last = 0.0
    completion_tokens = 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if event["choices"] and event["choices"][0]["delta"].get("content"):
            last = time.perf_counter()
            first = first or last
        if event.get("usage"):
            completion_tokens = event["usage"]["completion_tokens"]
    connection.close()
    return (completion_tokens - 1) / (last - first)


def load(arguments: argparse.Namespace) -> Iterator[Row]:
    """(d) time to load against ctransformers.LLM as a user calls it."""
    from ctransformers.llm import LLM, Config

    path = bench_model(arguments.cache, "110M")

    def ours(warm_up: bool) -> float:
        begin = time.perf_counter()
        engine = engine_for(arguments, path, warm_up=warm_up)
        spent = time.perf_counter() - begin
        engine.close()
        return spent

    def theirs() -> float:
        begin = time.perf_counter()
        llm = LLM(str(path), config=Config(context_length=512))
        spent = time.perf_counter() - begin
        del llm
        return spent

    for warm_up, name in ((False, "no warm-up"), (True, "with warm-up")):
        sides = interleave(arguments.runs, partial(ours, warm_up), theirs)
        name = f"(d) load 110M, {name}: Engine / ctransformers.LLM"
        yield compare(name, "<= 0.35", "s", sides, ("Engine", "LLM"))


def chat(arguments: argparse.Namespace) -> Iterator[Row]:
    """(e) second turn of a 1,000-token chat: tokens evaluated beside the new tokens."""
    path = bench_model(arguments.cache, "15M")
    with engine_for(arguments, path, ctx_len=2048) as engine:
        session = ChatSession(engine, params=SamplingParams(temperature=0, max_tokens=16))
        text = "the story of a small town by the sea "
        words = text
        while len(engine.tokenize(words)) < 940:
            words += text
        first = session.send(words)
        held = len(first.prompt_token_ids) + len(first.token_ids)
        second = session.send("And then?")
        evaluated = second.usage.prompt_tokens - second.usage.cached_tokens
        new = second.usage.prompt_tokens - held
        detail = (
            f"{held} tokens held, {new} new in the second prompt, {evaluated} evaluated, "
            f"{second.usage.cached_tokens} cached"
        )
    yield Row("(e) second turn: evaluated - new tokens", (float(evaluated - new),), "<= 1", detail)


def imports(arguments: argparse.Namespace) -> Iterator[Row]:
    """(f) import time of nitrolib, and of its Engine, less that of numpy."""

    def seconds(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begin

    def milliseconds(code: str) -> Iterator[float]:
        for _ in range(max(arguments.runs, 9)):
            yield 1e3 * (seconds(code) - seconds("import numpy"))

    for code in ("import nitrolib", "import nitrolib; nitrolib.Engine"):
        differences = tuple(milliseconds(code))
        name = f"(f) `{code}` minus `import numpy`, ms"
        yield Row(name, differences, "-", "whole processes, in milliseconds, not a ratio")


SUITES: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "decode": decode,
    "peer": peer,
    "http": http,
    "load": load,
    "chat": chat,
    "import": imports,
}

if __name__ == "__main__":
    main()
