"""The LocalLab dialect: its routes. Translation only; what a request means is decided elsewhere."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, jsonify, request
from werkzeug.exceptions import HTTPException

from nitrolib.errors import ContextOverflow, InvalidRequest, ModelNotLoaded

from .. import bodies
from ..dialects import Dialect, add_route
from ..problem import Problem, Refused
from ..rate_limit import address_of
from ..running import Run
from ..service import service
from . import answer, models, system
from . import request as locallab_request
from .state import EXTENSION, State, state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask import Response
    from flask.blueprints import BlueprintSetupState
    from flask.typing import ResponseReturnValue

    from nitrolib.engine.request import GenerationRequest

    from ..service import Lease
    from .stream import Form

__all__ = ["DIALECT", "blueprint"]

blueprint = Blueprint("locallab", __name__)

_NO_MODEL = "No model is currently loaded"
_NO_MODEL_TEXTS = {
    "/generate": f"{_NO_MODEL}. Please load a model first using POST /models/load.",
}
_NOT_COUNTED = frozenset({"/health", "/startup-status"})


def error_body(problem: Problem) -> dict[str, Any]:
    """The body of every error: {"detail": text}."""
    if isinstance(problem.error, ModelNotLoaded):
        return {"detail": _NO_MODEL_TEXTS.get(request.path, _NO_MODEL)}
    if isinstance(problem.error, HTTPException) and problem.status in (
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
    ):
        return {"detail": problem.status.phrase}
    return {"detail": problem.message}


DIALECT = Dialect(
    name="locallab",
    blueprint=blueprint,
    document="locallab",
    error_body=error_body,
    statuses={
        ModelNotLoaded: HTTPStatus.BAD_REQUEST,
        ContextOverflow: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    },
    public=frozenset({"/health"}),
)


@blueprint.record
def _begin(setup: BlueprintSetupState) -> None:
    setup.app.extensions[EXTENSION] = State()


@blueprint.before_request
def _admit() -> None:
    """Count the request, and refuse it where its client has sent too many. Whether the server is up
    may be asked at any time."""
    here = state()
    if request.path not in _NOT_COUNTED:
        here.count()
    if request.path == "/health":
        return
    wait = here.wait(address_of(request.remote_addr), service().settings)
    if wait > 0:
        seconds = max(1, math.ceil(wait))
        raise Refused(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"Rate limit exceeded. Try again in {seconds} seconds.",
            "rate_limit_exceeded",
            {"Retry-After": str(seconds)},
        )


def generate() -> ResponseReturnValue:
    body, defaults = bodies.read("locallab", "GenerateRequest", any_type=True)
    run = _run(body, lambda lease: _prompt(body["prompt"], body, defaults, lease))
    if body.get("stream", False):
        return _stream(run, "lines" if _setting() == "lines" else "sse")
    return jsonify(answer.generated(_results(run)[0]))


def chat() -> ResponseReturnValue:
    body, defaults = bodies.read("locallab", "ChatRequest", any_type=True)
    bodies.ignore_inside("messages", body["messages"], "locallab", "Message")
    run = _run(body, lambda lease: locallab_request.conversation(body, defaults, lease))
    if body.get("stream", False):
        return _stream(run, _chat_form())
    return jsonify(answer.chatted(_results(run)[0]))


def batch() -> ResponseReturnValue:
    body, defaults = bodies.read("locallab", "BatchRequest", any_type=True)

    def asked(lease: Lease) -> list[GenerationRequest]:
        every = [_prompt(text, body, defaults, lease) for text in body["prompts"]]
        # Before any of them runs: one that is too long would fail them all in the end.
        return [locallab_request.evaluated(one, lease.engine) for one in every]

    return jsonify(answer.batched(_results(_run(body, asked))))


def _run(
    body: Mapping[str, Any],
    asked: Callable[[Lease], GenerationRequest | list[GenerationRequest]],
) -> Run:
    """The run of what is *asked* of the model that *body* names."""
    here = service()
    lease = here.use(body.get("model_id"), start=here.settings.locallab_autoload)
    try:
        return Run(lease, asked(lease))
    except InvalidRequest as error:
        lease.close()
        if error.field == "n":  # more answers than may ever wait
            error.field = "prompts"
        raise
    except BaseException:
        lease.close()
        raise


def _prompt(
    text: str, body: Mapping[str, Any], defaults: Mapping[str, Any], lease: Lease
) -> GenerationRequest:
    return locallab_request.prompt(
        text,
        body,
        defaults,
        lease,
        form=service().settings.locallab_prompt,
        instructions=state().instructions(lease.id),
    )


def _results(run: Run) -> list[Any]:
    try:
        return [answer.finished(one) for one in run.generations]
    finally:
        run.close()


def _stream(run: Run, form: Form) -> Response:
    events = ({"bytes": one} for one in answer.events(run.generations[0], form))
    return run.stream(events, encode=lambda event: cast("bytes", event["bytes"]), done=b"")


def _setting() -> str:
    return service().settings.locallab_stream


def _chat_form() -> Form:
    """The client reads nothing but lines of JSON; who asks for an event stream by name reads one
    strictly."""
    setting = _setting()
    if setting != "auto":
        return cast("Form", setting)
    accepts = {kind for kind, quality in request.accept_mimetypes if quality > 0}
    own = "aiohttp" in request.headers.get("User-Agent", "")
    return "dual" if own and "text/event-stream" not in accepts else "sse"


add_route(blueprint, generate, ("POST",), "/generate")
add_route(blueprint, batch, ("POST",), "/generate/batch")
add_route(blueprint, chat, ("POST",), "/chat")
add_route(blueprint, models.load, ("POST",), "/models/load")
add_route(blueprint, models.begin_load, ("POST",), "/models/load/<path:model_id>")
add_route(blueprint, models.unload, ("POST",), "/models/unload")
add_route(blueprint, models.current, ("GET",), "/models/current")
add_route(blueprint, models.status, ("GET",), "/models/status/<path:model_id>")
add_route(blueprint, models.available, ("GET",), "/models/available", "/models/list")
add_route(blueprint, system.info, ("GET",), "/system/info")
add_route(blueprint, system.instructions, ("GET",), "/system/instructions")
add_route(blueprint, system.instruct, ("POST",), "/system/instructions")
add_route(blueprint, system.reset, ("POST",), "/system/instructions/reset")
add_route(blueprint, system.resources, ("GET",), "/resources")
add_route(blueprint, system.startup, ("GET",), "/startup-status")
add_route(blueprint, system.health, ("GET",), "/health")
add_route(blueprint, system.root, ("GET",), "/")
