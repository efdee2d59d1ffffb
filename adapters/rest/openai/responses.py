"""The Responses API: its routes."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import InvalidRequest
from nitrolib.validation import schema

from .. import bodies, sse
from ..chat import AnswerStyle, request
from ..running import Run
from ..service import service
from . import kept
from .items import Dialogue, read_items
from .model import select
from .response import ResponseForm
from .response_chat import chat_body, own_field, refuse_unsupported
from .response_events import ResponseWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from ..chat.answer import AnswerForm

__all__ = ["cancel", "create", "delete", "input_items", "retrieve"]

# Fields that a chat has too, in another form.
_OWN_MEANING = frozenset(
    {"metadata", "model", "parallel_tool_calls", "prompt", "store", "stream", "stream_options"}
    | {"tool_choice", "tools", "top_logprobs", "user"}
)
_STYLE = AnswerStyle(model=None)


def create() -> ResponseReturnValue:
    """POST /v1/responses"""
    here = service()
    body, defaults = bodies.read("openai", "ResponseRequest")
    refuse_unsupported(body)
    items = read_items(body["input"])
    if not isinstance(body["input"], str):
        bodies.ignore_inside("input", body["input"], "openai", "InputItem")
    before = kept.before(here, body.get("previous_response_id"), len(items))
    run, answer = _begin(body, Dialogue.of(body.get("instructions"), before, items))
    form = ResponseForm(model=answer.model, settings={**defaults, **body})
    # Bound now: a stream goes on when the context of the request is over.
    keep = partial(kept.keep, here, items) if form.settings["store"] else _forget
    writer = ResponseWriter(form, answer, keep)
    if body.get("stream"):
        (generation,) = run.generations
        return run.stream(writer.events(generation), encode=sse.encode_named, done=b"")
    return jsonify(writer.whole(*run.results()))


def retrieve(response_id: str) -> ResponseReturnValue:
    """GET /v1/responses/{response_id}"""
    query, _ = bodies.read_query("openai", "ResponseQuery")
    if query.get("stream"):
        raise InvalidRequest(
            "stream is for responses in the background, and none is",
            field="stream",
            value=True,
            allowed="false",
        )
    return jsonify(kept.shown(service().store.responses.get(response_id)))


def delete(response_id: str) -> ResponseReturnValue:
    """DELETE /v1/responses/{response_id}"""
    service().store.responses.delete(response_id)
    return jsonify({"id": response_id, "object": "response", "deleted": True})


def cancel(response_id: str) -> ResponseReturnValue:
    """POST /v1/responses/{response_id}/cancel"""
    service().store.responses.get(response_id)
    raise InvalidRequest(
        f"response {response_id!r} does not run in the background: no response does",
        field="response_id",
        value=response_id,
        allowed="closing the connection ends a response that is being made",
    )


def input_items(response_id: str) -> ResponseReturnValue:
    """GET /v1/responses/{response_id}/input_items"""
    query, defaults = bodies.read_query("openai", "ItemsQuery")
    asked = {**defaults, **query}
    return jsonify(
        kept.input_items(
            service().store,
            response_id,
            order=asked["order"],
            after=asked.get("after"),
            limit=asked["limit"],
        )
    )


def _begin(body: Mapping[str, Any], dialogue: Dialogue) -> tuple[Run, AnswerForm]:
    """Start the answer to *dialogue*, and say what it shows."""
    lease = select(body)
    try:
        asked = request.from_body(
            chat_body(body, dialogue, _sampling()),
            schema("openai", "ChatCompletionRequest").defaults,
            lease,
            _STYLE,
            stream=body.get("stream", False),
        )
        return Run(lease, asked.request), asked.form
    except InvalidRequest as error:
        lease.close()
        own_field(error, dialogue)
        raise
    except BaseException:
        lease.close()
        raise


@cache
def _sampling() -> tuple[str, ...]:
    """Fields of sampling, which a chat has too and alike."""
    own = schema("openai", "ResponseRequest").properties
    chat = schema("openai", "ChatCompletionRequest").properties
    return tuple(sorted((own & chat) - _OWN_MEANING))


def _forget(response: Mapping[str, Any]) -> None:
    """What is done with a response that is not to be kept."""
