"""A model loaded through llama-cpp-python: one context, whose sequences share every evaluation.

What libllama is given wrongly ends the process. So every argument is checked here, once, before
the call; what each check is for stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError, InvalidRequest, Unsupported
from ...gguf import FileIdentity
from .. import refusals
from ..base import Capability, Feed, Interrupted, LoraAdapter, NoRoom
from ..handle import float_view
from ..threads import process_budget
from . import states
from .adapters import AdapterSet
from .batch import Batch
from .model import ModelRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .model import Context, Loaded

_DONE, _NO_ROOM, _ABORTED = 0, 1, 2  # results of llama_decode


class _Sequence:
    """What is known about one sequence: `n_past` tokens are in its cache, of which the first
    `shared` may lie in cells that other sequences use too. `rows` says which rows of the logits
    belong to its last feed, and `ready` which output this asked for, in the decode `step`."""

    __slots__ = ("n_past", "number", "ready", "rows", "shared", "step")

    def __init__(self, number: int) -> None:
        self.number = number
        self.n_past = self.shared = self.step = 0
        self.ready = ""
        self.rows = (0, 0)

    def cut(self, n: int) -> None:
        """Note that only the first `n` tokens are left."""
        self.n_past = n
        self.shared = min(self.shared, n)
        self.ready = ""


class LlamaCppRuntime(ModelRuntime):
    """A loaded model on llama-cpp-python; see `Runtime` and its kinds for the contract."""

    def __init__(self, loaded: Loaded, context: Context) -> None:
        super().__init__(loaded)
        native = loaded.native
        self._context = context
        self._stopper = context.stopper
        self._threads = loaded.report.threads
        self._budget = process_budget()
        self._address = context.handle.address
        self._memory = native.memory(self._address)
        self.n_batch = min(context.sizes.n_batch, native.n_batch(self._address))
        self.n_outputs = context.sizes.n_outputs
        self._n_vocab = loaded.info.n_vocab
        self._batch = Batch(native.c.llama_batch, self.n_batch, self._n_vocab, self.n_ctx)
        self._sequences = [_Sequence(number) for number in range(self.n_seq)]
        self._logits: NDArray[np.float32] | None = None  # all rows there can be
        self._logits_at = 0
        self._step = 0  # decodes so far; the logits are those of the last
        self._alike: list[_Sequence] = []  # of the last decode, if `repeat` may go on from it
        self._errors: list[str] | None = None  # what the library says meanwhile
        self._alike_rows: list[NDArray[np.float32]] = []  # what it returned
        self._shifted = False  # keys of some cells wait for the next decode to be rotated
        self.adapters: tuple[LoraAdapter, ...] = loaded.options.lora
        self._adapters = AdapterSet(native, self._address, context.adapters)
        self.use_adapters(tuple(adapter.scale for adapter in self.adapters))
        self.capabilities |= self._find_capabilities(loaded)

    def _find_capabilities(self, loaded: Loaded) -> frozenset[Capability]:
        found: set[Capability] = {"generate", "shared_batch", "repeat"}
        if not self._context.whole:  # else tokens that a caller rejects could not be taken back
            found |= {"copy", "rows"}
        # What is saved of a sliding window is the window: a beginning cannot be cut from it, and
        # to shift cells that others share they are saved too.
        if not self._context.slides:
            found.add("state")
            if not self._context.whole and self._native.can_shift(self._memory):
                found.add("shift")
        if not loaded.report.gpu_layers:  # what runs on a GPU asks nobody whether to stop
            found.add("interrupt")
        if self.adapters:
            found.add("lora")
        return frozenset(found)

    # Evaluation

    def decode(self, feeds: Sequence[Feed]) -> None:
        """See `Runtime.decode`: one evaluation of all feeds. Whatever is wrong with a feed raises
        before any of them is evaluated."""
        with self._lock:
            self._check_open()
            self._alike = []
            fed, n_rows = self._stage(feeds)
            if not fed:
                return
            self._evaluate(fed, n_rows)
            if n_rows == self._batch.n == len(fed):  # one token each, with its logits
                self._alike = [sequence for sequence, _, _ in fed]

    def repeat(self, tokens: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """See `RepeatingRuntime.repeat`."""
        with self._lock:
            self._check_open()
            alike, n_ctx, n = self._alike, self.n_ctx, len(tokens)
            if not alike or n != len(alike):
                raise refusals.nothing_to_repeat(n, len(alike))
            for sequence in alike:
                if sequence.ready != "logits" or sequence.n_past >= n_ctx:
                    raise refusals.nothing_to_repeat(n, n)
            self._batch.advance(tokens)
            self._alike = []  # until it went well
            if self._errors is None:  # and until the next `decode`
                self._errors = self._native.log.listen()
            code, address = self._run(n)
            if code != _DONE:
                self._raise_failure(code, alike, self._errors)
            self._shifted = False
            self._step = step = self._step + 1
            for sequence in alike:
                sequence.n_past += 1
                sequence.step = step
            self._alike = alike
            if address != self._logits_at or len(self._alike_rows) != n:
                self._alike_rows = list(self._rows_at(address)[:n])
            return self._alike_rows

    def _stage(self, feeds: Sequence[Feed]) -> tuple[list[tuple[_Sequence, int, Feed]], int]:
        """Check the feeds completely and lay them into the batch. Returns each with its sequence
        and number of tokens, and the number of rows of logits that will be there."""
        batch, n_vocab = self._batch, self._n_vocab
        batch.clear()
        fed: list[tuple[_Sequence, int, Feed]] = []
        seen: set[int] = set()
        n_rows, prompts = 0, False
        room = self.n_batch
        for feed in feeds:
            seq, tokens, output = feed.seq, feed.tokens, feed.output
            if seq in seen:
                raise refusals.fed_twice(seq)
            if not 0 <= seq < self.n_seq:
                raise refusals.no_sequence(seq, self.n_seq)
            seen.add(seq)
            sequence = self._sequences[seq]
            count, n_past = len(tokens), sequence.n_past
            room -= count
            if count < 1 or room < 0 or n_past + count > self.n_ctx:
                raise refusals.too_many_tokens(
                    count, n_past=n_past, n_ctx=self.n_ctx, n_batch=self.n_batch, room=room + count
                )
            outputs = count if output == "every" else output == "logits"
            if output == "embedding":
                raise refusals.no_embedding()
            if count == 1 and type(tokens[0]) is int and 0 <= tokens[0] < n_vocab:
                batch.add_one(seq, tokens[0], n_past, output != "none")
            else:
                batch.add(seq, tokens, n_past, outputs)
                prompts = True
            n_rows += outputs
            fed.append((sequence, count, feed))
        if n_rows > self.n_outputs:
            raise refusals.too_many_rows(n_rows, self.n_outputs)
        if prompts:
            self._check_file(fed)
        return fed, n_rows

    def _evaluate(self, fed: list[tuple[_Sequence, int, Feed]], n_rows: int) -> None:
        # A shift whose rotation was ended half-way would leave wrong keys: that decode is finished.
        if not self._shifted:
            self._stopper.begin()
        errors = self._native.log.listen()
        try:
            code, address = self._run(n_rows)
        finally:
            self._native.log.rest()
            self._errors = None
            self._stopper.end()
        self._shifted = False
        if code != _DONE:
            self._raise_failure(code, [sequence for sequence, _, _ in fed], errors)
        row = 0
        self._step = step = self._step + 1
        for sequence, count, feed in fed:
            sequence.n_past += count
            sequence.step = step
            sequence.ready = output = feed.output
            first = row
            if output != "none":
                row += count if output == "every" else 1
            sequence.rows = (first, row)
        if n_rows:
            self._rows_at(address)

    def _run(self, n_rows: int) -> tuple[int, int]:
        """Evaluate the batch. Returns llama_decode's result and the address of `n_rows` rows of
        logits, 0 if there are none."""
        native, batch = self._native, self._batch.native
        batch.n_tokens = self._batch.n
        native.evaluated = True
        self._budget.acquire(self._threads)
        try:
            code = native.decode(self._address, batch)
            # Reading the logits waits for the computation, which on a GPU is still under way.
            return code, native.logits(self._address) if n_rows and code == _DONE else 0
        finally:
            self._budget.release(self._threads)

    def _rows_at(self, address: int) -> NDArray[np.float32]:
        """All rows of logits there can be, which the library keeps at `address`."""
        if self._logits is None or address != self._logits_at:
            self._logits_at, self._logits = address, self._view_logits(address)
        return self._logits

    def _view_logits(self, address: int) -> NDArray[np.float32]:
        if not address:
            raise BackendError("the library has no logits to give")
        shape = (self.n_outputs, self._n_vocab)
        return float_view(address, shape[0] * shape[1], self._context.handle).reshape(shape)

    def _raise_failure(self, code: int, fed: list[_Sequence], errors: list[str]) -> None:
        """Bring the sequences into the state that the error promises, and raise it."""
        if code == _NO_ROOM:
            raise NoRoom(f"no room in the KV cache for {self._batch.n} more tokens")
        if code == _ABORTED:
            # What was finished before stays in the cache: take it out again.
            emptied = [
                sequence.number for sequence in fed if not self._cut(sequence, sequence.n_past)
            ]
            raise Interrupted("the evaluation was interrupted", emptied=tuple(emptied))
        for sequence in fed:
            self._empty(sequence)
        told = f"the evaluation returned {code}" + (f": {errors[0]}" if errors else "")
        raise refusals.failed({sequence.number: told for sequence in fed})

    def _check_file(self, fed: list[tuple[_Sequence, int, Feed]]) -> None:
        """At prompts, not at every token: reading a mapped file that was cut short ends the
        process, and one that was written to gives wrong numbers."""
        loaded = self._loaded
        if loaded is None or loaded.identity is None:
            return
        try:
            same = FileIdentity.of(self.info.path)
        except OSError:
            return  # removed: the mapping keeps the old file alive
        if same.inode == loaded.identity.inode and same != loaded.identity:
            for sequence, _, _ in fed:
                self._empty(sequence)
            reason = f"{self.info.path} was written to while it was loaded; load it again"
            raise refusals.failed({sequence.number: reason for sequence, _, _ in fed})

    # Outputs

    def length(self, seq: int) -> int:
        """See `Runtime.length`."""
        return self._sequence(seq).n_past

    def logits(self, seq: int) -> NDArray[np.float32]:
        """See `Runtime.logits`. A view that is kept too long shows the values of later evaluations,
        and keeps the native memory from being freed; it never becomes invalid memory."""
        sequence = self._ready(seq, "logits", "every")
        assert self._logits is not None
        row: NDArray[np.float32] = self._logits[sequence.rows[1] - 1]
        return row

    def rows(self, seq: int) -> NDArray[np.float32]:
        """See `RowsRuntime.rows`."""
        sequence = self._ready(seq, "every")
        assert self._logits is not None
        return self._logits[sequence.rows[0] : sequence.rows[1]]

    def _ready(self, seq: int, *outputs: str) -> _Sequence:
        """A sequence with rows in the logits of the last decode."""
        sequence = self._sequence(seq)
        if sequence.ready not in outputs or sequence.step != self._step:
            raise refusals.no_output(seq, outputs)
        return sequence

    def embed(self, seq: int) -> NDArray[np.float32]:
        """Always raises: embeddings are made by the `embedder`, beside the generations."""
        self._sequence(seq)
        raise refusals.no_embedding()

    # The KV cache

    def keep(self, seq: int, n: int) -> int:
        """See `Runtime.keep`."""
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
                self._cut(sequence, n)
            return sequence.n_past

    def copy(self, source: int, target: int, n: int) -> None:
        """See `CopyingRuntime.copy`: the cells of the KV cache are shared, none is copied."""
        with self._lock:
            giver, taker = self._sequence(source), self._sequence(target)
            self._check_capability("copy")
            if source == target or not 0 <= n <= giver.n_past:
                raise InvalidRequest(
                    f"{n} tokens of sequence {source}, which holds {giver.n_past}, cannot be "
                    f"copied to sequence {target}",
                    field="n",
                    value=n,
                    allowed=f"0 to {giver.n_past}, to another sequence",
                )
            self._empty(taker)
            if n:
                self._native.seq_cp(self._memory, source, target, 0, n)
                taker.n_past = taker.shared = n
                giver.shared = max(giver.shared, n)

    def _cut(self, sequence: _Sequence, n: int) -> bool:
        """Leave the first `n` tokens of a sequence in the cache; False if the model cannot go back
        and the sequence is empty now."""
        native, number = self._native, sequence.number
        if n == 0:
            self._empty(sequence)
            return True
        done = native.seq_rm(self._memory, number, n, -1)
        # Behind a sliding window the first cells may be gone: what is left is no beginning.
        if done and self._slid(number):
            done = False
        if not done:
            self._empty(sequence)
            return False
        sequence.cut(n)
        return True

    def _slid(self, number: int) -> bool:
        return self._context.slides and self._native.seq_pos_min(self._memory, number) > 0

    def _empty(self, sequence: _Sequence) -> None:
        self._native.seq_rm(self._memory, sequence.number, -1, -1)
        sequence.cut(0)

    def shift(self, seq: int, start: int, end: int) -> None:
        """See `ShiftingRuntime.shift`. The keys of what moves are rotated in the next decode."""
        with self._lock:
            sequence = self._sequence(seq)
            self._check_capability("shift")
            if not 0 <= start < end <= sequence.n_past:
                raise InvalidRequest(
                    f"positions {start} to {end} are not in sequence {seq}, which holds "
                    f"{sequence.n_past} tokens",
                    field="start",
                    value=(start, end),
                    allowed=f"0 <= start < end <= {sequence.n_past}",
                )
            if sequence.shared > end:
                # A cell has one position for all its sequences: those that share it would move too.
                self._own_cells(sequence)
            self._native.seq_rm(self._memory, seq, start, end)
            left = sequence.n_past - (end - start)
            if left > start:
                self._native.seq_add(self._memory, seq, end, -1, start - end)
                self._shifted = True
            sequence.n_past = left
            sequence.shared = min(sequence.shared, start)
            sequence.ready = ""

    def _own_cells(self, sequence: _Sequence) -> None:
        """Give a sequence cells that no other one uses, with the same content."""
        n_past = sequence.n_past
        content = self._read_cells(sequence)
        self._empty(sequence)
        if not self._write_cells(sequence, content, n_past):
            raise refusals.failed({sequence.number: "no room in the KV cache for cells of its own"})

    # The state of a sequence

    def save(self, seq: int) -> bytes:
        """See `StatefulRuntime.save`. About as many bytes as its part of the KV cache."""
        with self._lock:
            sequence = self._sequence(seq)
            self._check_capability("state")
            return states.pack(self._state_key(), sequence.n_past, self._read_cells(sequence))

    def restore(self, seq: int, state: bytes, tokens: Sequence[int]) -> None:
        """See `StatefulRuntime.restore`. Raises InvalidRequest, with the sequence empty, for a
        state that is damaged, of other tokens or of a model loaded otherwise."""
        with self._lock:
            sequence = self._sequence(seq)
            self._check_capability("state")
            self._empty(sequence)
            n_past, content = states.unpack(self._state_key(), state)
            if n_past != len(tokens) or n_past > self.n_ctx:
                raise states.refusal(f"it holds {n_past} tokens, and {len(tokens)} were given")
            if n_past and not self._write_cells(sequence, content, n_past):
                raise states.refusal("the library refuses it, or has no room for it")

    def _state_key(self) -> str:
        """Whatever must be the same for the cells of one load to be those of another."""
        options, info = self._check_open().options, self.info
        sizes = (info.architecture, info.n_layer, info.n_embd, info.n_head_kv, info.head_size)
        kinds = (options.cache_type_k, options.cache_type_v, options.flash_attention)
        weights = (info.file_bytes, info.n_params, info.quantization)
        return repr((self._native.version, sizes, kinds, weights))

    def _read_cells(self, sequence: _Sequence) -> bytes:
        if self._shifted:
            raise InvalidRequest(
                "a sequence was shifted and nothing evaluated since",
                field="seq",
                value=sequence.number,
                allowed="a decode in between",
            )
        native = self._native
        size = native.state_size(self._address, sequence.number)
        memory = np.empty(size, np.uint8)
        found = native.state_get(self._address, memory.ctypes.data, size, sequence.number)
        if found != size:
            raise BackendError("the library cannot read the KV cache of the sequence")
        return memory.tobytes()

    def _write_cells(self, sequence: _Sequence, content: bytes, n_past: int) -> bool:
        """Fill an empty sequence; False if that failed, and it is empty then."""
        native, number = self._native, sequence.number
        errors = native.log.listen()
        try:
            memory = np.frombuffer(content, np.uint8)
            taken = native.state_set(self._address, memory.ctypes.data, memory.size, number)
        finally:
            native.log.rest()
        ends = native.seq_pos_max(self._memory, number)
        if errors or taken != len(content) or ends != n_past - 1:
            self._empty(sequence)
            return False
        sequence.cut(n_past)
        sequence.shared = 0
        return True

    # Adapters

    def use_adapters(self, scales: tuple[float, ...]) -> None:
        """See `LoraRuntime.use_adapters`."""
        with self._lock:
            self._check_open()
            self._adapters.use(scales)

    # The end

    def interrupt(self) -> None:
        """See `InterruptibleRuntime.interrupt`."""
        self._stopper.stop()

    def close(self) -> None:
        """End a running decode, then free everything native. Memory that a view of logits still
        shows is freed when the last such view is gone."""
        self._stopper.stop()
        super().close()

    def _release(self) -> None:
        self._logits = None
        self._alike_rows = []
        del self._context

    # Errors

    def _check_capability(self, capability: Capability) -> None:
        if capability not in self.capabilities:
            raise Unsupported(
                f"a model of the architecture {self.info.architecture!r} cannot {capability}",
                field=capability,
                allowed=", ".join(sorted(self.capabilities)),
            )

    def _sequence(self, seq: int) -> _Sequence:
        self._check_open()
        if not 0 <= seq < self.n_seq:
            raise refusals.no_sequence(seq, self.n_seq)
        return self._sequences[seq]
