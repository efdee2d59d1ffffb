"""The engine: requests in, chunks out. `Engine` is the face; one scheduler thread a loaded model
owns the runtime, and everything else talks to it by queue."""

from __future__ import annotations

from .cleaning import CacheCleaningPolicy, CleaningPolicy
from .engine import Engine
from .generation import Generation
from .handle import Handle
from .request import (
    CacheCleared,
    Chunk,
    Completion,
    Embeddings,
    FinishReason,
    GenerationRequest,
    Kind,
    Progress,
    Reranking,
    StopType,
    Timings,
    TokenProb,
    TokenProbs,
    Usage,
)
from .slot_state import SlotState
from .status import EngineCounters, EngineStatus, LoraStatus, ModelStatus, SlotStatus

__all__ = [
    "CacheCleaningPolicy",
    "CacheCleared",
    "Chunk",
    "CleaningPolicy",
    "Completion",
    "Embeddings",
    "Engine",
    "EngineCounters",
    "EngineStatus",
    "FinishReason",
    "Generation",
    "GenerationRequest",
    "Handle",
    "Kind",
    "LoraStatus",
    "ModelStatus",
    "Progress",
    "Reranking",
    "SlotState",
    "SlotStatus",
    "StopType",
    "Timings",
    "TokenProb",
    "TokenProbs",
    "Usage",
]
