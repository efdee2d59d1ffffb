"""The seam between the scheduler and native code: `Runtime`, a loaded model with `n_seq` sequences.

Everything above this file is the same for every backend. One thread owns a runtime: only
`tokenize` may be called from other threads, and only while the runtime is open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..gguf import ModelInfo, Vocabulary

Output = Literal["none", "logits", "embedding"]


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

    def __post_init__(self) -> None:
        _at_least("ctx_len", self.ctx_len, 1)
        _at_least("n_parallel", self.n_parallel, 1)
        _at_least("clean_cache_threshold", self.clean_cache_threshold, 0)
        if self.ngl is not None:
            _at_least("ngl", self.ngl, 0)
        if self.threads is not None:
            _at_least("threads", self.threads, 1)
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


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens to append to sequence `seq` in one decode, and what is wanted of the last of them.

    tokens: ids, at least one, at most `Runtime.n_batch`; they continue at the sequence's length.
    """

    seq: int
    tokens: Sequence[int]
    output: Output = "logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeReport:
    """What loading came to, for `status()`: the backend, its library, and whatever differs from
    what was asked for, in words, one note a difference."""

    backend: str
    library: str
    threads: int
    gpu_layers: int
    memory_bytes: int
    notes: tuple[str, ...] = field(default=())


class Runtime(Protocol):
    """A loaded model. Sequences are numbered 0 .. n_seq - 1, and each is a list of evaluated
    tokens (its KV cache); all start empty."""

    info: ModelInfo
    vocabulary: Vocabulary
    report: RuntimeReport
    n_seq: int
    n_ctx: int  # tokens one sequence can hold
    n_batch: int  # most tokens in one Feed
    capabilities: frozenset[str]  # such as "embed", "shared_batch", "copy", "shift"

    def tokenize(self, text: str, *, space_prefix: bool = True) -> list[int]:
        """Ids of plain text: no BOS, and never a control token, whatever the text spells.

        `space_prefix` False leaves out the space that SentencePiece puts before a text: for text
        that continues earlier text. Raises InvalidRequest for text that is not valid Unicode.
        May be called from any thread.
        """
        ...

    def decode(self, feeds: Sequence[Feed]) -> None:
        """Append every feed's tokens to its sequence (at most one feed a sequence).

        Raises BackendError if the evaluation failed; `failed` then lists the sequences concerned,
        which are empty afterwards, and the others are as if they had not been fed or had been fed
        in full (`length` tells).
        """
        ...

    def length(self, seq: int) -> int:
        """Tokens the sequence holds."""
        ...

    def logits(self, seq: int) -> NDArray[np.float32]:
        """Logits after the last token of `seq`, shape (n_vocab,), float32: a view into native
        memory, valid until the next decode or close. The caller may write to it."""
        ...

    def embed(self, seq: int) -> NDArray[np.float32]:
        """Embedding of the tokens of `seq`, whose last feed asked for output "embedding": shape
        (n_embd,), float32, L2-normalised, a copy."""
        ...

    def keep(self, seq: int, n: int) -> None:
        """Forget all but the first `n` tokens of `seq`; 0 empties it."""
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
