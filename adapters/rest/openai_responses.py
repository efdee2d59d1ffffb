"""The Responses API: making, keeping, showing and forgetting responses."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import InvalidRequest, NotFound
from nitrolib.validation import schema

from . import bodies, chat_request, sse
from .chat_answer import AnswerStyle
from .openai_items import Dialogue, read_items
from .openai_model import select
from .openai_response import ResponseForm
from .openai_response_chat import chat_body, own_field, refuse_unsupported
from .openai_response_events import ResponseWriter
from .running import Run
from .service import service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask.typing import ResponseReturnValue

    from nitrolib.store import StoredResponse

    from .openai_items import Item
    from .service import Service

__all__ = ["cancel", "create", "delete", "input_items", "retrieve"]

_STYLE = AnswerStyle(model=None)
# Fields that stand in columns of their own where a response is kept.
_COLUMNS = frozenset({"id", "created_at", "model", "previous_response_id", "output", "metadata"})


def create() -> ResponseReturnValue:
    """POST /v1/responses"""
    body, defaults = bodies.read("openai", "ResponseRequest")
    refuse_unsupported(body)
    items = read_items(body["input"])
    _ignore_inside(body)
    before = _before(body.get("previous_response_id"))
    dialogue = Dialogue.of(body.get("instructions"), before, items)
    lease = select(body)
    try:
        chat = chat_body(body, dialogue, _sampling())
        asked = chat_request.from_body(
            chat, _chat_defaults(), lease, _STYLE, stream=body.get("stream", False)
        )
        run = Run(lease, asked.request)
    except InvalidRequest as error:
        lease.close()
        own_field(error, dialogue)
        raise
    except BaseException:
        lease.close()
        raise
    form = ResponseForm(model=lease.id, settings={**defaults, **body})
    # Bound now: a stream goes on when the request's own context is over.
    keep = partial(_keep, service(), items) if form.settings["store"] else _forget
    writer = ResponseWriter(form, asked.form, keep)
    (generation,) = run.generations
    if body.get("stream"):
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
    return jsonify(_shown(service().store.responses.get(response_id)))


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
    *before, own = service().store.responses.chain(response_id)
    items = [*_items(before), *(dict(item) for item in own.input)]
    if query.get("order", defaults["order"]) == "desc":
        items.reverse()
    if "after" in query:
        items = _after(items, query["after"])
    limit = query.get("limit", defaults["limit"])
    page = items[:limit]
    return jsonify(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(items) > limit,
        }
    )


@cache
def _sampling() -> tuple[str, ...]:
    """Fields of sampling, which a chat has too and alike."""
    own = schema("openai", "ResponseRequest").properties
    chat = schema("openai", "ChatCompletionRequest").properties
    return tuple(sorted((own & chat) - _OWN_MEANING))


# Fields that a chat has too, in another form.
_OWN_MEANING = frozenset(
    {"metadata", "model", "parallel_tool_calls", "prompt", "store", "stream", "stream_options"}
    | {"tool_choice", "tools", "top_logprobs", "user"}
)


def _chat_defaults() -> Mapping[str, Any]:
    return schema("openai", "ChatCompletionRequest").defaults


def _before(previous_id: str | None) -> list[Item]:
    """The items that the response *previous_id* was made of, and its own."""
    if previous_id is None:
        return []
    try:
        return _items(service().store.responses.chain(previous_id))
    except NotFound as error:
        error.field = "previous_response_id"  # type: ignore[attr-defined]
        raise


def _items(chain: Sequence[StoredResponse]) -> list[Item]:
    return [dict(item) for one in chain for item in (*one.input, *one.output)]


def _after(items: list[Item], last: str) -> list[Item]:
    ids = [item["id"] for item in items]
    if last not in ids:
        raise InvalidRequest(
            "after must be the id of an item of this response",
            field="after",
            value=last[:100],
            allowed="the last_id of a page",
        )
    return items[ids.index(last) + 1 :]


def _forget(response: Mapping[str, Any]) -> None:
    """What is done with a response that is not to be stored."""


def _keep(here: Service, items: Sequence[Item], response: Mapping[str, Any]) -> None:
    here.store.responses.create(
        id=response["id"],
        created_at=response["created_at"],
        model=response["model"],
        previous_id=response["previous_response_id"],
        input=items,
        output=response["output"],
        body={name: value for name, value in response.items() if name not in _COLUMNS},
        metadata=response["metadata"],
    )


def _shown(kept: StoredResponse) -> dict[str, Any]:
    return {
        "id": kept.id,
        "created_at": kept.created_at,
        "model": kept.model,
        "previous_response_id": kept.previous_id,
        "output": list(kept.output),
        "metadata": dict(kept.metadata),
        **kept.body,
    }


def _ignore_inside(body: Mapping[str, Any]) -> None:
    if not isinstance(body["input"], str):
        bodies.ignore_inside("input", body["input"], "openai", "InputItem")
