"""Errors as HTTP answers: one table from class to status, one shape of body.

{"message": M, "error": {"message": M, "type": T, "param": P, "code": C}}
"""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from nitrolib.errors import (
    BackendCrashed,
    BackendError,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    ModelAlreadyLoaded,
    ModelFileError,
    ModelLoadError,
    ModelNotLoaded,
    NitroError,
    Overloaded,
)

if TYPE_CHECKING:
    from flask import Flask, Response

__all__ = ["Refused", "body_of", "load_failed", "register", "status_of"]

log = logging.getLogger(__name__)

NOT_LOADED = "Model has not been loaded, please load model into nitro"
ALREADY_LOADED = "Model already loaded"
INTERNAL = "Internal error during inference"

# The first class of an error's own line of ancestors that stands here decides.
STATUS: dict[type[Exception], HTTPStatus] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,  # Unsupported and ContextOverflow with it
    ModelNotLoaded: HTTPStatus.CONFLICT,
    ModelAlreadyLoaded: HTTPStatus.CONFLICT,
    ModelFileError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ModelLoadError: HTTPStatus.INTERNAL_SERVER_ERROR,
    Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    Cancelled: HTTPStatus.SERVICE_UNAVAILABLE,
    BackendCrashed: HTTPStatus.SERVICE_UNAVAILABLE,
    BackendError: HTTPStatus.INTERNAL_SERVER_ERROR,
    NitroError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

TYPES = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.METHOD_NOT_ALLOWED: "invalid_request_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "invalid_request_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
}

# What the dialect's own clients look for, in place of the error's words.
MESSAGES: dict[type[Exception], str] = {
    ModelNotLoaded: NOT_LOADED,
    ModelAlreadyLoaded: ALREADY_LOADED,
    BackendError: INTERNAL,
}


class Refused(Exception):
    """A request turned away by the adapter itself, with the status it is answered with."""

    def __init__(
        self, status: HTTPStatus, message: str, code: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


def status_of(error: Exception) -> HTTPStatus:
    """The HTTP status an error is answered with."""
    if isinstance(error, Refused):
        return error.status
    return _lookup(STATUS, error) or HTTPStatus.INTERNAL_SERVER_ERROR


def body_of(error: Exception) -> dict[str, Any]:
    """The JSON body of an error: the dialect's text as `message`, the cause in `error.message`.
    What was not raised on purpose is not told: it may hold anything."""
    status = status_of(error)
    if not isinstance(error, NitroError | Refused):
        return _body(INTERNAL, status, param=None, code="internal_error")
    param = getattr(error, "field", None)
    body = _body(
        _lookup(MESSAGES, error) or error.message,
        status,
        param=param,
        code=error.code,
        cause=None if status == HTTPStatus.CONFLICT else error.message,
    )
    # Where in the field: of a JSON schema, and of a grammar.
    where = {name: getattr(error, name, None) for name in ("pointer", "line")}
    body["error"] |= {name: value for name, value in where.items() if value is not None}
    return body


def register(app: Flask) -> None:
    """Answer every error of *app* as JSON."""
    app.register_error_handler(NitroError, _known)
    app.register_error_handler(Refused, _known)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def load_failed(error: NitroError) -> tuple[dict[str, Any], int]:
    """The answer to a load that failed, and its status; `error.message` has the cause."""
    log.warning("a load failed: %s", error)
    body = {**body_of(error), "message": "Failed to load model", "code": "No model loaded"}
    return body, HTTPStatus.INTERNAL_SERVER_ERROR


def _known(error: Exception) -> Response:
    headers = dict(getattr(error, "headers", {}))
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(math.ceil(max(error.retry_after_s, 1.0)))
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("%s: %s", type(error).__name__, error)
    return _answer(body_of(error), status, headers)


# Python 3.13 renamed the phrases of these; a client is told the same by every Python.
_CODES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_entity_too_large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "request_uri_too_long",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "requested_range_not_satisfiable",
    HTTPStatus.UNPROCESSABLE_ENTITY: "unprocessable_entity",
}


def _http(error: HTTPException) -> Response:
    """Errors of the framework: unknown route, wrong method, body too large, broken request."""
    status = HTTPStatus(error.code or 500)
    code = _CODES.get(status) or status.phrase.lower().replace(" ", "_").replace("-", "_")
    headers = {
        name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")
    }
    message = (error.description or status.phrase).split("\n")[0]
    return _answer(_body(message, status, param=None, code=code), status, headers)


def _unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return _answer(body_of(error), HTTPStatus.INTERNAL_SERVER_ERROR, {})


def _body(
    message: str, status: HTTPStatus, *, param: str | None, code: str, cause: str | None = None
) -> dict[str, Any]:
    kind = TYPES.get(status, "server_error")
    error = {"message": cause or message, "type": kind, "param": param, "code": code}
    return {"message": message, "error": error}


def _answer(body: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    from flask import jsonify

    response = jsonify(body)
    response.status_code = status
    response.headers.update(headers)
    return response


def _lookup(table: dict[type[Exception], Any], error: Exception) -> Any:
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)
