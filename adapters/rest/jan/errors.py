"""Errors of the Jan dialect: OpenAI's object, with the codes that Jan's clients are told."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from nitrolib.errors import (
    BackendError,
    ContextOverflow,
    InvalidRequest,
    ModelFileError,
    ModelLoadError,
    ModelNotFound,
    Overloaded,
    Unsupported,
)

from ..problem import Problem, Refused, openai_body

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["error_body"]

# The first class of an error's own line of ancestors that stands here decides.
_CODES: Mapping[type[Exception], str] = {
    BackendError: "internal_error",
    ContextOverflow: "context_length_exceeded",
    InvalidRequest: "invalid_value",
    ModelFileError: "model_load_failed",
    ModelLoadError: "model_load_failed",
    Overloaded: "server_busy",
    Unsupported: "unsupported",
}
_RULES = {"json": "invalid_json", "required": "missing_required_parameter"}
_REFUSALS = {"host_not_allowed": "invalid_host"}


def error_body(problem: Problem) -> dict[str, Any]:
    """The body of an error: {"error": {"message", "type", "param", "code"}}."""
    body = openai_body(problem)
    body["error"]["code"] = _code(problem)
    if problem.status == HTTPStatus.NOT_FOUND:
        body["error"]["type"] = "invalid_request_error"
    if isinstance(problem.error, ModelNotFound):
        body["error"]["param"] = "model"
    return body


def _code(problem: Problem) -> str:
    error = problem.error
    if isinstance(error, Refused):
        return _REFUSALS.get(error.code, error.code)
    rule = getattr(error, "rule", None)
    if rule == "anyOf" and getattr(error, "allowed", None) == "a value":
        rule = "required"  # one of several must be there
    if isinstance(rule, str) and rule in _RULES:
        return _RULES[rule]
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return problem.code
