"""nitrolib: an embeddable local-LLM engine over GGUF models.

    from nitrolib import Engine, Message
    from nitrolib.demo import model_path

    with Engine.open(model_path()) as engine:
        print(engine.chat([Message("user", "Hello")]).text)

Importing this package loads no native library, no web framework and not even numpy: every name
below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .backends import Feed, LoadOptions, LoraAdapter, Runtime
    from .engine import (
        CacheCleaningPolicy,
        Chunk,
        Completion,
        Embeddings,
        Engine,
        EngineCounters,
        EngineStatus,
        Generation,
        GenerationRequest,
        LoraStatus,
        ModelStatus,
        Progress,
        Reranking,
        SlotState,
        Timings,
        TokenProb,
        TokenProbs,
        Usage,
    )
    from .errors import (
        BackendCrashed,
        BackendError,
        BackendUnavailable,
        Cancelled,
        Conflict,
        ContextOverflow,
        DeadlineExceeded,
        DownloadError,
        Forbidden,
        GpuUnavailable,
        InvalidRequest,
        ModelAlreadyLoaded,
        ModelFileError,
        ModelLoadError,
        ModelNotFound,
        ModelNotLoaded,
        NitroError,
        NotEnoughMemory,
        NotFound,
        Overloaded,
        StorageError,
        Unsupported,
    )
    from .prompt import (
        ChatPlan,
        ChatTemplate,
        Message,
        Prompt,
        PromptTemplate,
        Segment,
        Tool,
        ToolCall,
        ToolChoice,
        prepare_chat,
    )
    from .sampling import SamplingParams
    from .session import ChatSession

_HOMES = {
    "backends": ("Feed", "LoadOptions", "LoraAdapter", "Runtime"),
    "engine": (
        "CacheCleaningPolicy",
        "Chunk",
        "Completion",
        "Embeddings",
        "Engine",
        "EngineCounters",
        "EngineStatus",
        "Generation",
        "GenerationRequest",
        "LoraStatus",
        "ModelStatus",
        "Progress",
        "Reranking",
        "SlotState",
        "Timings",
        "TokenProb",
        "TokenProbs",
        "Usage",
    ),
    "errors": (
        "BackendCrashed",
        "BackendError",
        "BackendUnavailable",
        "Cancelled",
        "Conflict",
        "ContextOverflow",
        "DeadlineExceeded",
        "DownloadError",
        "Forbidden",
        "GpuUnavailable",
        "InvalidRequest",
        "ModelAlreadyLoaded",
        "ModelFileError",
        "ModelLoadError",
        "ModelNotFound",
        "ModelNotLoaded",
        "NitroError",
        "NotEnoughMemory",
        "NotFound",
        "Overloaded",
        "StorageError",
        "Unsupported",
    ),
    "prompt": (
        "ChatPlan",
        "ChatTemplate",
        "Message",
        "Prompt",
        "PromptTemplate",
        "Segment",
        "Tool",
        "ToolCall",
        "ToolChoice",
        "prepare_chat",
    ),
    "sampling": ("SamplingParams",),
    "session": ("ChatSession",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BackendCrashed",
    "BackendError",
    "BackendUnavailable",
    "CacheCleaningPolicy",
    "Cancelled",
    "ChatPlan",
    "ChatSession",
    "ChatTemplate",
    "Chunk",
    "Completion",
    "Conflict",
    "ContextOverflow",
    "DeadlineExceeded",
    "DownloadError",
    "Embeddings",
    "Engine",
    "EngineCounters",
    "EngineStatus",
    "Feed",
    "Forbidden",
    "Generation",
    "GenerationRequest",
    "GpuUnavailable",
    "InvalidRequest",
    "LoadOptions",
    "LoraAdapter",
    "LoraStatus",
    "Message",
    "ModelAlreadyLoaded",
    "ModelFileError",
    "ModelLoadError",
    "ModelNotFound",
    "ModelNotLoaded",
    "ModelStatus",
    "NitroError",
    "NotEnoughMemory",
    "NotFound",
    "Overloaded",
    "Progress",
    "Prompt",
    "PromptTemplate",
    "Reranking",
    "Runtime",
    "SamplingParams",
    "Segment",
    "SlotState",
    "StorageError",
    "Timings",
    "TokenProb",
    "TokenProbs",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Unsupported",
    "Usage",
    "__version__",
    "prepare_chat",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _find_neighbours() -> None:
    """In a checkout `adapters/` and `schemas/` stand beside this folder instead of inside it."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "setup.cfg").is_file() and (checkout / "adapters").is_dir():
        __path__.append(str(checkout))


_find_neighbours()
