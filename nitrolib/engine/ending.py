"""How jobs end other than by being done: the errors, and telling them whatever fails in that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, Cancelled, DeadlineExceeded, NitroError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .job import Job, MakeError

__all__ = ["always", "backend_error", "by_caller", "by_deadline", "by_stop", "deliver"]

log = logging.getLogger(__name__)


def always(exc: Exception) -> MakeError:
    """An error whatever there is so far; one that is not nitrolib's own becomes a BackendError."""
    error = exc if isinstance(exc, NitroError) else backend_error(exc)
    return lambda _partial: error


def by_caller(partial: Any) -> NitroError:
    return Cancelled("cancelled", reason="caller", partial=partial)


def by_deadline(partial: Any) -> NitroError:
    return DeadlineExceeded("the request's timeout_s passed", partial=partial)


def by_stop(reason: str) -> MakeError:
    """The model goes: "unload" or "shutdown"."""
    return lambda partial: Cancelled(f"ended by {reason}", reason=reason, partial=partial)


def backend_error(exc: Exception) -> BackendError:
    """What a caller is told of an error that nobody foresaw, with its cause."""
    error = BackendError(f"the engine failed: {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error


def deliver(job: Job, end: Callable[[], None]) -> None:
    """Let a job tell its end. Nothing else will finish it any more, so whatever fails in that, its
    caller must not hang."""
    try:
        end()
    except Exception as exc:
        log.exception("a request could not be ended in order")
        job.outbox.finish(backend_error(exc))
