"""The backend over ctransformers' shared library: one native model, one native context a sequence.

Almost nothing in the native code is checked, and what is ends the process. So every argument is
checked here, once, before the call; what each check is for stands beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import (
    InvalidRequest,
    ModelNotLoaded,
    Unsupported,
)
from ..gguf import CTRANSFORMERS, FileIdentity, Vocabulary, open_gguf, verify_file
from . import gpu, memory, refusals
from .base import Capability, Feed, LoadOptions, RuntimeReport
from .handle import Handle, float_view
from .library import (
    Library,
    Variant,
    cpu_variant,
    forget_locks,
    installed_variants,
    open_library,
)
from .opening import MAX_BATCH, NativePlan, batch_size, open_model
from .threads import ThreadBudget, Workers, choose_threads, process_budget
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..gguf import GGUFFile, ModelInfo

__all__ = [
    "MAX_BATCH",
    "CTransformersRuntime",
    "batch_size",
    "check_options",
    "context_length",
    "load",
    "memory_plan",
]


class _Sequence:
    """One native context and what is known about it. `n_past` tokens are evaluated and valid;
    `ready` is the output that the last feed left to be read."""

    __slots__ = ("address", "embedding", "handle", "n_past", "ready", "row", "staged", "tokens")

    def __init__(self, handle: Handle, n_batch: int) -> None:
        self.handle: Handle | None = handle
        self.address = handle.address
        self.n_past = 0
        self.ready = ""
        # Token ids on their way to the native code: allocated once, written for each feed.
        self.staged = np.empty(n_batch, np.int32)
        self.tokens = self.staged.ctypes.data
        self.row: NDArray[np.float32] | None = None
        self.embedding: NDArray[np.float32] | None = None

    def empty(self) -> None:
        """Forget all tokens; the cells are written over later."""
        self.n_past = 0
        self.ready = ""

    def drop(self) -> None:
        """Let go of native memory, even if a traceback somewhere still shows this sequence."""
        self.handle = self.row = self.embedding = None


# The runtime --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What loading made, handed to the runtime in one piece."""

    info: ModelInfo
    vocabulary: Vocabulary
    texts: list[bytes]  # of every token, as the file has them
    report: RuntimeReport
    library: Library
    model: Handle
    contexts: tuple[Handle, ...]
    n_ctx: int
    n_batch: int
    embedding: bool
    path: str
    identity: FileIdentity | None  # None if the file is not mapped and may change


class CTransformersRuntime:
    """A loaded model on the ctransformers library; see `Runtime` for the contract."""

    def __init__(self, loaded: Loaded, budget: ThreadBudget) -> None:
        self.info = loaded.info
        self.vocabulary = loaded.vocabulary
        self.report = loaded.report
        self.n_ctx = loaded.n_ctx
        self.n_batch = loaded.n_batch
        self.n_seq = len(loaded.contexts)
        self.capabilities: frozenset[Capability] = frozenset(
            {"generate", "embed"} if loaded.embedding else {"generate"}
        )
        self._loaded: Loaded | None = loaded
        self._native, self._turn = loaded.library.native, loaded.library.turn
        self._path, self._identity = loaded.path, loaded.identity
        self._n_vocab = loaded.info.n_vocab
        self._threads = loaded.report.threads
        self._on_gpu = loaded.report.gpu_layers > 0
        self._budget = budget
        self._sequences = [_Sequence(handle, loaded.n_batch) for handle in loaded.contexts]
        self._tokenizer = Tokenizer(loaded.vocabulary, loaded.texts, self._raw_tokenize)
        self._lost = ""
        self._start_threads()
        _runtimes.add(self)

    def _start_threads(self) -> None:
        self._lock = threading.Lock()  # held while anything native but the tokenizer runs
        self._workers = Workers("nitrolib-decode")

    # Text

    def tokenize(self, text: str, *, space_prefix: bool = True) -> list[int]:
        """See `Runtime.tokenize`; raises ModelNotLoaded after `close`."""
        return self._tokenizer(text, space_prefix=space_prefix)

    def _raw_tokenize(self, data: bytes, address: int, size: int) -> int:
        loaded = self._loaded
        if loaded is None:
            raise _closed()
        # `loaded` holds the model for the length of the call, whatever `close` does meanwhile.
        count: int = self._native.llama_tokenize_with_model(
            loaded.model.address, data, address, size, False
        )
        return count

    # Evaluation

    def decode(self, feeds: Sequence[Feed]) -> None:
        """See `Runtime.decode`. Feeds of several sequences run side by side on the threads of
        this runtime. Whatever is wrong with a feed raises before any of them is evaluated."""
        with self._lock:
            if len(feeds) == 1:
                feed = feeds[0]
                sequence = self._sequence(feed.seq)
                count = self._stage(sequence, feed)
                if count > 1:
                    self._check_file(feeds)
                failure = self._evaluate(sequence, count, feed, self._threads)
                if failure:
                    raise refusals.failed({feed.seq: failure})
            elif feeds:
                self._decode_side_by_side(feeds)

    def _decode_side_by_side(self, feeds: Sequence[Feed]) -> None:
        if len({feed.seq for feed in feeds}) < len(feeds):
            raise InvalidRequest(
                "a sequence may have one feed in a decode",
                field="seq",
                value=[feed.seq for feed in feeds],
                allowed="each sequence once",
            )
        staged = []
        for feed in feeds:
            sequence = self._sequence(feed.seq)
            staged.append((sequence, self._stage(sequence, feed), feed))
        if any(count > 1 for _, count, _ in staged):
            self._check_file(feeds)
        # The longest first: the others fill the time it takes.
        waiting = deque(sorted(staged, key=lambda job: -job[1]))
        # Evaluations on a GPU share one scratch memory: one at a time.
        workers = 1 if self._on_gpu else min(len(staged), self._threads)
        threads = self._threads // workers
        failures: dict[int, str] = {}

        def work() -> None:
            with contextlib.suppress(IndexError):
                while True:
                    sequence, count, feed = waiting.popleft()
                    try:
                        failure = self._evaluate(sequence, count, feed, threads)
                    except Exception as error:  # noqa: BLE001 - told by the calling thread
                        sequence.empty()
                        failure = f"{type(error).__name__}: {error}"
                    if failure:
                        failures[feed.seq] = failure

        self._workers.run(work, workers)
        if failures:
            raise refusals.failed(failures)

    def _stage(self, sequence: _Sequence, feed: Feed) -> int:
        """Check a feed completely and put its ids where the native code will read them."""
        tokens = feed.tokens
        count = len(tokens)
        if sequence.n_past + count > self.n_ctx or not 1 <= count <= self.n_batch:
            self._refuse_count(sequence, count)
        if feed.output == "embedding" and "embed" not in self.capabilities:
            raise Unsupported(
                "the model was loaded without embeddings",
                field="output",
                value=feed.output,
                allowed="embedding=True when the model is loaded",
            )
        if count == 1 and type(tokens[0]) is int:
            # An id outside the vocabulary reads foreign memory.
            if not 0 <= tokens[0] < self._n_vocab:
                self._refuse_ids(tokens)
            sequence.staged[0] = tokens[0]
            return 1
        try:
            ids = np.asarray(tokens)
        except (ValueError, OverflowError):
            self._refuse_ids(tokens)
        if (
            ids.ndim != 1
            or ids.dtype.kind not in "iu"
            or ids.min() < 0
            or ids.max() >= self._n_vocab
        ):
            self._refuse_ids(tokens)
        sequence.staged[:count] = ids
        return count

    def _check_file(self, feeds: Sequence[Feed]) -> None:
        """At prompts, not at every token: reading a mapped file that was cut short ends the
        process, and one that was written to gives wrong numbers."""
        if self._identity is None:
            return
        try:
            same = FileIdentity.of(self._path)
        except OSError:
            return  # removed: the mapping keeps the old file alive
        if same.inode == self._identity.inode and same != self._identity:
            for feed in feeds:
                self._sequence(feed.seq).empty()
            reason = f"{self._path} was written to while it was loaded; load it again"
            raise refusals.failed({feed.seq: reason for feed in feeds})

    def _evaluate(self, sequence: _Sequence, count: int, feed: Feed, threads: int) -> str:
        """Evaluate staged tokens; returns what failed, "" if nothing did."""
        output = feed.output
        sequence.ready = ""
        self._budget.acquire(threads)
        try:
            with self._turn:
                code = self._native.llama_eval(
                    sequence.address, sequence.tokens, count, sequence.n_past, threads
                )
        finally:
            self._budget.release(threads)
        if code != 0:
            sequence.empty()
            return f"the evaluation returned {code}"
        sequence.n_past += count
        if output == "logits":
            row = sequence.row
            if row is None:
                row = self._view_logits(sequence)
            # The maximum is NaN if any logit is, infinite if any is +inf or all are -inf. What is
            # left, some -inf among finite ones, is a distribution that can be sampled.
            if not math.isfinite(row.max()):
                sequence.empty()
                return "the logits are not finite"
        sequence.ready = output
        return ""

    def _view_logits(self, sequence: _Sequence) -> NDArray[np.float32]:
        """The native buffer never moves after the first evaluation: one view for its life."""
        address = self._native.llama_get_logits(sequence.address)
        sequence.row = float_view(address, self._n_vocab, sequence.handle)
        return sequence.row

    def length(self, seq: int) -> int:
        """See `Runtime.length`."""
        return self._sequence(seq).n_past

    def logits(self, seq: int) -> NDArray[np.float32]:
        """See `Runtime.logits`. A view that is kept too long shows the values of later evaluations,
        and keeps the native memory from being freed; it never becomes invalid memory."""
        sequence = self._sequence(seq)
        if sequence.ready != "logits" or sequence.row is None:
            raise _not_ready(seq, "logits")
        return sequence.row

    def embed(self, seq: int) -> NDArray[np.float32]:
        """See `Runtime.embed`: the hidden state of the last token after the final norm."""
        with self._lock:
            sequence = self._sequence(seq)
            if sequence.ready != "embedding":
                raise _not_ready(seq, "embedding")
            if sequence.embedding is None:
                address = self._native.llama_get_embeddings(sequence.address)
                sequence.embedding = float_view(address, self.info.n_embd, sequence.handle)
            hidden = sequence.embedding.astype(np.float64)
        norm = math.sqrt(hidden @ hidden)
        if not 0.0 < norm < math.inf:  # written this way round so that NaN fails too
            sequence.empty()
            raise refusals.failed({seq: f"the embedding has length {norm}"})
        return (hidden / norm).astype(np.float32)

    def keep(self, seq: int, n: int) -> int:
        """See `Runtime.keep`. Cells behind the kept ones are invisible and written over later."""
        with self._lock:
            sequence = self._sequence(seq)
            if not 0 <= n <= sequence.n_past:
                raise InvalidRequest(
                    f"sequence {seq} holds {sequence.n_past} tokens, {n} cannot be kept",
                    field="n",
                    value=n,
                    allowed=f"0 to {sequence.n_past}",
                )
            if n < sequence.n_past:
                sequence.n_past = n
                sequence.ready = ""
            return n

    # The end

    def close(self) -> None:
        """Wait for a running decode, then free everything native. Memory that a view of logits
        still shows is freed when the last such view is gone."""
        with self._lock:
            if self._loaded is None:
                return
            self._loaded = None
            for sequence in self._sequences:
                sequence.drop()
            self._workers.close()

    def _after_fork(self) -> None:
        """In the child of a fork: worker threads and whoever held the lock exist no more."""
        self._start_threads()
        if self._loaded is not None:
            self._turn = self._loaded.library.turn
        if self._on_gpu and self._loaded is not None:
            for handle in (self._loaded.model, *self._loaded.contexts):
                handle.abandon()
            self._loaded = None
            self._lost = "the model was loaded on a GPU before this process was forked"

    # Errors

    def _sequence(self, seq: int) -> _Sequence:
        if self._loaded is None:
            raise _closed(self._lost)
        if not 0 <= seq < self.n_seq:
            raise refusals.no_sequence(seq, self.n_seq)
        return self._sequences[seq]

    def _refuse_count(self, sequence: _Sequence, count: int) -> None:
        room = min(self.n_batch, self.n_ctx - sequence.n_past)
        raise InvalidRequest(
            f"{count} tokens cannot be fed to a sequence of {sequence.n_past} in a context of "
            f"{self.n_ctx}",
            field="tokens",
            value=count,
            allowed=f"1 to {room} tokens at a time" if room else "none: the context is full",
        )

    def _refuse_ids(self, tokens: Sequence[int]) -> None:
        wrong = [
            token
            for token in tokens
            if not isinstance(token, (int, np.integer))
            or isinstance(token, bool)
            or not 0 <= token < self._n_vocab
        ]
        raise InvalidRequest(
            f"{wrong[0] if wrong else tokens!r} is not a token id",
            field="tokens",
            value=wrong[0] if wrong else None,
            allowed=f"whole numbers from 0 to {self._n_vocab - 1}",
        )


def _closed(reason: str = "") -> ModelNotLoaded:
    return ModelNotLoaded(reason or "the model is closed")


def _not_ready(seq: int, output: str) -> InvalidRequest:
    return InvalidRequest(
        f"sequence {seq} has no {output}: its last feed did not ask for it",
        field="seq",
        value=seq,
        allowed=f"a sequence whose last feed had output {output!r}",
    )


_runtimes: weakref.WeakSet[CTransformersRuntime] = weakref.WeakSet()


def _after_fork() -> None:
    process_budget().reset()
    forget_locks()
    for runtime in list(_runtimes):
        runtime._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Loading ------------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str], options: LoadOptions, file: GGUFFile | None = None
) -> CTransformersRuntime:
    """Verify, reckon, then load. `file` is the header of the file where it was read already.

    Raises ModelFileError for a file that native code must not see, InvalidRequest for an option
    that cannot be, and ModelLoadError or one of its kind if the machine does not allow it; each
    before native code could fail on it.
    """
    check_options(options)
    path = os.path.abspath(os.fspath(path))
    file = open_gguf(path) if file is None else file
    info = verify_file(file, CTRANSFORMERS)
    budget = process_budget()
    threads = choose_threads(options.threads, budget.cores)
    n_ctx, notes = context_length(options, info)
    n_batch = batch_size(n_ctx, info)
    needs = memory_plan(options, info, n_ctx)
    tight = memory.check(needs, path, memory.available_bytes())
    layers = gpu.plan_layers(options, info, needs)
    variant = layers.variant or cpu_variant(installed_variants())
    for name in layers.preload:
        ctypes.CDLL(name)
    library = open_library(variant)
    mlock = options.mlock and memory.may_lock(needs.weights)
    if mlock < options.mlock:
        size = memory.megabytes(needs.weights)
        notes += (f"mlock was not done: this process may not lock {size}",)
    plan = NativePlan(
        path=path,
        options=options,
        info=info,
        n_ctx=n_ctx,
        evaluations=min(options.n_parallel, threads),
        gpu_layers=layers.layers,
        mlock=mlock,
    )
    model, contexts = open_model(library, plan)
    report = RuntimeReport(
        backend="ctransformers",
        library=variant.name,
        threads=threads,
        gpu_layers=layers.layers,
        memory_bytes=needs.total,
        notes=(*notes, *_slow(variant), *layers.notes, *((tight,) if tight else ())),
    )
    loaded = Loaded(
        info=info,
        vocabulary=Vocabulary.from_gguf(file),
        texts=file.metadata.strings("tokenizer.ggml.tokens").raw(),
        report=report,
        library=library,
        model=model,
        contexts=contexts,
        n_ctx=n_ctx,
        n_batch=n_batch,
        embedding=options.embedding,
        path=path,
        identity=info.identity if options.mmap else None,
    )
    return CTransformersRuntime(loaded, budget)


# What the native library has no switch for; it keeps keys and values as 16-bit floats.
_NOT_HERE = (
    "n_batch",
    "n_ubatch",
    "flash_attention",
    "cache_type_k",
    "cache_type_v",
    "shared_context",
    "main_gpu",
    "tensor_split",
    "pooling",
    "lora",
    "lookup",
)
_DEFAULTS = LoadOptions()


def check_options(options: LoadOptions) -> None:
    """Raise Unsupported for an option that only another backend honours."""
    for name in _NOT_HERE:
        value = getattr(options, name)
        if value != getattr(_DEFAULTS, name):
            raise Unsupported(
                f"ctransformers does not honour {name}; llama-cpp-python does",
                field=name,
                value=value,
                allowed=f"{getattr(_DEFAULTS, name)!r}, or another backend",
            )


def memory_plan(options: LoadOptions, info: ModelInfo, n_ctx: int) -> memory.MemoryPlan:
    """What loading with `options` takes, for slots of `n_ctx` tokens. Raises as `memory.reckon`."""
    return memory.reckon(
        info,
        n_ctx=n_ctx,
        n_seq=options.n_parallel,
        n_batch=min(MAX_BATCH, n_ctx),
        mmap=options.mmap,
    )


def context_length(options: LoadOptions, info: ModelInfo) -> tuple[int, tuple[str, ...]]:
    """Tokens of one slot, and a note if that is less than its share of `ctx_len`."""
    share = options.ctx_len // options.n_parallel
    if share <= info.n_ctx_train:
        return share, ()
    note = (
        f"each slot has a context of {info.n_ctx_train} tokens, the length the model was trained "
        f"on, not {share} (ctx_len {options.ctx_len} over {options.n_parallel})"
    )
    return info.n_ctx_train, (note,)


def _slow(variant: Variant) -> tuple[str, ...]:
    slower = {"avx": "1.3 to 1.5 times", "basic": "3 times or more"}
    if variant.name not in slower or variant.path.suffix == ".dylib":
        return ()
    return (
        f"this processor lacks AVX2: the {variant.name!r} library is {slower[variant.name]} slower",
    )
