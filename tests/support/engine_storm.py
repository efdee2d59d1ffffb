"""Many threads doing everything to one engine at once: the test that looks for hangs and crashes.

    python tests/support/engine_storm.py --seconds 60 --threads 32

Ends with status 0 when no call hung, nothing but the documented errors was raised, all slots are
free, and a fixed request still gives the tokens it gave before the storm.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support.fake_runtime import assert_at_rest
from support.gguf_maker import make_llama

from nitrolib.backends import LoadOptions
from nitrolib.engine import Engine, GenerationRequest
from nitrolib.errors import (
    Cancelled,
    ContextOverflow,
    ModelAlreadyLoaded,
    ModelNotLoaded,
    Overloaded,
)
from nitrolib.sampling import SamplingParams

EXPECTED = (Cancelled, ContextOverflow, ModelAlreadyLoaded, ModelNotLoaded, Overloaded)
FIXED = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
RELOAD_EVERY_S = 0.5
PATIENCE_S = 60  # no single call may take that long


class Storm:
    """One engine, many threads, for a while. `counts` tells what was done and how it ended."""

    def __init__(self, path, threads=32, seed=0, backend="auto"):
        self.path, self.backend = path, backend
        self.options = LoadOptions(n_parallel=2, ctx_len=512, threads=1)
        self.engine = Engine.open(path, self.options, backend=backend, max_queue=12)
        self.counts = Counter()
        self._next_reload = 0.0
        self.errors = []
        self._threads = [
            threading.Thread(target=self._blow, args=(random.Random(seed + n),), daemon=True)
            for n in range(threads)
        ]

    def run(self, seconds):
        fixed = self.engine.complete("The storm", FIXED, cache_prompt=False).token_ids
        self._until = time.monotonic() + seconds
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(max(0.0, self._until - time.monotonic()) + PATIENCE_S)
        if any(thread.is_alive() for thread in self._threads):
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError("a thread hangs")
        if self.errors:
            raise AssertionError(f"{len(self.errors)} unexpected errors") from self.errors[0]
        with suppress(ModelAlreadyLoaded):
            self.engine.load(self.path, self.options, self.backend)
        self.engine.clear_cache()
        assert_at_rest(self.engine)
        assert self.engine.complete("The storm", FIXED).token_ids == fixed
        self.engine.close()
        return self.counts

    def _blow(self, rng):
        actions = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        while time.monotonic() < self._until or self._waits():
            action = rng.choice(actions)
            outcome = "done"
            try:
                action(rng)
            except EXPECTED as error:
                outcome = type(error).__name__
                if isinstance(error, (Overloaded, ModelNotLoaded)):
                    time.sleep(0.03)
            except Exception as error:  # noqa: BLE001 -- told at the end
                self.errors.append(error)
                return
            self.counts[action.__name__[3:], outcome] += 1

    def _waits(self):
        """Whether nobody came through yet with one of these, and there is hope: on a slow machine
        the time may be too short for it."""
        hope = time.monotonic() < self._until + PATIENCE_S / 2 and not self.errors
        return hope and not all(self.counts[name, "done"] for name in ("chat", "reload", "embed"))

    def do_chat(self, rng):
        messages = [{"role": "user", "content": "word " * rng.randrange(1, 40)}]
        done = self.engine.chat(messages, self._params(rng), context_policy="drop_oldest_turns")
        assert done.finish_reason in ("stop", "length")

    def do_stream(self, rng):
        with self.engine.stream("a tale " * rng.randrange(1, 30), self._params(rng)) as generation:
            text = "".join(chunk.text for chunk in generation)
            assert text == generation.result(PATIENCE_S).text

    def do_leave_early(self, rng):
        for number, _ in enumerate(self.engine.stream("a tale", self._params(rng))):
            if number == rng.randrange(5):
                break

    def do_cancel(self, rng):
        generation = self.engine.stream("word " * rng.randrange(1, 100), self._params(rng))
        timer = threading.Timer(rng.random() * 0.02, generation.cancel)
        timer.start()
        generation.result(PATIENCE_S)

    def do_choices(self, rng):
        request = GenerationRequest(
            prompt=tuple(rng.randrange(5, 300) for _ in range(rng.randrange(1, 150))),
            params=self._params(rng),
        )
        choices = self.engine.submit_choices(request, rng.randrange(2, 5))
        rng.choice(choices).cancel()
        for one in choices:
            with suppress(Cancelled):
                assert one.result(PATIENCE_S).finish_reason in ("stop", "length")

    def do_shift(self, rng):
        params = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
        done = self.engine.complete("on and on", params, context_policy="shift")
        assert done.truncated
        assert len(done.token_ids) == 300

    def do_constrain(self, rng):
        params = replace(self._params(rng), grammar="root ::= [a-z]+", n_probs=2)
        done = self.engine.complete("a tale", params)
        assert "".join(entry.text for entry in done.probs) == done.text

    def do_drop(self, rng):
        self.engine.stream("dropped", self._params(rng))

    def do_deadline(self, rng):
        self.engine.complete("late", self._params(rng), timeout_s=rng.choice([0.0001, 0.005, 1]))

    def do_embed(self, rng):
        inputs = ["text " * rng.randrange(1, 40) for _ in range(rng.randrange(1, 6))]
        assert len(self.engine.embed(inputs).vectors) == len(inputs)

    def do_tokenize(self, rng):
        text = "".join(rng.choices("abc déß漢😀", k=rng.randrange(1, 500)))
        assert self.engine.detokenize(self.engine.tokenize(text)) == text

    def do_status(self, rng):
        status = self.engine.status()
        # Two slots; and where texts are embedded beside them, as many calls again.
        beside = 0 if self.backend == "ctransformers" else 12 + 2
        assert 0 <= status.running <= 2 + beside
        assert 0 <= status.waiting <= 12 + 2 + beside

    def do_clear(self, rng):
        self.engine.clear_cache()

    def do_reload(self, rng):
        if time.monotonic() < self._next_reload:  # the other actions want a model, too
            return
        self._next_reload = time.monotonic() + RELOAD_EVERY_S
        self.engine.unload()
        self.engine.load(self.path, self.options, self.backend)

    def _params(self, rng):
        return SamplingParams(
            temperature=rng.choice([0, 1]), max_tokens=rng.randrange(1, 40), ignore_eos=True
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a GGUF file; default is a tiny one with random weights")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or str(make_llama(Path(folder) / "tiny.gguf", quant="Q8_0"))
        counts = Storm(path, arguments.threads, arguments.seed).run(arguments.seconds)
    for (action, outcome), number in sorted(counts.items()):
        print(f"{action:12} {outcome:18} {number}")
    print("no hang, no crash, all slots free")


if __name__ == "__main__":
    main()
