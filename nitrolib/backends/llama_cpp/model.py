"""What every loaded model can do, whether it generates or not: text to ids, the embedder beside it,
and its end."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ModelNotLoaded, Unsupported
from ..memory import return_freed
from ..threads import process_budget
from . import bindings
from .embedder import LlamaCppEmbedder

if TYPE_CHECKING:
    from ...gguf import FileIdentity, ModelInfo, Vocabulary
    from ..base import Capability, LoadOptions, RuntimeReport
    from ..handle import Handle
    from .bindings import Native
    from .embedder import EmbedderPlan
    from .plan import Sizes
    from .stopping import Stopper
    from .text import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The context in which a model generates, and what is particular to it.

    adapters: addresses of the LoRA adapters. whole: a recurrent model, whose sequences cannot go
    back by a part. slides: attention over a window.
    """

    handle: Handle
    stopper: Stopper
    sizes: Sizes
    adapters: tuple[int, ...]
    whole: bool
    slides: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What loading made, handed to the runtime in one piece. `identity` is None if the file is not
    mapped and may change; `context` is None for a model that does not generate, `embedder` for
    one that makes no embeddings."""

    native: Native
    info: ModelInfo
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    report: RuntimeReport
    options: LoadOptions
    n_ctx: int
    model: Handle
    identity: FileIdentity | None
    context: Context | None
    embedder: EmbedderPlan | None


class ModelRuntime:
    """The part of `Runtime` that needs no evaluation of tokens that follow each other."""

    def __init__(self, loaded: Loaded) -> None:
        self.info = loaded.info
        self.vocabulary = loaded.vocabulary
        self.report = loaded.report
        self.n_ctx = loaded.n_ctx
        self.n_seq = loaded.options.n_parallel
        self.capabilities: frozenset[Capability] = frozenset(_embedding(loaded.embedder))
        self._loaded: Loaded | None = loaded
        self._native = loaded.native
        self._embedders: weakref.WeakSet[LlamaCppEmbedder] = weakref.WeakSet()
        self._lock = threading.Lock()  # held while anything native but the tokenizer runs
        self._lost = ""
        _runtimes.add(self)

    def tokenize(self, text: str, *, space_prefix: bool = True) -> list[int]:
        """See `Runtime.tokenize`; raises ModelNotLoaded after `close`."""
        # `loaded` holds the model for the length of the call, whatever `close` does meanwhile.
        loaded = self._check_open()
        return loaded.tokenizer(text, space_prefix=space_prefix)

    def embedder(self) -> LlamaCppEmbedder:
        """See `EmbeddingRuntime.embedder`. Raises NotEnoughMemory where there is none for it."""
        with self._lock:
            loaded = self._check_open()
            if loaded.embedder is None:
                raise Unsupported(
                    "the model was loaded without embeddings",
                    field="embedding",
                    value=False,
                    allowed="embedding=True when the model is loaded",
                )
            made = LlamaCppEmbedder(loaded.native, loaded.model, loaded.embedder)
            self._embedders.add(made)
            return made

    def close(self) -> None:
        """Free everything native; safe to call twice. The embedder is closed with it."""
        for embedder in list(self._embedders):
            embedder.close()
        with self._lock:
            if self._loaded is None:
                return
            self._loaded = None
            self._release()
            return_freed()

    def _release(self) -> None:
        """Let go of what holds native memory."""

    def _after_fork(self) -> None:
        """In the child of a fork: OpenMP's threads and whoever held the lock exist no more."""
        self._lock = threading.Lock()
        loaded, self._loaded = self._loaded, None
        for embedder in list(self._embedders):
            embedder.abandon()
        if loaded is not None:
            loaded.model.abandon()
            if loaded.context is not None:
                loaded.context.handle.abandon()
            self._release()
            self._lost = "the model was loaded before this process was forked; load it again here"

    def _check_open(self) -> Loaded:
        loaded = self._loaded
        if loaded is None:
            raise ModelNotLoaded(self._lost or "the model is closed")
        return loaded


def _embedding(plan: EmbedderPlan | None) -> list[Capability]:
    if plan is None:
        return []
    return ["embedder", "rank"] if plan.pooling == "rank" else ["embedder"]


_runtimes: weakref.WeakSet[ModelRuntime] = weakref.WeakSet()


def _after_fork() -> None:
    process_budget().reset()
    bindings.after_fork()
    for runtime in list(_runtimes):
        runtime._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
