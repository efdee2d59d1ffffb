"""The llama-server dialect: its routes. Translation only; what a request means is decided below.

On a port that others share it comes last, and theirs are the paths that both have.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, jsonify
from werkzeug.exceptions import NotFound

from nitrolib.errors import ContextOverflow, InvalidRequest, ModelNotLoaded

from .. import bodies, chat
from ..chat import AnswerStyle, ChatDialect, select
from ..dialects import Dialect, add_route
from ..running import Run
from . import answer, embedding, infill, lora, metrics, prompt, request, rerank, slots, status, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.typing import ResponseReturnValue

    from nitrolib.prompt import Prompt

    from ..problem import Problem
    from ..service import Lease

__all__ = ["CHAT", "DIALECT"]

Prompts = tuple["list[Prompt | tuple[int, ...]]", tuple[str, ...]]


def _chat_defaults(_lease: Lease, defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**defaults, "max_tokens": -1, "temperature": 0.8}


CHAT = ChatDialect(
    document="nitro",
    stream=False,
    style=AnswerStyle(
        model=None,
        id_prefix="chatcmpl-",
        whole={"system_fingerprint": status.BUILD},
        chunk={"system_fingerprint": status.BUILD},
    ),
    defaults=_chat_defaults,
)


def error_body(problem: Problem) -> dict[str, Any]:
    """{"error": {"code", "message", "type"}}, and the numbers of a prompt that is too long."""
    error: dict[str, Any] = {
        "code": int(problem.status),
        "message": problem.message,
        "type": problem.type,
    }
    if problem.param is not None:
        error["param"] = problem.param
    cause = problem.error
    if isinstance(cause, ContextOverflow):
        count = f"{'at least ' if cause.at_least else ''}{cause.prompt_tokens}"
        error |= {
            "message": f"request ({count} tokens) exceeds the available context size "
            f"({cause.limit} tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": cause.prompt_tokens,
            "n_ctx": cause.limit,
        }
    elif problem.status == HTTPStatus.UNAUTHORIZED:
        error["message"] = "Invalid API Key"
    elif isinstance(cause, NotFound):
        error["message"] = "File Not Found"
    return {"error": error | dict(problem.where)}


DIALECT = Dialect(
    name="llama-server",
    blueprint=Blueprint("llama-server", __name__),
    document="llama-server",
    error_body=error_body,
    statuses={ModelNotLoaded: HTTPStatus.SERVICE_UNAVAILABLE},
    public=frozenset({"/health", "/v1/health"}),
    key_header="X-Api-Key",
)


def completion() -> ResponseReturnValue:
    body, defaults = bodies.read("llama-server", "CompletionRequest")

    def prompts(lease: Lease) -> Prompts:
        return prompt.read(body["prompt"], lease.engine), ()

    return _answer(body, defaults, prompts)


def fill() -> ResponseReturnValue:
    body, defaults = bodies.read("llama-server", "InfillRequest")

    def prompts(lease: Lease) -> Prompts:
        limit = next((body[n] for n in ("n_predict", "max_tokens") if body.get(n, -1) > 0), None)
        ids, notes = infill.prompt(body, limit, lease)
        return [ids], notes

    return _answer(body, defaults, prompts)


def _answer(
    body: Mapping[str, Any], defaults: Mapping[str, Any], prompts: Callable[[Lease], Prompts]
) -> ResponseReturnValue:
    """Answer what *body* asks of its *prompts*."""
    lease = select(body)
    try:
        read, notes = prompts(lease)
        asked = request.from_body(body, defaults, lease, read, notes)
        run = Run(lease, asked.requests, asked.n)
    except InvalidRequest as error:
        lease.close()
        request.own_field(error, body)
        raise
    except BaseException:
        lease.close()
        raise
    if body.get("stream", False):
        events = answer.events(run.generations, asked.form)
        return run.stream(events, encode=answer.encode, done=b"")
    return jsonify(answer.whole(run.results(), asked.form))


def chat_completion() -> ResponseReturnValue:
    return chat.respond(CHAT)


def apply_template() -> ResponseReturnValue:
    return chat.apply_template(CHAT)


def _add_routes() -> None:
    blueprint = DIALECT.blueprint
    add_route(blueprint, completion, ("POST",), "/completion", "/completions")
    add_route(blueprint, fill, ("POST",), "/infill")
    add_route(blueprint, chat_completion, ("POST",), "/chat/completions", "/v1/chat/completions")
    add_route(blueprint, apply_template, ("POST",), "/apply-template")
    add_route(blueprint, text.tokenize, ("POST",), "/tokenize")
    add_route(blueprint, text.detokenize, ("POST",), "/detokenize")
    add_route(blueprint, status.health, ("GET",), "/health", "/v1/health")
    add_route(blueprint, status.props, ("GET",), "/props")
    add_route(blueprint, status.set_props, ("POST",), "/props")
    add_route(blueprint, slots.slots, ("GET",), "/slots")
    add_route(blueprint, slots.act, ("POST",), "/slots/<id_slot>")
    blueprint.record(metrics.begin)
    add_route(blueprint, metrics.metrics, ("GET",), "/metrics")
    add_route(blueprint, lora.adapters, ("GET",), "/lora-adapters")
    add_route(blueprint, lora.set_scales, ("POST",), "/lora-adapters")
    add_route(blueprint, embedding.embedding, ("POST",), "/embedding", "/embeddings")
    ranks = ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")
    add_route(blueprint, rerank.rerank, ("POST",), *ranks)


_add_routes()
