"""The Nitro dialect: its routes. Translation only; what a request means is decided elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Blueprint, Response, current_app, g, jsonify, request

from nitrolib.errors import InvalidRequest, ModelAlreadyLoaded, ModelNotLoaded, NitroError
from nitrolib.validation import schema

from . import chat_answer, jsonbody, nitro_chat, nitro_embeddings, nitro_load, nitro_status, sse
from .chat_prompt import Conversation
from .errors import load_failed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.typing import ResponseReturnValue

    from .service import Service

__all__ = ["blueprint"]

blueprint = Blueprint("nitro", __name__)

_PREFIX = "/inferences/<any(llamacpp, server):_engine>"
_MAX_NAMES = 16  # in the x-nitro-ignored header


def _route(view: Callable[[], ResponseReturnValue], methods: tuple[str, ...], *paths: str) -> None:
    for path in paths:
        blueprint.add_url_rule(path, None, view, methods=methods, provide_automatic_options=False)


def service() -> Service:
    """The service of the application that answers the current request."""
    found: Service = current_app.extensions["nitrolib"]
    return found


@blueprint.url_value_preprocessor
def _either_prefix(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    if values is not None:
        values.pop("_engine", None)


@blueprint.after_request
def _report_ignored(response: Response) -> Response:
    names: list[str] = g.get("ignored", [])
    if names:
        shown = [quote(name[:64], safe="/") for name in names[:_MAX_NAMES]]
        more = [f"and {len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
        response.headers["x-nitro-ignored"] = ", ".join([*shown, *more])
    return response


def _read(name: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The body, checked against the schema *name*, and the defaults of its fields. A field that is
    null is as if it were absent; one that the schema does not know is ignored and reported."""
    rules = schema("nitro", name)
    body = {key: value for key, value in jsonbody.read(request).items() if value is not None}
    g.ignored = [*rules.unknown(body)]
    rules.check(body)
    return {key: rules.whole(key, value) for key, value in body.items()}, rules.defaults


def load() -> ResponseReturnValue:
    asked = nitro_load.from_body(*_read("LoadModelRequest"))
    try:
        service().load(asked.path, asked.options, asked.profile)
    except (InvalidRequest, ModelAlreadyLoaded):
        raise
    except NitroError as error:
        return load_failed(error)
    done = "Model loaded successfully"
    answer: dict[str, Any] = {"message": done, "code": done}
    warnings = service().profile.warnings
    return jsonify({**answer, "warnings": warnings} if warnings else answer)


def unload() -> ResponseReturnValue:
    unloaded = service().engine.unload()
    return jsonify({"message": "Model unloaded successfully" if unloaded else "No model loaded"})


def status() -> ResponseReturnValue:
    here = service()
    return jsonify(
        nitro_status.answer(here.engine.status(), here.profile, here.settings.stream_default)
    )


def chat() -> ResponseReturnValue:
    here = service()
    profile = here.profile
    body, defaults = _read("ChatCompletionRequest")
    g.ignored += _unknown_in_messages(body["messages"])
    stream = _wants_stream(body)
    if not profile.chats and here.engine.status().model is not None:
        raise InvalidRequest("Not support completion for embedding model", field="model")
    try:
        asked = nitro_chat.from_body(body, defaults, profile, here.engine, stream=stream)
        generations = here.engine.submit_choices(asked.request, asked.n)
    except InvalidRequest as error:
        nitro_chat.own_field(error, body)
        raise

    def cancel() -> None:
        for generation in generations:
            generation.cancel()

    watch = here.watcher.watch(request.environ, cancel)

    def release() -> None:
        watch.close()
        cancel()

    if stream:
        return sse.respond(chat_answer.events(generations, asked.form), release)
    try:
        results = [generation.result() for generation in generations]
    finally:
        release()
    return jsonify(chat_answer.completion(results, asked.form))


def apply_template() -> ResponseReturnValue:
    here = service()
    body, _ = _read("ChatCompletionRequest")
    g.ignored += _unknown_in_messages(body["messages"])
    if here.engine.status().model is None:
        raise ModelNotLoaded
    conversation = Conversation(body, here.profile.template, here.engine)
    return jsonify({"prompt": conversation.plan.prompt.text})


def embeddings() -> ResponseReturnValue:
    here = service()
    body, defaults = _read("EmbeddingsRequest")
    nitro_embeddings.check(body, here.engine.status().model)
    job = here.engine.submit_embed(nitro_embeddings.inputs(body))
    encoding = body.get("encoding_format", defaults["encoding_format"])
    with here.watcher.watch(request.environ, job.cancel), job:
        return jsonify(nitro_embeddings.answer(job.result(), encoding))


_route(load, ("POST",), f"{_PREFIX}/loadmodel")
_route(unload, ("GET", "POST"), f"{_PREFIX}/unloadmodel")
_route(status, ("GET", "POST"), f"{_PREFIX}/modelstatus")
_route(chat, ("POST",), "/v1/chat/completions", f"{_PREFIX}/chat_completion")
_route(apply_template, ("POST",), "/apply-template")
_route(embeddings, ("POST",), "/v1/embeddings", f"{_PREFIX}/embedding")


def _wants_stream(body: Mapping[str, Any]) -> bool:
    """An explicit value wins, then an Accept header that names event streams, then the setting."""
    if "stream" in body:
        return bool(body["stream"])
    accepted = {kind for kind, quality in request.accept_mimetypes if quality > 0}
    return "text/event-stream" in accepted or service().settings.stream_default


def _unknown_in_messages(messages: list[Mapping[str, Any]]) -> list[str]:
    rules = schema("nitro", "Message")
    given = ({k: v for k, v in message.items() if v is not None} for message in messages)
    names = (name for message in given for name in rules.unknown(message))
    return [f"messages/*/{name}" for name in dict.fromkeys(names)]
