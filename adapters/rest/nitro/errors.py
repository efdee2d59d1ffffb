"""Errors of the Nitro dialect: {"message": M, "error": {"message", "type", "param", "code"}}, where
M is the text that Nitro's own clients look for."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from nitrolib.errors import BackendError, ModelAlreadyLoaded, ModelNotLoaded, NitroError

from ..problem import Problem, Refused, openai_body, problem_of

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

__all__ = ["error_body", "load_failed"]

log = logging.getLogger(__name__)

NOT_LOADED = "Model has not been loaded, please load model into nitro"
ALREADY_LOADED = "Model already loaded"
INTERNAL = "Internal error during inference"

_TEXTS: dict[type[Exception], str] = {
    ModelNotLoaded: NOT_LOADED,
    ModelAlreadyLoaded: ALREADY_LOADED,
    BackendError: INTERNAL,
}


def error_body(problem: Problem) -> dict[str, Any]:
    """The body of an error: Nitro's text as `message`, the cause in `error.message`."""
    message = _text(problem)
    body = openai_body(problem)
    told = problem.status == HTTPStatus.CONFLICT and message != problem.message
    if told or problem.code == "internal_error":
        body["error"]["message"] = message
    return {"message": message, **body}


def load_failed(error: NitroError) -> ResponseReturnValue:
    """The answer to a load that failed; `error.message` has the cause."""
    log.warning("a load failed: %s", error)
    body = error_body(problem_of(error))
    body |= {"message": "Failed to load model", "code": "No model loaded"}
    return body, HTTPStatus.INTERNAL_SERVER_ERROR


def _text(problem: Problem) -> str:
    if problem.code == "internal_error" and not isinstance(problem.error, Refused):
        return INTERNAL
    for kind in type(problem.error).__mro__:
        if kind in _TEXTS:
            return _TEXTS[kind]
    return problem.message
