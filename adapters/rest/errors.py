"""Errors as HTTP answers, in the words of the dialect whose route it is."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException

from nitrolib.errors import NitroError

from .dialects import answering
from .problem import Refused, problem_of

if TYPE_CHECKING:
    from flask import Flask, Response

__all__ = ["register"]

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Answer every error of *app* as JSON."""
    for kind in (NitroError, Refused, HTTPException, Exception):
        app.register_error_handler(kind, _answer)


def _answer(error: Exception) -> Response:
    from flask import current_app, jsonify, request

    dialect = answering(request, current_app)
    problem = problem_of(error, dialect.statuses)
    if not isinstance(error, NitroError | Refused | HTTPException):
        log.error("unexpected error", exc_info=error)
    elif problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not getattr(
        error, "retryable", False
    ):
        log.warning("%s: %s", type(error).__name__, error)
    response = jsonify(dialect.error_body(problem))
    response.status_code = problem.status
    response.headers.update(problem.headers)
    return response
