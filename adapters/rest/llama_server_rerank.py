"""/rerank of the llama-server dialect."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from . import bodies
from .chat import select
from .problem import Refused

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

__all__ = ["rerank"]


def rerank() -> ResponseReturnValue:
    body, _ = bodies.read("llama-server", "RerankRequest")
    with select(body):
        raise Refused(
            HTTPStatus.NOT_IMPLEMENTED,
            "This model does not rank documents. Load a model that was made for it.",
            "not_supported",
        )
