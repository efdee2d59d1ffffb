"""The OpenAI dialect: its routes, its errors, and the headers of its answers."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, g, jsonify

from nitrolib.errors import InvalidRequest, ModelNotFound

from .. import bodies, chat
from .. import embeddings as vectors
from ..chat import AnswerStyle, ChatDialect
from ..dialects import Dialect, add_route
from ..ids import random_id
from ..problem import Problem, openai_body
from ..running import Run, embed
from . import completions, model, responses

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

__all__ = ["CHAT", "DIALECT"]

CHAT = ChatDialect(
    document="openai",
    strict=True,
    stream=False,
    style=AnswerStyle(
        model=None,
        id_prefix="chatcmpl-",
        whole={"system_fingerprint": "nitrolib", "service_tier": "default"},
        chunk={"system_fingerprint": "nitrolib", "service_tier": "default"},
        choice={"logprobs": None},
        message={"refusal": None, "annotations": []},
        role_event=True,
        usage_null=True,
    ),
)


def error_body(problem: Problem) -> dict[str, Any]:
    """OpenAI's body of an error, in its words for what is not there."""
    body = openai_body(problem)
    if problem.status == HTTPStatus.NOT_FOUND:
        body["error"]["type"] = "invalid_request_error"
    if isinstance(problem.error, ModelNotFound):
        body["error"]["param"] = "model"
    return body


DIALECT = Dialect(
    name="openai",
    blueprint=Blueprint("openai", __name__),
    document="openai",
    error_body=error_body,
)


@DIALECT.blueprint.before_request
def _begin() -> None:
    g.openai_began = time.perf_counter()


@DIALECT.blueprint.after_request
def _name(response: Response) -> Response:
    response.headers["x-request-id"] = f"req_{random_id(32)}"
    began = g.get("openai_began")
    if began is not None:  # else it was refused before it came here
        spent = (time.perf_counter() - began) * 1000
        response.headers["openai-processing-ms"] = str(round(spent))
    return response


def chat_completion() -> ResponseReturnValue:
    """POST /v1/chat/completions"""
    return chat.respond(CHAT)


def completion() -> ResponseReturnValue:
    """POST /v1/completions"""
    body, defaults = bodies.read("openai", "CompletionRequest")
    lease = model.select(body)
    try:
        asked = completions.from_body(body, defaults, lease)
        run = Run(lease, asked.requests, asked.made)
    except InvalidRequest as error:
        lease.close()
        completions.own_field(error, body)
        raise
    except BaseException:
        lease.close()
        raise
    if body.get("stream"):
        return run.stream(asked.events(run.generations))
    return jsonify(asked.completion(run.results()))


def embeddings() -> ResponseReturnValue:
    """POST /v1/embeddings"""
    body, defaults = bodies.read("openai", "EmbeddingsRequest")
    with model.select(body, generating=False) as lease:
        vectors.check(body, lease.status)
        made = embed(lease, vectors.inputs(body))
    encoding = body.get("encoding_format", defaults["encoding_format"])
    return jsonify(vectors.answer(made, encoding, body.get("dimensions"), lease.id))


def _add_routes() -> None:
    blueprint = DIALECT.blueprint
    add_route(blueprint, chat_completion, ("POST",), "/v1/chat/completions")
    add_route(blueprint, completion, ("POST",), "/v1/completions")
    add_route(blueprint, embeddings, ("POST",), "/v1/embeddings")
    add_route(blueprint, model.list_models, ("GET",), "/v1/models")
    add_route(blueprint, model.show_model, ("GET",), "/v1/models/<path:model_id>")
    one = "/v1/responses/<response_id>"
    add_route(blueprint, responses.create, ("POST",), "/v1/responses")
    add_route(blueprint, responses.retrieve, ("GET",), one)
    add_route(blueprint, responses.delete, ("DELETE",), one)
    add_route(blueprint, responses.cancel, ("POST",), f"{one}/cancel")
    add_route(blueprint, responses.input_items, ("GET",), f"{one}/input_items")


_add_routes()
