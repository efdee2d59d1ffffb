"""Every error nitrolib raises on purpose, in one hierarchy.

Facts a handler needs are attributes; nobody has to parse a message. No HTTP status lives here: the
adapter maps classes to statuses in one table.

    NitroError                       catch this and you have caught all of them
    ├── InvalidRequest(ValueError)   the caller can fix it; names field, value and what is allowed
    │   ├── Unsupported              a known parameter that this version or backend does not honour
    │   └── ContextOverflow          prompt (and answer) do not fit; carries the numbers
    ├── ModelFileError               the file is damaged or not what a backend may be handed
    ├── ModelLoadError               the file is sound, loading failed
    │   ├── BackendUnavailable       a library is missing or cannot run here
    │   ├── GpuUnavailable           GPU layers were asked for and no GPU can be used
    │   └── NotEnoughMemory          reckoned before loading
    ├── NotFound                     there is nothing with this id; `kind` says of what
    │   └── ModelNotFound            no model is known by this name
    ├── Conflict                     what is there already rules it out
    ├── Forbidden                    it is there, and must not be done with it
    ├── DownloadError                a file could not be fetched; `resumable` says whether to go on
    ├── StorageError                 what is to be kept could not be written or read
    ├── ModelNotLoaded               the call needs a model and none is loaded
    ├── ModelAlreadyLoaded           unload first
    ├── Overloaded                   the queue is full; retryable
    ├── Cancelled                    ended before it was done; carries what there was
    │   └── DeadlineExceeded         the request's own deadline passed
    └── BackendError                 the native engine failed (NaN logits, failed evaluation)
        └── BackendCrashed           the process that ran it is gone
"""

from __future__ import annotations

from typing import Any

__all__ = [
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
]


class NitroError(Exception):
    """Base of everything nitrolib raises on purpose.

    `code` is a stable, machine-readable name; `retryable` says whether the same call may succeed
    later without a change. Keyword facts become attributes, and survive pickling: errors cross a
    process boundary.
    """

    code = "nitro_error"
    retryable = False

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.facts))


def _rebuild(kind: type[NitroError], message: str, facts: dict[str, Any]) -> NitroError:
    error = kind.__new__(kind)
    NitroError.__init__(error, message, **facts)
    return error


class InvalidRequest(NitroError, ValueError):
    """A parameter is wrong. `field` names it, `value` is what was given, `allowed` what may be."""

    code = "invalid_request"
    field: str | None
    value: Any
    allowed: str | None

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        value: Any = None,
        allowed: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, field=field, value=value, allowed=allowed, **facts)


class Unsupported(InvalidRequest):
    """A parameter nitrolib knows and would have to ignore here: refused instead."""

    code = "unsupported"


class ContextOverflow(InvalidRequest):
    """The prompt does not fit. `prompt_tokens` (a lower bound when `at_least`) and `limit` are in
    tokens; `limit` is the context of one slot, of which an answer needs one token at least. What is
    only evaluated (`answered` False) may fill it."""

    code = "context_length_exceeded"
    prompt_tokens: int
    limit: int
    at_least: bool
    answered: bool

    def __init__(
        self,
        *,
        prompt_tokens: int,
        limit: int,
        at_least: bool = False,
        field: str = "prompt",
        answered: bool = True,
    ) -> None:
        super().__init__(
            f"the {field} has {'at least ' if at_least else ''}{prompt_tokens} tokens, and the "
            f"context holds {limit}{' with room for one more' if answered else ''}",
            field=field,
            value=prompt_tokens,
            allowed=f"at most {limit - answered} tokens",
            prompt_tokens=prompt_tokens,
            limit=limit,
            at_least=at_least,
            answered=answered,
        )


class ModelFileError(NitroError):
    """The file must not reach native code. `key` is the metadata key or `tensor` the tensor that is
    wrong, `offset` the byte offset in the file where it was seen; each may be None. `unsupported`
    is True for a sound file that this backend cannot run and another one may, False for a damaged
    one."""

    code = "model_file_error"
    path: str | None
    key: str | None
    tensor: str | None
    offset: int | None
    unsupported: bool

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        key: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
        unsupported: bool = False,
        **facts: Any,
    ) -> None:
        super().__init__(
            message,
            path=path,
            key=key,
            tensor=tensor,
            offset=offset,
            unsupported=unsupported,
            **facts,
        )


class ModelLoadError(NitroError):
    """Loading failed for a reason other than the file's content; `path` and `reason` say which."""

    code = "model_load_error"
    path: str | None
    reason: str

    def __init__(
        self, message: str, *, path: str | None = None, reason: str = "", **facts: Any
    ) -> None:
        super().__init__(message, path=path, reason=reason or message, **facts)


class BackendUnavailable(ModelLoadError):
    """A backend cannot be used here; `backend` names it and `hint` says what to install."""

    code = "backend_unavailable"


class GpuUnavailable(ModelLoadError):
    """GPU layers were asked for; `missing` is "library", "driver" or "device"."""

    code = "gpu_unavailable"


class NotEnoughMemory(ModelLoadError):
    """`needed_bytes` and `available_bytes` were reckoned before anything was loaded."""

    code = "not_enough_memory"


class NotFound(NitroError):
    """There is nothing with this id. `kind` says of what ("model", "thread", "message", ...), `id`
    is what was asked for."""

    code = "not_found"
    kind: str
    id: str

    def __init__(self, kind: str, id: str, message: str = "", **facts: Any) -> None:  # noqa: A002
        shown = id if len(id) <= 100 else f"{id[:97]}..."
        super().__init__(message or f"there is no {kind} {shown!r}", kind=kind, id=id, **facts)


class ModelNotFound(NotFound):
    """No model is known by this name."""

    code = "model_not_found"

    def __init__(self, id: str, message: str = "", **facts: Any) -> None:  # noqa: A002
        facts.pop("kind", None)
        super().__init__("model", id, message, **facts)


class Conflict(NitroError):
    """What is there already rules it out: an id that is taken, an action on something busy."""

    code = "conflict"


class Forbidden(NitroError):
    """It is there, and this must not be done with it."""

    code = "forbidden"


class DownloadError(NitroError):
    """A file could not be fetched. `reason` is "source" (not allowed, not there, not a model that
    can run here), "network", "space", "checksum", "size" or "time". Nothing of it is left, unless
    `resumable`: then a later download goes on with what is here."""

    code = "download_error"
    reason: str
    resumable: bool

    def __init__(self, message: str, *, reason: str, resumable: bool = False, **facts: Any) -> None:
        super().__init__(message, reason=reason, resumable=resumable, **facts)


class StorageError(NitroError):
    """What is to be kept could not be written or read: a full disk, a database that is gone."""

    code = "storage_error"


class ModelNotLoaded(NitroError):
    """The call needs a model and none is loaded."""

    code = "model_not_loaded"

    def __init__(self, message: str = "no model is loaded", **facts: Any) -> None:
        super().__init__(message, **facts)


class ModelAlreadyLoaded(NitroError):
    """A model is loaded; unload it first. `path` is the loaded one."""

    code = "model_already_loaded"


class Overloaded(NitroError):
    """The waiting queue is full. `queue_size` requests wait; try again in `retry_after_s`."""

    code = "overloaded"
    retryable = True
    queue_size: int
    retry_after_s: float

    def __init__(self, *, queue_size: int, retry_after_s: float = 1.0) -> None:
        super().__init__(
            f"{queue_size} requests are waiting already",
            queue_size=queue_size,
            retry_after_s=retry_after_s,
        )


class Cancelled(NitroError):
    """The generation ended before it was done. `reason` is "caller", "unload" or "shutdown";
    `partial` is the Completion so far (finish_reason None), or None where nothing ran."""

    code = "cancelled"
    reason: str
    partial: Any

    def __init__(self, message: str, *, reason: str, partial: Any = None, **facts: Any) -> None:
        super().__init__(message, reason=reason, partial=partial, **facts)


class DeadlineExceeded(Cancelled):
    """The request's own `timeout_s` passed, in the queue or while it ran."""

    code = "deadline_exceeded"

    def __init__(self, message: str, *, partial: Any = None, **facts: Any) -> None:
        facts.pop("reason", None)
        super().__init__(message, reason="deadline", partial=partial, **facts)


class BackendError(NitroError):
    """The native engine failed on this request; the engine itself stays usable."""

    code = "backend_error"


class BackendCrashed(BackendError):
    """The process that ran the native engine is gone; the request may be sent again."""

    code = "backend_crashed"
    retryable = True
