"""A Runtime without a model: logits are a hash of the token history, text is bytes.

The unit-test tool of the engine, and its fault injector: `before_decode` is called with the feeds
of every step and may sleep, wait or raise; `after_decode` may do the same once they are recorded.
"""

from __future__ import annotations

import threading
import time
import zlib
from types import SimpleNamespace

import numpy as np

from nitrolib.backends import RuntimeReport
from nitrolib.errors import BackendError

BOS, EOS, FIRST_BYTE = 256, 257, 0
N_VOCAB = 260


def byte_vocabulary(**changes):
    """Token i < 256 is byte i; then BOS, EOS, and two more control tokens, one of them ending."""
    fields = {
        "n_vocab": N_VOCAB,
        "pieces": tuple([bytes((i,)) for i in range(256)] + [b""] * 4),
        "special": {"<s>": BOS, "</s>": EOS, "<|user|>": 258, "<|end|>": 259},
        "control": frozenset(range(256, 260)),
        "user_defined": frozenset(),
        "byte_ids": tuple(range(256)),
        "bos": BOS,
        "eos": EOS,
        "unknown": None,
        "eog": frozenset({EOS, 259}),
        "add_bos": True,
        "add_space_prefix": False,
    }
    return SimpleNamespace(**{**fields, **changes})


class FakeRuntime:
    """Deterministic: the logits after a history depend on that history alone. `script` maps the
    number of tokens evaluated to the token that comes next, instead of the hash's choice. `can` are
    capabilities beside "embed": "copy", "shift"."""

    def __init__(
        self, n_seq=1, n_ctx=512, n_batch=512, script=None, chat_template=None, can=(), **info
    ):
        self.info = SimpleNamespace(
            name="fake", architecture="fake", n_ctx_train=n_ctx, n_embd=8,
            chat_template=chat_template, **info,
        )  # fmt: skip
        self.vocabulary = byte_vocabulary()
        self.report = RuntimeReport(
            backend="fake", library="none", threads=1, gpu_layers=0, memory_bytes=1
        )
        self.n_seq, self.n_ctx, self.n_batch = n_seq, n_ctx, n_batch
        self.capabilities = frozenset({"generate", "embed", *can})
        self.cells = [[] for _ in range(n_seq)]
        self.steps = []  # every decode: [(seq, n_tokens, output), ...]
        self.copies, self.shifts = [], []  # the arguments of every copy and shift
        self.script = script or {}
        self.before_decode = self.after_decode = self.before_tokenize = lambda _: None
        self.closed = False
        self.threads = set()

    def tokenize(self, text, *, space_prefix=True):
        assert not self.closed, "tokenize after close"
        self.before_tokenize(text)
        return list(text.encode())

    def decode(self, feeds):
        assert not self.closed, "decode after close"
        self.threads.add(threading.get_ident())
        self.before_decode(feeds)
        assert len({feed.seq for feed in feeds}) == len(feeds), "two feeds of one sequence"
        for feed in feeds:
            assert 1 <= len(feed.tokens) <= self.n_batch
            assert all(0 <= token < N_VOCAB for token in feed.tokens)
            self.cells[feed.seq].extend(feed.tokens)
            assert len(self.cells[feed.seq]) <= self.n_ctx, "context overrun"
        self.steps.append([(feed.seq, len(feed.tokens), feed.output) for feed in feeds])
        self.after_decode(feeds)

    def length(self, seq):
        return len(self.cells[seq])

    def logits(self, seq):
        cells = self.cells[seq]
        forced = self.script.get(len(cells))
        rng = np.random.default_rng(zlib.crc32(np.array(cells, np.int32).tobytes()))
        logits = rng.normal(0, 2, N_VOCAB).astype(np.float32)
        logits[256:] = -20  # ends only by script
        if forced is not None:
            logits[forced] = 100
        return logits

    def embed(self, seq):
        cells = self.cells[seq]
        rng = np.random.default_rng(zlib.crc32(np.array(cells, np.int32).tobytes()))
        vector = rng.normal(0, 1, self.info.n_embd).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def keep(self, seq, n):
        assert 0 <= n <= len(self.cells[seq]), "keep beyond what there is"
        del self.cells[seq][n:]
        return n

    def copy(self, source, target, n):
        assert "copy" in self.capabilities
        assert source != target
        assert n <= len(self.cells[source])
        self.cells[target] = self.cells[source][:n]
        self.copies.append((source, target, n))

    def shift(self, seq, start, end):
        assert "shift" in self.capabilities
        assert 0 <= start < end <= len(self.cells[seq])
        del self.cells[seq][start:end]
        self.shifts.append((start, end))

    def close(self):
        self.closed = True

    def fail(self, seqs, message="injected"):
        """Raise what a backend raises when these sequences failed; they are empty afterwards."""
        for seq in seqs:
            self.cells[seq].clear()
        raise BackendError(message, failed=tuple(seqs))


class Brake:
    """Holds the loop before each decode until the test lets it go on."""

    def __init__(self, runtime):
        self.feeds = None
        self._arrived, self._permits = threading.Semaphore(0), threading.Semaphore(0)
        self._released = False
        runtime.before_decode = self

    def __call__(self, feeds):
        if not self._released:
            self.feeds = [(feed.seq, len(feed.tokens), feed.output) for feed in feeds]
            self._arrived.release()
            assert self._permits.acquire(timeout=30), "the test forgot the brake"

    def wait(self):
        """Until the loop stands before a decode; returns its feeds as (seq, n_tokens, output)."""
        assert self._arrived.acquire(timeout=10), "no decode came"
        return self.feeds

    def step(self):
        """Let one decode run and wait for the next."""
        self._permits.release()
        return self.wait()

    def let_go(self):
        """Let one decode run, without waiting for another."""
        self._permits.release()

    def release(self):
        self._released = True
        self._permits.release(1000)


def fake_engine(runtime, *, engine=None, **options):
    """An Engine with the fake runtime loaded; nothing is warmed up or cleaned unless asked for."""
    from nitrolib.backends import LoadOptions
    from nitrolib.engine import Engine

    made = Engine(loader=lambda path, options, backend: runtime, **(engine or {}))
    fields = {"warm_up": False, "clean_cache_threshold": 0, "n_parallel": runtime.n_seq, **options}
    made.load("fake.gguf", LoadOptions(**fields))
    return made


def assert_at_rest(engine, patience=10):
    """All slots free, nothing waits, and every record agrees with its runtime sequence. A request
    that was just cancelled ends at the loop's next step: that much is waited for."""
    give_up = time.monotonic() + patience
    while (status := engine.status()).running or status.waiting:
        if time.monotonic() > give_up:
            break
        time.sleep(0.002)
    assert (status.running, status.waiting) == (0, 0)
    assert {slot.state for slot in status.model.slots} == {"idle"}
    scheduler = engine._model.scheduler
    for slot in scheduler.slots:
        assert len(slot.tokens) == scheduler.runtime.length(slot.number)
        if hasattr(scheduler.runtime, "cells"):
            assert slot.tokens == scheduler.runtime.cells[slot.number]
