"""Problem: an error as any dialect can tell it, and the one table from error class to status."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from nitrolib.errors import (
    BackendCrashed,
    BackendError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    DownloadError,
    Forbidden,
    InvalidRequest,
    ModelAlreadyLoaded,
    ModelFileError,
    ModelLoadError,
    ModelNotLoaded,
    NitroError,
    NotFound,
    Overloaded,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STATUS", "Problem", "Refused", "openai_body", "problem_of"]

INTERNAL = "internal error"

# The first class of an error's own line of ancestors that stands here decides.
STATUS: Mapping[type[Exception], HTTPStatus] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,  # Unsupported and ContextOverflow with it
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    ModelNotLoaded: HTTPStatus.CONFLICT,
    ModelAlreadyLoaded: HTTPStatus.CONFLICT,
    ModelFileError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ModelLoadError: HTTPStatus.INTERNAL_SERVER_ERROR,
    Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    Cancelled: HTTPStatus.SERVICE_UNAVAILABLE,
    DownloadError: HTTPStatus.BAD_GATEWAY,
    StorageError: HTTPStatus.INTERNAL_SERVER_ERROR,
    BackendCrashed: HTTPStatus.SERVICE_UNAVAILABLE,
    BackendError: HTTPStatus.INTERNAL_SERVER_ERROR,
    NitroError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
# Where the reason of a DownloadError or StorageError says more than its class.
_REASONS = {
    "source": HTTPStatus.BAD_REQUEST,
    "space": HTTPStatus.INSUFFICIENT_STORAGE,
}

_TYPES = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.METHOD_NOT_ALLOWED: "invalid_request_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "invalid_request_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.NOT_IMPLEMENTED: "not_supported_error",
    HTTPStatus.BAD_GATEWAY: "download_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
    HTTPStatus.INSUFFICIENT_STORAGE: "storage_error",
}

# Python 3.13 renamed the phrases of these; a client is told the same by every Python.
_CODES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_entity_too_large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "request_uri_too_long",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "requested_range_not_satisfiable",
    HTTPStatus.UNPROCESSABLE_ENTITY: "unprocessable_entity",
}


class Refused(Exception):
    """A request turned away by the adapter itself, with the status it is answered with."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        code: str,
        headers: Mapping[str, str] | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error, ready to be told.

    status: of the answer.
    message: what is wrong, in words that may be shown to anyone.
    type: OpenAI's name for errors of that status.
    code: the stable name of this one.
    param: the field that is wrong, in slashes (`messages/0/role`), or None.
    where: more of the place: `pointer` into a JSON schema, `line` of a grammar.
    headers: of the answer.
    error: the exception itself, for what only one dialect tells; its facts are attributes.
    """

    status: HTTPStatus
    message: str
    type: str
    code: str
    error: Exception
    param: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_of(
    error: Exception, statuses: Mapping[type[Exception], HTTPStatus] | None = None
) -> Problem:
    """*error* as a problem; *statuses* go before those of `STATUS`. What was not raised on purpose
    is not told: it may hold anything."""
    if isinstance(error, HTTPException):
        return _of_framework(error)
    status, message, code = HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL, "internal_error"
    headers: dict[str, str] = {}
    if isinstance(error, Refused):
        status, message, code, headers = error.status, error.message, error.code, error.headers
    elif isinstance(error, NitroError):
        status, message, code = _status(error, statuses or {}), error.message, error.code
        if isinstance(error, StorageError):  # its own words tell where the database is
            full = status == HTTPStatus.INSUFFICIENT_STORAGE
            message = "the storage is full" if full else "the storage failed"
        if isinstance(error, Overloaded):
            headers = {"Retry-After": str(math.ceil(max(error.retry_after_s, 1.0)))}
    where = {name: getattr(error, name, None) for name in ("pointer", "line")}
    return Problem(
        status=status,
        message=message,
        type=_type(status),
        code=code,
        error=error,
        param=getattr(error, "field", None),
        where={name: value for name, value in where.items() if value is not None},
        headers=headers,
    )


def openai_body(problem: Problem) -> dict[str, Any]:
    """OpenAI's body of an error: {"error": {"message", "type", "param", "code"}}."""
    error = {
        "message": problem.message,
        "type": problem.type,
        "param": problem.param,
        "code": problem.code,
    }
    return {"error": error | dict(problem.where)}


def _status(error: NitroError, own: Mapping[type[Exception], HTTPStatus]) -> HTTPStatus:
    for kind in type(error).__mro__:
        if kind in own:
            return own[kind]
        if kind in (DownloadError, StorageError):
            reason = _REASONS.get(getattr(error, "reason", ""))
            if reason is not None:
                return reason
        if kind in STATUS:
            return STATUS[kind]
    raise AssertionError(f"{type(error).__name__} is no NitroError")


def _of_framework(error: HTTPException) -> Problem:
    """Of the framework: unknown route, wrong method, body too large, broken request."""
    status = HTTPStatus(error.code or 500)
    code = _CODES.get(status) or status.phrase.lower().replace(" ", "_").replace("-", "_")
    message = (error.description or status.phrase).split("\n")[0]
    shown = ("Allow", "Retry-After")
    headers = {name: value for name, value in error.get_headers() if name in shown}
    return Problem(
        status=status,
        message=message,
        type=_type(status),
        code=code,
        error=error,
        headers=headers,
    )


def _type(status: HTTPStatus) -> str:
    return _TYPES.get(status, "server_error")
