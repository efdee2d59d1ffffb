"""The sides of a benchmark, each in a process of its own: thread pools that spin must not meet.

    with Side("nitrolib", path, slots=8) as ours, Side("xllamacpp", path, slots=8) as theirs:
        ours.run("decode", tokens=32)["rate"]

A side loads its model once and answers one order after another; while one works the others sleep.
Run as a script it is such a process: orders come as lines of JSON, and so do the answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]


class Side:
    """A process that runs orders on one loaded model.

    kind: "nitrolib" (with `backend`), "xllamacpp", "llama-cpp-python" or "ctransformers".
    """

    def __init__(self, kind: str, path: Path, **options: Any) -> None:
        command = [sys.executable, str(Path(__file__)), kind, str(path), json.dumps(options)]
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            # What nitrolib sets for itself: on a machine with other work it helps the peers too.
            "GOMP_SPINCOUNT": "1000",
        }
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.about = self._answer()

    def run(self, order: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"order": order, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # a native library may print what it likes
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the side ended with status {self._process.wait()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def ids(tokens: int, start: int = 0) -> list[int]:
    """BOS and ordinary ids; another start gives other ids."""
    return [1, *(300 + (start * 131 + 7 * i) % 30000 for i in range(tokens - 1))]


def prompts_of(order: dict[str, Any], slots: int) -> list[list[int]]:
    """The prompts of an order: `jobs` of them, `own` tokens each behind `shared` common ones."""
    own, shared = order.get("own", 8), order.get("shared", 0)
    seed = order.get("seed", 0)  # so that no round finds what another one left
    common = ids(shared, 1000 + seed)[:shared]
    return [
        common + ids(own, 1 + seed + n)[bool(shared) :] for n in range(order.get("jobs", slots))
    ]


# In the process of a side ------------------------------------------------------------------------


class _Clock:
    """When each answer of a round got its tokens."""

    def __init__(self, answers: int) -> None:
        self.first = [0.0] * answers
        self.last = [0.0] * answers
        self.tokens = [0] * answers
        self.gap = [0.0] * answers
        self.begin = time.perf_counter()

    def token(self, answer: int, count: int) -> None:
        now = time.perf_counter()
        if self.tokens[answer]:
            self.gap[answer] = max(self.gap[answer], now - self.last[answer])
        else:
            self.first[answer] = now
        self.tokens[answer] += count
        self.last[answer] = now

    def report(self) -> dict[str, Any]:
        end = max(self.last)
        return {
            "rate": sum(self.tokens) / (end - self.begin),
            "tokens": sum(self.tokens),
            "seconds": end - self.begin,
            "first_s": sum(self.first) / len(self.first) - self.begin,
            "gap_s": max(self.gap),
        }


def _in_threads(count: int, run: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Nitrolib:
    """The real Engine: streamed chunks from Generation handles, a reader thread each."""

    def __init__(self, path: str, slots: int, ctx: int = 512, **options: Any) -> None:
        from nitrolib import Engine, LoadOptions

        backend = options.pop("backend", "llama-cpp-python")
        self.slots = slots
        self._native_s = 0.0
        self._steps = 0
        self.engine = Engine.open(
            path,
            LoadOptions(
                ctx_len=ctx * slots,
                n_parallel=slots,
                clean_cache_threshold=0,
                warm_up=True,
                embedding=False,
                **{"threads": 2, **options},
            ),
            backend,
        )
        status = self.engine.status().model
        assert status is not None
        self.about = {"backend": status.backend, "library": status.library, "n_ctx": status.n_ctx}

    def decode(self, order: dict[str, Any]) -> dict[str, Any]:
        """All prompts at once, every answer to the end; greedy, or by the default sampler."""
        from nitrolib import GenerationRequest, SamplingParams

        fields: dict[str, Any] = {"ignore_eos": True, "max_tokens": order["tokens"]}
        if not order.get("sample"):
            fields |= {"temperature": 0, "repeat_penalty": 1.0}
        else:
            fields |= {"repeat_penalty": 1.0, "seed": 1}
        prompts = prompts_of(order, self.slots)
        clock = _Clock(len(prompts))
        running = [
            self.engine.submit(
                GenerationRequest(
                    prompt=tuple(prompt),
                    params=SamplingParams(**fields),
                    cache_prompt=order.get("cache", False),
                )
            )
            for prompt in prompts
        ]

        def read(index: int) -> None:
            for chunk in running[index]:
                if chunk.token_ids:
                    clock.token(index, len(chunk.token_ids))

        _in_threads(len(running), read)
        usages = [one.result().usage for one in running]
        return clock.report() | {
            "evaluated": sum(one.prompt_tokens - one.cached_tokens for one in usages)
        }

    def overhead(self, order: dict[str, Any]) -> dict[str, Any]:
        """As `decode`, and the microseconds of a step outside the native evaluation: the time of
        the loop's thread between two native calls."""
        from support.native_clock import timed_decode

        with timed_decode(self.engine) as clock:
            report = self.decode(order)
        return report | clock.report(at_least=self.slots)

    def prefill(self, order: dict[str, Any]) -> dict[str, Any]:
        from nitrolib import SamplingParams

        prompt = ids(order["tokens"], order.get("seed", 0))
        params = SamplingParams(temperature=0, max_tokens=1, repeat_penalty=1.0)
        done = self.engine.complete(prompt, params, cache_prompt=False)
        return {"rate": order["tokens"] / done.timings.prefill_s}

    def memory(self, order: dict[str, Any]) -> dict[str, Any]:
        """The resident memory of this process after all slots were filled, in bytes, and what the
        KV cache of one of them takes: keys and values of 16 bits."""
        import psutil

        info = self.engine._model.runtime.info  # type: ignore[union-attr]
        self.decode({"own": 256, "tokens": 200})
        per_token = 2 * 2 * info.n_layer * info.n_head_kv * info.head_size
        return {
            "resident": psutil.Process().memory_info().rss,
            "kv_cache": per_token * self.about["n_ctx"],
        }

    def beside(self, order: dict[str, Any]) -> dict[str, Any]:
        """The longest wait of a decoding answer while a prompt of `tokens` is evaluated beside it,
        and the longest native call, which evaluates a part of that prompt and a decode."""
        from support.native_clock import timed_decode

        with timed_decode(self.engine) as clock:
            return self._beside(order) | {"part_s": clock.longest()}

    def _beside(self, order: dict[str, Any]) -> dict[str, Any]:
        from nitrolib import SamplingParams

        params = SamplingParams(
            temperature=0, repeat_penalty=1.0, ignore_eos=True, max_tokens=order["answer"]
        )
        clock = _Clock(1)
        generation = self.engine.stream(ids(8), params, cache_prompt=False)
        other = None
        for count, chunk in enumerate(generation):
            clock.token(0, len(chunk.token_ids))
            if count == 8:
                clock.gap[0] = 0.0
                other = self.engine.stream(
                    ids(order["tokens"], 5),
                    SamplingParams(temperature=0, max_tokens=1),
                    cache_prompt=False,
                )
            if other is not None and other.done():
                break
        assert other is not None
        other.result()
        return {"gap_s": clock.gap[0]}


class Xllamacpp:
    """The C++ server of llama.cpp in its own process, called without HTTP, streaming."""

    def __init__(self, path: str, slots: int, ctx: int = 512, **options: Any) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_parallel = slots
        params.n_ctx = ctx * slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.get("threads", 2)
        params.n_gpu_layers = 0
        params.kv_unified = options.get("unified", True)
        params.verbosity = -1
        self.slots = slots
        self._server = xllamacpp.Server(params)
        self.about = {"backend": "xllamacpp", "library": xllamacpp.__version__}

    def decode(self, order: dict[str, Any]) -> dict[str, Any]:
        prompts = prompts_of(order, self.slots)
        clock = _Clock(len(prompts))

        def read(index: int) -> None:
            def event(answer: Any) -> bool:
                for one in answer if isinstance(answer, list) else [answer]:
                    if one["choices"] and one["choices"][0].get("finish_reason") is None:
                        clock.token(index, 1)
                return False

            body = {
                "prompt": prompts[index],
                "n_predict": order["tokens"],
                "ignore_eos": True,
                "stream": True,
                "cache_prompt": order.get("cache", False),
                "temperature": 0.8 if order.get("sample") else 0,
                "repeat_penalty": 1.0,
                **({} if order.get("sample") else {"samplers": ["top_k"], "top_k": 1}),
            }
            self._server.handle_completions(body, event)
            # A token that ends inside a character has no event of its own.
            clock.tokens[index] = order["tokens"]

        _in_threads(len(prompts), read)
        return clock.report()


class HighLevel:
    """`Llama` of llama-cpp-python as a user has it."""

    def __init__(self, path: str, slots: int, ctx: int = 512, **options: Any) -> None:
        import llama_cpp

        self._llama = llama_cpp.Llama(
            path,
            n_ctx=ctx,
            n_batch=512,
            n_threads=options.get("threads", 2),
            n_threads_batch=options.get("threads", 2),
            verbose=False,
        )
        self.about = {"backend": "Llama", "library": llama_cpp.__version__}

    def prefill(self, order: dict[str, Any]) -> dict[str, Any]:
        self._llama.reset()
        prompt = ids(order["tokens"], order.get("seed", 0))
        begin = time.perf_counter()
        self._llama.eval(prompt)
        return {"rate": order["tokens"] / (time.perf_counter() - begin)}


class Instances:
    """Models of ctransformers as a user has them, one for each answer, each in a thread."""

    def __init__(self, path: str, slots: int, ctx: int = 512, **options: Any) -> None:
        import ctransformers

        # One thread each: more threads than cores wait for one another by spinning.
        made = [
            ctransformers.LLM(
                path,
                model_type="llama",
                config=ctransformers.Config(
                    context_length=ctx, threads=1 if slots > 1 else options.get("threads", 2)
                ),
            )
            for _ in range(slots)
        ]
        self._models = made
        self.about = {"backend": "LLM", "library": version("ctransformers")}

    def decode(self, order: dict[str, Any]) -> dict[str, Any]:
        prompts = prompts_of(order, len(self._models))
        clock = _Clock(len(prompts))

        def read(index: int) -> None:
            model = self._models[index]
            tokens = model.generate(
                prompts[index], top_k=1, repetition_penalty=1.0, batch_size=512, reset=True
            )
            for count, _ in enumerate(tokens, 1):
                clock.token(index, 1)
                if count == order["tokens"]:
                    return

        _in_threads(len(prompts), read)
        return clock.report()


SIDES: dict[str, Callable[..., Any]] = {
    "nitrolib": Nitrolib,
    "xllamacpp": Xllamacpp,
    "llama-cpp-python": HighLevel,
    "ctransformers": Instances,
}


def serve_orders(kind: str, path: str, options: dict[str, Any], orders: Iterable[str]) -> None:
    side = SIDES[kind](path, **options)
    print(json.dumps(side.about), flush=True)
    for line in orders:
        order = json.loads(line)
        print(json.dumps(getattr(side, order["order"])(order)), flush=True)


if __name__ == "__main__":
    serve_orders(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.stdin)
