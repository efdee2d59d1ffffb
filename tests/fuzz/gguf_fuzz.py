"""Fuzzes verify and the native loader with damaged GGUF files, in child processes.

    python tests/fuzz/gguf_fuzz.py --count 20000 --seed 1
    python tests/fuzz/gguf_fuzz.py --count 20000 --seed 1 --backend llama-cpp-python

With llama-cpp-python the files were models of today's families. Every file goes through `verify`;
what it lets pass is loaded for real, tokenized and evaluated. Prints one line of JSON, and ends
with 1 if any file crashed or hung the child, or raised anything but the errors that are meant.
File number i of a seed is always the same: `--only i` repeats it.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(_TESTS), str(_TESTS.parent)) if path not in sys.path]

from support.gguf_mutations import mutate  # noqa: E402

from nitrolib.backends import Feed, LoadOptions, Runtime, load  # noqa: E402
from nitrolib.errors import (  # noqa: E402
    BackendError,
    InvalidRequest,
    ModelFileError,
    ModelLoadError,
)
from nitrolib.gguf import CTRANSFORMERS, LLAMA_CPP, Rule, verify  # noqa: E402

HANG_S = 30.0
RULES: dict[str, Rule] = {rule.backend: rule for rule in (CTRANSFORMERS, LLAMA_CPP)}
TEXT = "Hello world, \u00e9t\u00e9 \u4f60\u597d \U0001f600 </s><s>\t\n the end of it"
# What a file may come to; everything else is a fault of nitrolib.
FINE = ("damaged", "unsupported", "loaded", "not finite", "load refused")


def damaged(seed: int, index: int, backend: str) -> tuple[bytes, str]:
    """File `index` of a seed, and what was done to it."""
    return mutate(random.Random(f"{seed}/{index}"), todays=backend != "ctransformers")


def one_file(
    path: Path, seed: int, index: int, backend: str, *, unguarded: bool = False
) -> tuple[str, str]:
    """What became of file `index`, and in words why."""
    path.write_bytes(damaged(seed, index, backend)[0])
    if unguarded:
        return _run_unguarded(path, backend)
    try:
        verify(path, RULES[backend])
    except ModelFileError as error:
        return ("unsupported" if error.unsupported else "damaged"), str(error)
    try:
        return _run(path, backend)
    except ModelLoadError as error:
        return "load refused", str(error)


def _run(path: Path, backend: str) -> tuple[str, str]:
    options = LoadOptions(ctx_len=64, ngl=0, threads=1, warm_up=False)
    runtime = load(str(path), options, backend=backend)
    try:
        try:
            tokens = runtime.tokenize(TEXT)[: runtime.n_ctx]
        except InvalidRequest:  # a vocabulary that lost the bytes to spell it
            tokens = []
        tokens = tokens or [0]
        if "generate" in runtime.capabilities:
            _generate(runtime, tokens)
        if "embedder" in runtime.capabilities:
            _embed(runtime, tokens)
    except BackendError as error:
        return "not finite", str(error)
    finally:
        runtime.close()
    return "loaded", ""


def _generate(runtime: Runtime, tokens: list[int]) -> None:
    step = min(16, runtime.n_batch)
    for start in range(0, len(tokens), step):
        runtime.decode([Feed(0, tokens[start : start + step])])
        runtime.logits(0)
    runtime.keep(0, 0)
    if "embed" in runtime.capabilities:
        runtime.decode([Feed(0, [runtime.info.n_vocab - 1], "embedding")])
        runtime.embed(0)
    else:
        runtime.decode([Feed(0, [runtime.info.n_vocab - 1])])
        if "copy" in runtime.capabilities:
            runtime.keep(0, runtime.length(0))


def _embed(runtime: Any, tokens: list[int]) -> None:
    embedder = runtime.embedder()
    try:
        text = tokens[: max(1, embedder.n_batch - 8)]
        if "rank" in runtime.capabilities:
            embedder.rank([embedder.pair(text[:4], text[:8])])
        else:
            embedder.embed([text, text[:1]][: embedder.n_seq])
    finally:
        embedder.close()


def _run_unguarded(path: Path, backend: str) -> tuple[str, str]:
    if backend != "ctransformers":
        return _run_unguarded_llama(path)
    from ctransformers import LLM, Config

    try:
        model = LLM(str(path), "gguf", config=Config(context_length=64), lib="basic")
    except (RuntimeError, ValueError) as error:
        return "load refused", str(error)
    model.eval([1, 5, 6, 7], threads=1)
    return "loaded", ""


def _run_unguarded_llama(path: Path) -> tuple[str, str]:
    from llama_cpp import Llama

    try:
        model = Llama(str(path), n_ctx=64, n_threads=1, verbose=False)
    except ValueError as error:
        return "load refused", str(error)
    model.eval([0, 1, 2, 3])
    return "loaded", ""


def child(seed: int, start: int, stop: int, folder: Path, backend: str, *, unguarded: bool) -> None:
    """Work through files start .. stop - 1; report each before and after on stdout. The folder is
    the parent's, who cleans up when a file has ended this process."""
    _limit_memory()
    for index in range(start, stop):
        path = folder / f"{index}.gguf"
        print(f"begin\t{index}", flush=True)
        try:
            outcome, why = one_file(path, seed, index, backend, unguarded=unguarded)
        except Exception as error:  # noqa: BLE001 (the very thing that is looked for)
            outcome, why = "unexpected", f"{type(error).__name__}: {error}"
        print(f"end\t{index}\t{outcome}\t{json.dumps(why)}", flush=True)
        path.unlink()


def _limit_memory() -> None:
    """A file that makes the child take gigabytes shall fail here, not swap the machine away."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _memory_folder() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def fuzz(
    count: int,
    seed: int,
    start: int = 0,
    *,
    backend: str = "ctransformers",
    unguarded: bool = False,
) -> tuple[Counter[str], list[str]]:
    """Counts by outcome, and a line for everything that must not happen. With `unguarded` the
    native library gets the files unverified: that shows that crashes are seen, and why verify is
    there."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    index = start
    while index < start + count:
        options = ["--backend", backend, *(["--unguarded"] if unguarded else [])]
        index = _one_child(seed, index, start + count, options, outcomes, faults)
    return outcomes, faults


def _one_child(
    seed: int,
    start: int,
    stop: int,
    options: list[str],
    outcomes: Counter[str],
    faults: list[str],
) -> int:
    """Run a child until it is done or gone; returns the first file that is still to do."""
    command = [sys.executable, __file__, *options, "--child"]
    command += [str(seed), str(start), str(stop)]
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    done, current = start, start
    with (
        tempfile.TemporaryFile() as stderr,
        tempfile.TemporaryDirectory(dir=_memory_folder()) as folder,
        subprocess.Popen(
            [*command, folder], stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        pump = threading.Thread(target=_pump, args=(process, lines))
        pump.start()
        try:
            while (line := lines.get(timeout=HANG_S)) is not None:
                kind, index, *rest = line.rstrip("\n").split("\t")
                current = int(index)
                if kind == "end":
                    done = current + 1
                    outcomes[rest[0]] += 1
                    if rest[0] not in FINE:
                        faults.append(f"{rest[0]} at file {index}: {rest[1]}")
        except queue.Empty:
            process.kill()
            outcomes["hang"] += 1
            faults.append(f"hang at file {current}")
            return done + 1
        finally:
            pump.join()
        status = process.wait()
        if done == stop and status == 0:
            return stop
        stderr.seek(0)
        words = stderr.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    outcomes["crash"] += 1
    faults.append(f"crash at file {current}: exit status {status} {words}")
    return done + 1


def _pump(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=RULES, default="ctransformers")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat one file in this process")
    parser.add_argument(
        "--unguarded", action="store_true", help="without verify: shows what it is there for"
    )
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        seed, start, stop, folder = arguments.child
        child(
            int(seed), int(start), int(stop), Path(folder), arguments.backend,
            unguarded=arguments.unguarded,
        )  # fmt: skip
        return 0
    if arguments.only is not None:
        _, steps = damaged(arguments.seed, arguments.only, arguments.backend)
        print(arguments.only, steps, flush=True)
        path = Path(tempfile.gettempdir()) / f"fuzz-{arguments.seed}-{arguments.only}.gguf"
        print(path, flush=True)
        print(*one_file(path, arguments.seed, arguments.only, arguments.backend))
        return 0
    began = time.monotonic()
    outcomes, faults = fuzz(
        arguments.count,
        arguments.seed,
        arguments.start,
        backend=arguments.backend,
        unguarded=arguments.unguarded,
    )
    for fault in faults[:50]:
        print(fault)
    report = {
        "files": arguments.count,
        "backend": arguments.backend,
        "seed": arguments.seed,
        **{name: outcomes[name] for name in (*FINE, "unexpected", "crash", "hang")},
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(report))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
