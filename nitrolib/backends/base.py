"""The seam between the scheduler and native code: `Runtime`, a loaded model with `n_seq` sequences.

Everything above this file is the same for every backend. One thread owns a runtime: only
`tokenize` may be called from other threads, and only while the runtime is open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from ..errors import BackendError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..gguf import ModelInfo, Vocabulary

Output = Literal["none", "logits", "every", "embedding"]
CacheType = Literal["f16", "q8_0", "q4_0"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A LoRA adapter to load beside the model: its GGUF file, and the strength with which it acts
    on requests that name none. Adapters are numbered in the order of `LoadOptions.lora`."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is loaded. Validated once, here; passed whole from the face to the backend.

    ctx_len: context tokens over all slots; each slot gets `ctx_len // n_parallel`, capped by the
        length the model was trained on (the cap is reported in `Runtime.notes`).
    n_parallel: slots, that is, generations that may run side by side.
    cont_batching: whether a new prompt may join while others decode; if not, it waits for them.
    ngl: layers on the GPU. 0 is CPU only; None is as many as this machine can take, which may be
        none. A positive number that cannot be honoured raises GpuUnavailable, unless
        `gpu_fallback` allows the CPU instead (reported in `Runtime.notes`).
    threads: native compute threads over all slots together; None is the available cores less one.
    embedding: whether embeddings may be asked for.
    mmap, mlock: map the file (shared between processes), keep it in RAM.
    caching: whether a slot's KV cache is reused for a prompt with the same beginning.
    clean_cache_threshold: chats between two cleanings of the cache; 0 is never.
    warm_up: run one hidden completion after loading.
    provisional: nobody asked for this model; the next load replaces it instead of being refused.

    What follows only llama-cpp-python honours; ctransformers raises Unsupported for any of it that
    is not at its default.

    n_batch: most tokens in one evaluation, over all slots; None is 512, or n_parallel if that is
        more. n_ubatch: most that pass through the layers at once; None is n_batch.
    flash_attention: None is wherever the model and the machine allow it.
    cache_type_k, cache_type_v: how keys and values are kept. A quantised `cache_type_v` needs flash
        attention.
    shared_context: every slot may hold up to `ctx_len` tokens, as long as all of them together do
        not need more; a request that finds no room waits, or is set back and goes on later.
    main_gpu, tensor_split: which GPU holds what is not split, and the parts of the layers that each
        GPU takes; () is by free memory.
    pooling: how the embedding of a text is made from those of its tokens; None is what the file
        says, else "mean".
    lora: adapters to load.
    lookup: tokens to guess ahead from what the text holds already (speculative decoding by prompt
        lookup); 0 is none. The tokens that come out are the same.
    """

    ctx_len: int = 2048
    n_parallel: int = 1
    cont_batching: bool = True
    ngl: int | None = None
    gpu_fallback: bool = False
    threads: int | None = None
    embedding: bool = True
    mmap: bool = True
    mlock: bool = False
    caching: bool = True
    clean_cache_threshold: int = 5
    warm_up: bool = True
    provisional: bool = False
    n_batch: int | None = None
    n_ubatch: int | None = None
    flash_attention: bool | None = None
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    shared_context: bool = False
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    pooling: Pooling | None = None
    lora: tuple[LoraAdapter, ...] = ()
    lookup: int = 0

    def __post_init__(self) -> None:
        _at_least("ctx_len", self.ctx_len, 1)
        _at_least("n_parallel", self.n_parallel, 1)
        _at_least("clean_cache_threshold", self.clean_cache_threshold, 0)
        if self.ngl is not None:
            _at_least("ngl", self.ngl, 0)
        if self.threads is not None:
            _at_least("threads", self.threads, 1)
        for name in ("n_batch", "n_ubatch"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        for name in ("main_gpu", "lookup"):
            _at_least(name, getattr(self, name), 0)
        for name, kinds in (("cache_type_k", CacheType), ("cache_type_v", CacheType)):
            _one_of(name, getattr(self, name), get_args(kinds))
        if self.pooling is not None:
            _one_of("pooling", self.pooling, get_args(Pooling))
        if self.ctx_len < self.n_parallel:
            raise InvalidRequest(
                f"ctx_len {self.ctx_len} leaves no token for each of {self.n_parallel} slots",
                field="ctx_len",
                value=self.ctx_len,
                allowed=f"at least n_parallel ({self.n_parallel})",
            )


def _at_least(field: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidRequest(
            f"{field} must be a whole number of at least {least}, got {value!r}",
            field=field,
            value=value,
            allowed=f"a whole number, {least} or more",
        )


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidRequest(
            f"{field} must be one of {', '.join(allowed)}, got {value!r}",
            field=field,
            value=value,
            allowed=", ".join(allowed),
        )


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens to append to sequence `seq` in one decode, and what is wanted of the last of them.

    tokens: ids, at least one; they continue at the sequence's length. At most `Runtime.n_batch` in
        one feed, and with the capability "shared_batch" in all feeds of a decode together.
    output: "logits" are those after the last token; "every" (capability "rows") is those after each
        of them.
    """

    seq: int
    tokens: Sequence[int]
    output: Output = "logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeReport:
    """What loading came to, for `status()`: the backend and why it is this one, its library, and
    whatever differs from what was asked for, in words, one note a difference."""

    backend: str
    library: str
    threads: int
    gpu_layers: int
    memory_bytes: int
    notes: tuple[str, ...] = field(default=())
    reason: str = ""


Capability = Literal[
    "generate",  # makes tokens: `decode` with output "logits", and `logits`
    "embed",  # `embed`, in the sequences of generations
    "embedder",  # EmbeddingRuntime: embeddings beside the generations
    "rank",  # its embedder scores texts: `Embedder.rank`
    "shared_batch",  # all feeds of a decode are one evaluation
    "rows",  # RowsRuntime
    "repeat",  # RepeatingRuntime
    "copy",  # CopyingRuntime
    "shift",  # ShiftingRuntime
    "interrupt",  # InterruptibleRuntime
    "lora",  # LoraRuntime
    "state",  # StatefulRuntime
]


class NoRoom(BackendError):
    """The KV cache has no cells left for a decode. Nothing was evaluated: every sequence is as it
    was, and the decode can be done again once others have been emptied."""

    code = "no_room"
    retryable = True


class Interrupted(BackendError):
    """A decode was ended by `interrupt`. Nothing of it counts: every sequence is as it was before,
    but for those in `emptied`, whose model cannot go back."""

    code = "interrupted"
    retryable = True
    emptied: tuple[int, ...]


class Runtime(Protocol):
    """A loaded model. Sequences are numbered 0 .. n_seq - 1, and each is a list of evaluated
    tokens (its KV cache); all start empty."""

    info: ModelInfo
    vocabulary: Vocabulary
    report: RuntimeReport
    n_seq: int
    n_ctx: int  # tokens one sequence can hold
    n_batch: int  # most tokens in one Feed; with "shared_batch", in one decode
    capabilities: frozenset[Capability]

    def tokenize(self, text: str, *, space_prefix: bool = True) -> list[int]:
        """Ids of plain text: no BOS, and never a control token, whatever the text spells.

        `space_prefix` False leaves out the space that SentencePiece puts before a text: for text
        that continues earlier text. Raises InvalidRequest for text that is not valid Unicode.
        May be called from any thread.
        """
        ...

    def decode(self, feeds: Sequence[Feed]) -> None:
        """Append every feed's tokens to its sequence (at most one feed a sequence).

        Raises NoRoom and Interrupted where nothing of it counts, and BackendError if the evaluation
        failed; `failed` then lists the sequences concerned, which are empty afterwards, and the
        others are as if they had not been fed or had been fed in full (`length` tells).
        """
        ...

    def length(self, seq: int) -> int:
        """Tokens the sequence holds."""
        ...

    def logits(self, seq: int) -> NDArray[np.float32]:
        """Logits after the last token of `seq`, shape (n_vocab,), float32: a view into native
        memory, valid until the next decode or close. The caller may write to it.

        They may hold NaN and infinities, unless `decode` has failed the sequence for them: who
        chooses a token reads them all and refuses them then, so they are not read twice."""
        ...

    def embed(self, seq: int) -> NDArray[np.float32]:
        """Embedding of the tokens of `seq`, whose last feed asked for output "embedding": shape
        (n_embd,), float32, L2-normalised, a copy."""
        ...

    def keep(self, seq: int, n: int) -> int:
        """Forget all but the first `n` tokens of `seq`; 0 empties it. Returns how many it holds
        now: `n`, or 0 where the model cannot go back and begins anew."""
        ...

    def close(self) -> None:
        """Free everything native; safe to call twice. Views handed out must be dropped before."""
        ...


class CopyingRuntime(Runtime, Protocol):
    """A runtime with the capability "copy"."""

    def copy(self, source: int, target: int, n: int) -> None:
        """Make the sequence `target` the first `n` tokens of the sequence `source`, which stays as
        it is; costs no evaluation. What `target` held is forgotten."""
        ...


class ShiftingRuntime(Runtime, Protocol):
    """A runtime with the capability "shift"."""

    def shift(self, seq: int, start: int, end: int) -> None:
        """Forget the tokens of `seq` from position `start` up to `end` (not included), and move
        those after them down into their place without evaluating them again."""
        ...


class RowsRuntime(Runtime, Protocol):
    """A runtime with the capability "rows". `n_outputs` is the most rows of logits in one decode,
    over all feeds, those of output "logits" included."""

    n_outputs: int

    def rows(self, seq: int) -> NDArray[np.float32]:
        """Logits after every token of the last feed of `seq`, whose output was "every": shape
        (tokens of the feed, n_vocab), float32; a view as that of `logits`."""
        ...


class RepeatingRuntime(Runtime, Protocol):
    """A runtime with the capability "repeat": it goes on where nothing has changed with the least
    that there is to do."""

    def repeat(self, tokens: Sequence[int]) -> Sequence[NDArray[np.float32]]:
        """Append `tokens[i]` to the sequence of the i-th feed of the last decode, all of whose
        feeds had one token and the output "logits", and none of whose sequences was changed since.
        Returns the logits after each, in that order: views as that of `logits`.

        Raises as `decode`, but never Interrupted: one token does not take long."""
        ...


class InterruptibleRuntime(Runtime, Protocol):
    """A runtime with the capability "interrupt"."""

    def interrupt(self) -> None:
        """Make the decode that runs now raise Interrupted, within milliseconds. May be called from
        any thread; without a running decode it does nothing, also to the next one."""
        ...


class LoraRuntime(Runtime, Protocol):
    """A runtime with the capability "lora"."""

    adapters: tuple[LoraAdapter, ...]

    def use_adapters(self, scales: tuple[float, ...]) -> None:
        """The strength of each adapter in the next decodes; all 0 is the plain model. What was
        evaluated with other strengths is not the beginning of what comes."""
        ...


class StatefulRuntime(Runtime, Protocol):
    """A runtime with the capability "state"."""

    def save(self, seq: int) -> bytes:
        """The KV cache of `seq`, for `restore` of the same model loaded with the same options."""
        ...

    def restore(self, seq: int, state: bytes, tokens: Sequence[int]) -> None:
        """Make `seq` the sequence that was saved, which held `tokens`. Raises InvalidRequest for a
        state that does not fit, and `seq` is empty then."""
        ...


class Embedder(Protocol):
    """Makes embeddings beside the generations of a runtime; belongs to one thread of its own, but
    for `framed`, `pair` and `interrupt`, which any may call.

    n_batch: most tokens of one text, and of all texts of one `embed`. n_seq: most texts of one.
    n_out: length of a vector.
    """

    n_batch: int
    n_seq: int
    n_out: int

    def embed(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One L2-normalised vector a text, shape (len(texts), n_out), float32, a copy."""
        ...

    def rank(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """One score a text, each a query and a document as `pair` joins them: (len(texts),)."""
        ...

    def framed(self, text: Sequence[int]) -> list[int]:
        """The ids of a text with what begins and ends it for this model (BOS, EOS, CLS, SEP): what
        `embed` is to be given."""
        ...

    def pair(self, query: Sequence[int], document: Sequence[int]) -> list[int]:
        """The ids of a query and a document together, as the model was trained on."""
        ...

    def interrupt(self) -> None:
        """As `InterruptibleRuntime.interrupt`."""
        ...

    def close(self) -> None:
        """Free it; safe to call twice. Before the runtime that made it."""
        ...


class EmbeddingRuntime(Runtime, Protocol):
    """A runtime with the capability "embedder"."""

    def embedder(self) -> Embedder:
        """Make the embedder, which takes memory of its own. Called once, when it is needed."""
        ...
