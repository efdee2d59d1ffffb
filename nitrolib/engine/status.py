"""What `Engine.status()` tells, as plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["EngineCounters", "EngineStatus", "LoraStatus", "ModelStatus", "SlotStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotStatus:
    """One slot: what it does now and how many tokens its KV cache holds."""

    slot: int
    state: Literal["idle", "prefill", "decode"]
    cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraStatus:
    """A LoRA adapter that was loaded beside the model: its number, its file, and the strength with
    which it acts on requests that name none."""

    id: int
    path: str
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """The loaded model as `status()` tells it.

    reason: why this backend runs it.
    n_ctx: the context of one slot, in tokens.
    shared_batch: whether the slots share every evaluation; if not, they run side by side, and each
        takes as long as it would alone.
    capabilities: what else the backend can do with this model, by the names of
        `nitrolib.backends.base.Capability`.
    tokens_cached: tokens that the KV caches of all slots hold; what slots share counts for each.
    lora: the adapters that were loaded.
    """

    path: str
    name: str
    architecture: str
    provisional: bool
    backend: str
    library: str
    threads: int
    gpu_layers: int
    memory_bytes: int
    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_parallel: int
    cont_batching: bool
    embedding: bool
    caching: bool
    clean_cache_threshold: int
    chats_since_clean: int
    cleanings: int
    notes: tuple[str, ...]
    slots: tuple[SlotStatus, ...]
    reason: str = ""
    shared_batch: bool = False
    capabilities: tuple[str, ...] = ()
    tokens_cached: int = 0
    lora: tuple[LoraStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounters:
    """Sums over everything since the engine was made, for metrics; they only grow. Those of
    requests are added at the end of each, however it ended; warming up is not counted.

    requests: how many have ended.
    prompt_tokens, prompt_s: prompt tokens evaluated, those of embeddings too, and the seconds that
        took; prompt_tokens_cached: those that the KV cache had.
    predicted_tokens: tokens sampled. predicted_steps, predicted_s: those after the first of each
        answer, which comes with the prompt, and the seconds they took.
    tokens_max: the longest prompt with its answer.
    decodes: evaluations; busy_slots: the slots fed in each of them, added up.
    drafts, draft_tokens, draft_tokens_accepted: guesses, the tokens in them, and those of them that
        came; accepted_by_position: of the latter how many were first, second ... of their guess.
    set_back: requests that lost their slot for want of room and went on later.
    """

    requests: int = 0
    prompt_tokens: int = 0
    prompt_tokens_cached: int = 0
    prompt_s: float = 0.0
    predicted_tokens: int = 0
    predicted_steps: int = 0
    predicted_s: float = 0.0
    tokens_max: int = 0
    decodes: int = 0
    busy_slots: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    draft_tokens_accepted: int = 0
    accepted_by_position: tuple[int, ...] = ()
    set_back: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """The engine now. `model` is None when nothing is loaded; `counters` are sums since the engine
    was made."""

    model: ModelStatus | None
    loading: bool
    running: int
    waiting: int
    max_queue: int
    counters: EngineCounters = field(default_factory=EngineCounters)
