"""Embeddings and scores of texts, in a context of their own on the same weights: beside the
generations, not between them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError, InvalidRequest, ModelNotLoaded, NotEnoughMemory, Unsupported
from .. import memory
from ..base import Interrupted
from ..handle import Handle, float_view
from ..threads import process_budget
from .adapters import AdapterSet
from .batch import Batch
from .opening import base_params, open_context, set_cache
from .stopping import Stopper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ...gguf import ModelInfo
    from ..base import LoadOptions, Pooling
    from .bindings import Native

MAX_TEXTS = 64
_POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # llama_pooling_type
# The library makes a row of logits for every token of an embedding, wanted or not: this many
# numbers at a time, which are 64 MiB.
_LOGITS = 16 << 20
_LEAST = 16  # tokens of a text; with less memory than they take there is no embedder
_WPM = 3  # llama_vocab_type


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderPlan:
    """What the embedder of a model is made from.

    pooling: how a vector is made from those of the tokens. causal: whether a token sees only those
    before it; then a long text can be evaluated in pieces. n_ctx: most tokens of a text.
    adapters: addresses of the LoRA adapters, which act here as on requests that name none.
    """

    path: str
    info: ModelInfo
    options: LoadOptions
    threads: int
    pooling: Pooling
    causal: bool
    n_ctx: int
    adapters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Tokens around a text, each one or none: before it, between the two of a pair, and behind."""

    bos: tuple[int, ...]
    eos: tuple[int, ...]
    sep: tuple[int, ...]
    end: tuple[int, ...]

    @classmethod
    def of(cls, native: Native, vocab: int) -> _Frame:
        bos, eos, sep = (f(vocab) for f in (native.vocab_bos, native.vocab_eos, native.vocab_sep))
        wordpiece = native.vocab_type(vocab) == _WPM
        ends = _known(eos if eos >= 0 else sep, native.vocab_add_eos(vocab))
        return cls(
            bos=_known(bos, wordpiece or native.vocab_add_bos(vocab)),
            eos=ends,
            sep=_known(sep, native.vocab_add_sep(vocab)),
            end=_known(sep, True) if wordpiece else ends,
        )


def _known(token: int, wanted: bool) -> tuple[int, ...]:
    return (token,) if wanted and token >= 0 else ()


class LlamaCppEmbedder:
    """Makes one vector of a text, or one score of a pair; see `Embedder` for the contract.

    Pooling is done here over the vectors of all tokens, which is what the library's is, but for
    texts that do not go through the layers in one piece: of these the library pools the last piece.
    """

    def __init__(self, native: Native, model: Handle, plan: EmbedderPlan) -> None:
        self._native, self._plan = native, plan
        self.n_batch = _longest(plan)
        self.n_seq = min(MAX_TEXTS, self.n_batch)
        self.n_out = native.model_n_embd_out(model.address)
        in_pieces = plan.causal and plan.pooling != "rank"
        self._at_once = self._piece_size() if in_pieces else self.n_batch
        self._stopper = Stopper(native.c.ggml_abort_callback)
        self._context: Handle | None = open_context(native, model, self._params(), plan.path)
        self._memory = native.memory(self._context.address)
        adapters = AdapterSet(native, self._context.address, plan.adapters)
        adapters.use(tuple(adapter.scale for adapter in plan.options.lora))
        self._batch = Batch(native.c.llama_batch, self._at_once, plan.info.n_vocab, self.n_batch)
        self._budget = process_budget()
        self._lock = threading.Lock()
        self._frame = _Frame.of(native, native.model_vocab(model.address))

    def _piece_size(self) -> int:
        return max(32, min(512, self.n_batch, _LOGITS // self._plan.info.n_vocab))

    def _params(self) -> object:
        plan = self._plan
        params = base_params(self._native, plan.threads, self._stopper)
        params.n_ctx = max(self.n_batch, self.n_seq)
        params.n_batch = params.n_ubatch = max(self._at_once, self.n_seq)
        params.n_seq_max = self.n_seq
        params.embeddings = True
        params.pooling_type = _POOLING["rank" if plan.pooling == "rank" else "none"]
        params.kv_unified = True
        set_cache(params, plan.options)
        return params

    # What goes around a text

    def framed(self, text: Sequence[int]) -> list[int]:
        """See `Embedder.framed`."""
        return [*self._frame.bos, *text, *self._frame.end]

    def pair(self, query: Sequence[int], document: Sequence[int]) -> list[int]:
        """See `Embedder.pair`: [BOS] query [EOS] [SEP] document [EOS], each where the vocabulary
        wants it, as llama.cpp's server joins them; WordPiece ends with [SEP] too, as BERT does."""
        frame = self._frame
        return [*frame.bos, *query, *frame.eos, *frame.sep, *document, *frame.end]

    # Evaluation

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See `Embedder.embed`. Raises InvalidRequest for texts that are too many or too long,
        Unsupported for a model that scores, Interrupted, and BackendError."""
        if self._plan.pooling == "rank":
            raise Unsupported(
                "the model scores texts and makes no embeddings",
                field="pooling",
                value="rank",
                allowed="rank(texts)",
            )
        with self._lock:
            checked = self._checked(texts)
            try:
                pooled = self._pooled(checked)
            finally:
                self._forget()
        norms = np.sqrt(np.einsum("ij,ij->i", pooled, pooled))
        if not ((norms > 0) & np.isfinite(norms)).all():
            raise BackendError("the evaluation of an embedding gave no finite vector")
        vectors: NDArray[np.float32] = (pooled / norms[:, None]).astype(np.float32)
        return vectors

    def rank(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See `Embedder.rank`."""
        if self._plan.pooling != "rank":
            raise Unsupported(
                "the model makes embeddings and no scores",
                field="pooling",
                value=self._plan.pooling,
                allowed="embed(texts), or a model that was trained to rank",
            )
        with self._lock:
            checked = self._checked(texts)
            try:
                scores = self._scores(checked)
            finally:
                self._forget()
        if not np.isfinite(scores).all():
            raise BackendError("the evaluation of a score gave no finite number")
        return np.array(scores, np.float32)

    def _pooled(self, texts: list[Sequence[int]]) -> NDArray[np.float64]:
        """One vector a text, not normalised: (len(texts), n_out)."""
        vectors = np.zeros((len(texts), self.n_out))
        for piece in self._cut(texts):
            self._decode(piece)
            rows = self._rows()
            first = 0
            for seq, ids, start in piece:
                these = rows[first : first + len(ids)]
                first += len(ids)
                if self._plan.pooling == "mean":
                    vectors[seq] += these.sum(axis=0, dtype=np.float64)
                elif self._plan.pooling == "last":
                    vectors[seq] = these[-1]
                elif start == 0:
                    vectors[seq] = these[0]
        if self._plan.pooling == "mean":
            vectors /= np.array([len(text) for text in texts]).reshape(-1, 1)
        return vectors

    def _scores(self, texts: list[Sequence[int]]) -> list[float]:
        if not texts:
            return []
        self._decode([(seq, ids, 0) for seq, ids in enumerate(texts)])
        address = self._context_address()
        found = [self._native.embeddings_seq(address, seq) for seq in range(len(texts))]
        if not all(found):
            raise BackendError("the library has no score to give")
        return [float(float_view(place, 1, self._context)[0]) for place in found]

    def _cut(self, texts: list[Sequence[int]]) -> list[list[tuple[int, Sequence[int], int]]]:
        """Pieces of (sequence, ids, position) that fill one evaluation each, in order."""
        pieces: list[list[tuple[int, Sequence[int], int]]] = [[]]
        room = self._at_once
        for seq, text in enumerate(texts):
            start = 0
            while start < len(text):
                if not room:
                    pieces.append([])
                    room = self._at_once
                end = min(len(text), start + room)
                pieces[-1].append((seq, text[start:end], start))
                room -= end - start
                start = end
        return [piece for piece in pieces if piece]

    def _decode(self, piece: list[tuple[int, Sequence[int], int]]) -> None:
        native, batch = self._native, self._batch
        batch.clear()
        for seq, ids, start in piece:
            batch.add(seq, ids, start, len(ids))
        batch.native.n_tokens = batch.n
        address = self._context_address()
        threads = self._plan.threads
        self._stopper.begin()
        try:
            self._budget.acquire(threads)
            try:
                errors = native.log.listen()
                code = native.decode(address, batch.native)
                native.synchronize(address)
            finally:
                native.log.rest()
                self._budget.release(threads)
        finally:
            self._stopper.end()
        if code == 2:
            raise Interrupted("the evaluation was interrupted", emptied=())
        if code != 0:
            told = f": {errors[0]}" if errors else ""
            raise BackendError(f"the evaluation of an embedding returned {code}{told}")

    def _rows(self) -> NDArray[np.float32]:
        address = self._native.embeddings(self._context_address())
        if not address:
            raise BackendError("the library has no embedding to give")
        count = self._batch.n * self.n_out
        return float_view(address, count, self._context).reshape(self._batch.n, self.n_out)

    def _checked(self, texts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Texts that can be evaluated together; everything that is wrong with them raises now."""
        self._context_address()
        lengths = [len(text) for text in texts]
        if len(texts) > self.n_seq:
            raise _refusal("texts", len(texts), f"at most {self.n_seq} texts at once")
        if 0 in lengths:
            raise _refusal("texts", "an empty text", "texts of at least one token")
        if sum(lengths) > self.n_batch:
            raise _refusal("texts", sum(lengths), f"at most {self.n_batch} tokens at once")
        return [self._batch.checked(text) for text in texts]

    def _forget(self) -> None:
        if self._memory and self._context is not None:
            self._native.memory_clear(self._memory, False)

    def _context_address(self) -> int:
        if self._context is None:
            raise ModelNotLoaded("the embedder is closed")
        return self._context.address

    # The end

    def interrupt(self) -> None:
        """See `Embedder.interrupt`."""
        self._stopper.stop()

    def close(self) -> None:
        """End a running evaluation and free the context; safe to call twice."""
        self._stopper.stop()
        with self._lock:
            self._context = None

    def abandon(self) -> None:
        """In the child of a fork: never free it."""
        self._lock = threading.Lock()
        if self._context is not None:
            self._context.abandon()
            self._context = None


def _longest(plan: EmbedderPlan) -> int:
    """Most tokens of a text: the context, or what the memory allows. A text that must go through
    the layers in one piece takes a row of logits for each of its tokens."""
    if plan.causal and plan.pooling != "rank":
        return plan.n_ctx
    available = memory.available_bytes()
    if available is None:
        return plan.n_ctx
    a_token = 4 * (plan.info.n_vocab + 12 * plan.info.n_embd + 4 * plan.info.n_ff)
    fit = available // 2 // a_token
    if fit < min(_LEAST, plan.n_ctx):
        raise NotEnoughMemory(
            f"an embedding takes {memory.megabytes(a_token)} a token and "
            f"{memory.megabytes(available)} are free",
            path=plan.path,
            needed_bytes=2 * _LEAST * a_token,
            available_bytes=available,
        )
    return min(plan.n_ctx, fit)


def _refusal(field: str, value: object, allowed: str) -> InvalidRequest:
    return InvalidRequest(
        f"{value} cannot be embedded: allowed are {allowed}",
        field=field,
        value=value,
        allowed=allowed,
    )
