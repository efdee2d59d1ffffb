"""A Runtime without a model: logits are a hash of the token history, text is bytes.

The unit-test tool of the engine, and its fault injector: `before_decode` is called with the feeds
of every step and may sleep, wait or raise; `after_decode` may do the same once they are recorded.
It has every capability of the seam, and asserts what a native library would end the process for.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
import zlib
from types import SimpleNamespace

import numpy as np

from nitrolib.backends import RuntimeReport
from nitrolib.backends.base import Feed, Interrupted, LoraAdapter, NoRoom
from nitrolib.errors import BackendError, InvalidRequest

from .waiting import until

BOS, EOS, FIRST_BYTE = 256, 257, 0
N_VOCAB = 260
SHARED = (
    "shared_batch", "rows", "repeat", "copy", "shift", "interrupt", "state", "embedder", "rank",
)  # fmt: skip


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
    """Deterministic: the logits after a history depend on that history alone, and on the strengths
    of the adapters with which each token was evaluated. `script` maps the number of tokens
    evaluated to the token that comes next, instead of the hash's choice; `choice` may be a function
    of the cells that does the same.

    can: capabilities beside "generate" and "embed". without: those of them that are not there.
    room: cells of all sequences together, None for as many as they want; what `copy` copies takes
        none. One more is NoRoom.
    recurrent: a sequence cannot go back: `keep` of a part empties it, and so does `interrupt`.
    lora: adapters, given by their scales.
    """

    def __init__(
        self, n_seq=1, n_ctx=512, n_batch=512, script=None, chat_template=None, can=(),
        without=(), room=None, recurrent=False, lora=(), **info,
    ):  # fmt: skip
        self.info = SimpleNamespace(
            name="fake", architecture="fake", n_ctx_train=n_ctx, n_embd=8,
            chat_template=chat_template, **info,
        )  # fmt: skip
        self.vocabulary = byte_vocabulary()
        self.report = RuntimeReport(
            backend="fake", library="none", threads=1, gpu_layers=0, memory_bytes=1
        )
        self.n_seq, self.n_ctx, self.n_batch = n_seq, n_ctx, n_batch
        self.n_outputs = n_batch
        self.capabilities = frozenset({"generate", "embed", *can}) - frozenset(without)
        self.adapters = tuple(LoraAdapter(f"{n}.gguf", scale) for n, scale in enumerate(lora))
        self.scales = tuple(lora)  # those of the next decode
        self.room, self.recurrent = room, recurrent
        self.cells = [[] for _ in range(n_seq)]
        self._taken = [[] for _ in range(n_seq)]  # for each cell its number: copies share it
        self._strengths = [[] for _ in range(n_seq)]  # for each cell the scales it was made with
        self._numbers = itertools.count()
        self._outputs = {}  # of the last decode: sequence -> (output, tokens of the feed)
        self._alike = []  # its sequences and their lengths, if `repeat` may go on from it
        self._running, self._interrupted = False, threading.Event()
        self.interrupts = 0  # decodes that were interrupted
        self.steps = []  # every decode: [(seq, n_tokens, output), ...]
        self.copies, self.shifts = [], []  # the arguments of every copy and shift
        self.script, self.choice = script or {}, None
        self.before_decode = self.after_decode = self.before_tokenize = lambda _: None
        self.before_embed = lambda _: None
        self.embedders = []
        self.closed = False
        self.threads = set()

    def tokenize(self, text, *, space_prefix=True):
        assert not self.closed, "tokenize after close"
        self.before_tokenize(text)
        return list(text.encode())

    def decode(self, feeds):
        assert not self.closed, "decode after close"
        self.threads.add(threading.get_ident())
        self._outputs, self._alike = {}, []
        self._interrupted.clear()
        self._running = True
        try:
            self.before_decode(feeds)
        finally:
            self._running = False
        self._check(feeds)
        if self._interrupted.is_set():
            self._raise_interrupted(feeds)
        self._check_room(feeds)
        for feed in feeds:
            tokens = list(feed.tokens)
            self.cells[feed.seq].extend(tokens)
            self._taken[feed.seq].extend(itertools.islice(self._numbers, len(tokens)))
            self._strengths[feed.seq].extend([self.scales] * len(tokens))
            self._outputs[feed.seq] = (feed.output, len(tokens))
            assert len(self.cells[feed.seq]) <= self.n_ctx, "context overrun"
        self.steps.append([(feed.seq, len(feed.tokens), feed.output) for feed in feeds])
        if all(len(feed.tokens) == 1 and feed.output == "logits" for feed in feeds):
            self._alike = [(feed.seq, len(self.cells[feed.seq])) for feed in feeds]
        self.after_decode(feeds)

    def repeat(self, tokens):
        assert "repeat" in self.capabilities
        alike = self._alike
        assert len(alike) == len(tokens) > 0, "nothing to repeat"
        assert all(len(self.cells[seq]) == held for seq, held in alike), "a sequence was changed"
        self.decode([Feed(seq, (token,)) for (seq, _), token in zip(alike, tokens, strict=True)])
        return np.stack([self.logits(seq) for seq, _ in alike])

    def _check(self, feeds):
        assert len({feed.seq for feed in feeds}) == len(feeds), "two feeds of one sequence"
        if "shared_batch" in self.capabilities:
            assert sum(len(feed.tokens) for feed in feeds) <= self.n_batch, "batch overrun"
            rows = {"none": lambda feed: 0, "every": lambda feed: len(feed.tokens)}
            wanted = sum(rows.get(feed.output, lambda _: 1)(feed) for feed in feeds)
            assert wanted <= self.n_outputs, "more rows than there is room for"
        for feed in feeds:
            assert 1 <= len(feed.tokens) <= self.n_batch
            assert all(0 <= token < N_VOCAB for token in feed.tokens)
            assert feed.output != "every" or "rows" in self.capabilities

    def _check_room(self, feeds):
        if self.room is not None:
            wanted = sum(len(feed.tokens) for feed in feeds)
            if self.used() + wanted > self.room:
                raise NoRoom(f"{self.used()} of {self.room} cells are taken, {wanted} more wanted")

    def used(self):
        """Cells that are taken; what sequences share counts once."""
        return len(set().union(*self._taken))

    def length(self, seq):
        return len(self.cells[seq])

    def logits(self, seq):
        assert self._outputs.get(seq, ("none",))[0] in ("logits", "every"), "no logits here"
        return self._row(seq, len(self.cells[seq]))

    def rows(self, seq):
        output, fed = self._outputs[seq]
        assert output == "every"
        held = len(self.cells[seq])
        return np.stack([self._row(seq, n) for n in range(held - fed + 1, held + 1)])

    def _row(self, seq, n):
        logits = self._random(self.cells[seq][:n], self._strengths[seq][:n]).normal(0, 2, N_VOCAB)
        logits = logits.astype(np.float32)
        logits[256:] = -20  # ends only by script
        forced = self.script.get(n)
        if self.choice is not None:
            forced = self.choice(self.cells[seq][:n])
        if forced is not None:
            logits[forced] = 100
        return logits

    def _random(self, cells, strengths=()):
        said = np.array(cells, np.int32).tobytes()
        if any(any(scales) for scales in strengths):
            said += np.array(strengths, np.float32).tobytes()
        return np.random.default_rng(zlib.crc32(said))

    def embed(self, seq):
        return self._vector(self.cells[seq])

    def _vector(self, tokens):
        vector = self._random(tokens).normal(0, 1, self.info.n_embd).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def keep(self, seq, n):
        assert 0 <= n <= len(self.cells[seq]), "keep beyond what there is"
        if self.recurrent and n < len(self.cells[seq]):
            n = 0
        for kept in (self.cells[seq], self._taken[seq], self._strengths[seq]):
            del kept[n:]
        return n

    def copy(self, source, target, n):
        assert "copy" in self.capabilities
        assert source != target
        assert n <= len(self.cells[source])
        for kept in (self.cells, self._taken, self._strengths):
            kept[target] = kept[source][:n]
        self.copies.append((source, target, n))

    def shift(self, seq, start, end):
        assert "shift" in self.capabilities
        assert 0 <= start < end <= len(self.cells[seq])
        for kept in (self.cells[seq], self._taken[seq], self._strengths[seq]):
            del kept[start:end]
        self.shifts.append((start, end))

    def interrupt(self):
        assert "interrupt" in self.capabilities
        if self._running:
            self._interrupted.set()

    def wait_for_interrupt(self, timeout):
        """In `before_decode`: be a native call of `timeout` seconds that `interrupt` ends."""
        return self._interrupted.wait(timeout)

    def _raise_interrupted(self, feeds):
        self.interrupts += 1
        emptied = tuple(feed.seq for feed in feeds) if self.recurrent else ()
        for seq in emptied:
            self.keep(seq, 0)
        raise Interrupted("interrupted", emptied=emptied)

    def use_adapters(self, scales):
        assert "lora" in self.capabilities
        assert len(scales) == len(self.adapters)
        self.scales = tuple(scales)

    def save(self, seq):
        assert "state" in self.capabilities
        return json.dumps([self.cells[seq], self._strengths[seq]]).encode()

    def restore(self, seq, state, tokens):
        assert "state" in self.capabilities
        self.keep(seq, 0)
        try:
            cells, strengths = json.loads(state)
            assert cells == list(tokens)
        except (ValueError, AssertionError):
            raise InvalidRequest("the state does not fit", field="state") from None
        self.cells[seq] = cells
        self._strengths[seq] = [tuple(one) for one in strengths]
        self._taken[seq] = list(itertools.islice(self._numbers, len(cells)))

    def embedder(self):
        assert "embedder" in self.capabilities
        self.embedders.append(FakeEmbedder(self))
        return self.embedders[-1]

    def close(self):
        assert all(one.closed for one in self.embedders), "an embedder is still open"
        self.closed = True

    def fail(self, seqs, message="injected"):
        """Raise what a backend raises when these sequences failed; they are empty afterwards."""
        for seq in seqs:
            self.keep(seq, 0)
        raise BackendError(message, failed=tuple(seqs))


class FakeEmbedder:
    """Vectors and scores are hashes of the texts. `batches` has the lengths of the texts of every
    evaluation; `runtime.before_embed` is called with the texts of each."""

    def __init__(self, runtime, n_batch=64, n_seq=3):
        self.n_batch, self.n_seq, self.n_out = n_batch, n_seq, runtime.info.n_embd
        self._runtime = runtime
        self.thread = threading.get_ident()
        self.batches = []
        self.closed = False
        self._running, self._interrupted = False, threading.Event()

    def embed(self, texts):
        return np.stack([self._runtime._vector(text) for text in self._evaluated(texts)])

    def rank(self, texts):
        assert "rank" in self._runtime.capabilities
        return np.array([self._runtime._vector(one)[0] for one in self._evaluated(texts)])

    def _evaluated(self, texts):
        assert not self.closed
        assert threading.get_ident() == self.thread, "two threads use one embedder"
        assert 1 <= len(texts) <= self.n_seq
        assert all(texts)
        assert sum(map(len, texts)) <= self.n_batch
        self._interrupted.clear()
        self._running = True
        try:
            self._runtime.before_embed(texts)
        finally:
            self._running = False
        if self._interrupted.is_set():
            raise Interrupted("interrupted", emptied=())
        self.batches.append([len(text) for text in texts])
        return texts

    def framed(self, text):
        return [BOS, *text]

    def pair(self, query, document):
        return [BOS, *query, EOS, *document]

    def interrupt(self):
        if self._running:
            self._interrupted.set()

    def wait_for_interrupt(self, timeout):
        """In `before_embed`, as that of the runtime."""
        return self._interrupted.wait(timeout)

    def close(self):
        self.closed = True


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
            assert self._permits.acquire(timeout=60), "the test forgot the brake"

    def wait(self):
        """Until the loop stands before a decode; returns its feeds as (seq, n_tokens, output)."""
        assert self._arrived.acquire(timeout=60), "no decode came"
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


def settle(engine):
    """Every message that was sent to the loop before has been seen, and everything that the loop
    has told has been delivered, callbacks included."""
    scheduler = engine._model.scheduler
    scheduler.call(lambda: None)
    until(lambda: scheduler.post._handed == scheduler.post._delivered)


def expire(engine):
    """All that run or wait in the scheduler are past their deadlines from now on. The loop must
    stand still meanwhile, as behind a Brake."""
    scheduler = engine._model.scheduler
    for job in list(scheduler._jobs):
        job.deadline = 0.0
    scheduler._next_deadline = 0.0


def assert_at_rest(engine, patience=60):
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
