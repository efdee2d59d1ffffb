"""The Nitro dialect: its routes. Translation only; what a request means is decided elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, jsonify

from nitrolib.errors import (
    Forbidden,
    InvalidRequest,
    ModelAlreadyLoaded,
    ModelNotLoaded,
    NitroError,
)

from .. import bodies, chat
from .. import embeddings as vectors
from ..chat import ChatDialect
from ..dialects import Dialect, add_route
from ..running import embed
from ..service import service
from . import load, status
from .errors import error_body, load_failed

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

__all__ = ["CHAT", "DIALECT"]

CHAT = ChatDialect(document="nitro")
DIALECT = Dialect(
    name="nitro",
    blueprint=Blueprint("nitro", __name__),
    document="nitro",
    error_body=error_body,
    any_case=(
        "/inferences/",
        "/apply-template",
        "/v1/chat/completions",
        "/v1/embeddings",
    ),
)

_PREFIX = "/inferences/<any(llamacpp, server):_engine>"


@DIALECT.blueprint.url_value_preprocessor
def _either_prefix(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    if values is not None:
        values.pop("_engine", None)


def load_model() -> ResponseReturnValue:
    asked = load.from_body(*bodies.read("nitro", "LoadModelRequest"))
    here = service()
    try:
        seat = here.load(here.paths.check(asked.path), asked.options, asked.profile)
    except (InvalidRequest, ModelAlreadyLoaded, Forbidden):
        raise
    except NitroError as error:
        return load_failed(error)
    done = "Model loaded successfully"
    answer: dict[str, Any] = {"message": done, "code": done}
    warnings = status.warnings(seat.engine.status().model, asked.profile)
    return jsonify({**answer, "warnings": warnings} if warnings else answer)


def unload_model() -> ResponseReturnValue:
    unloaded = service().pool.unload()
    return jsonify({"message": "Model unloaded successfully" if unloaded else "No model loaded"})


def model_status() -> ResponseReturnValue:
    here = service()
    try:
        with here.use() as lease:
            told = status.answer(lease, here.settings.stream_default)
    except ModelNotLoaded:
        told = status.NOTHING
    return jsonify(told)


def chat_completion() -> ResponseReturnValue:
    return chat.respond(CHAT)


def apply_template() -> ResponseReturnValue:
    return chat.apply_template(CHAT)


def embeddings() -> ResponseReturnValue:
    body, defaults = bodies.read("nitro", "EmbeddingsRequest")
    with chat.select(body) as lease:
        vectors.check(body, lease.status)
        made = embed(lease, vectors.inputs(body))
    encoding = body.get("encoding_format", defaults["encoding_format"])
    return jsonify(vectors.answer(made, encoding, body.get("dimensions")))


def _add_routes() -> None:
    blueprint = DIALECT.blueprint
    add_route(blueprint, load_model, ("POST",), f"{_PREFIX}/loadmodel")
    add_route(blueprint, unload_model, ("GET", "POST"), f"{_PREFIX}/unloadmodel")
    add_route(blueprint, model_status, ("GET", "POST"), f"{_PREFIX}/modelstatus")
    completion = ("/v1/chat/completions", f"{_PREFIX}/chat_completion")
    add_route(blueprint, chat_completion, ("POST",), *completion)
    add_route(blueprint, apply_template, ("POST",), "/apply-template")
    add_route(blueprint, embeddings, ("POST",), "/v1/embeddings", f"{_PREFIX}/embedding")


_add_routes()
