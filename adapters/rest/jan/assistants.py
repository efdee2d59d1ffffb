"""Assistants of the Jan dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import NotFound, Unsupported
from nitrolib.validation import shorten

from .. import bodies
from ..service import service
from .objects import (
    ANY_MODEL,
    assistant_json,
    deleted,
    ignore_parameters,
    is_openai_client,
    list_json,
    page_query,
)

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from nitrolib.store import Assistant, Store

__all__ = [
    "change_assistant",
    "create_assistant",
    "delete_assistant",
    "find_assistant",
    "list_assistants",
    "show_assistant",
]

_SAME = ("name", "description", "instructions", "avatar", "models", "events", "metadata")
_PARAMETERS = ("temperature", "top_p", "response_format")  # OpenAI has them beside the others
_EVENTS: dict[str, Any] = {"in": [], "out": []}


def create_assistant() -> ResponseReturnValue:
    """POST /v1/assistants"""
    fields = _fields(bodies.read("jan", "AssistantRequest").fields)
    usual = {"models": [{"model_id": ANY_MODEL}], "events": _EVENTS}
    return jsonify(assistant_json(service().store.assistants.create(**{**usual, **fields})))


def list_assistants() -> ResponseReturnValue:
    """GET /v1/assistants"""
    page = service().store.assistants.list(**page_query())
    if is_openai_client():
        return jsonify(list_json(page, assistant_json))
    return jsonify([assistant_json(one) for one in page.data])


def show_assistant(assistant_id: str) -> ResponseReturnValue:
    """GET /v1/assistants/{assistant_id}"""
    return jsonify(assistant_json(service().store.assistants.get(assistant_id)))


def change_assistant(assistant_id: str) -> ResponseReturnValue:
    """POST and PATCH /v1/assistants/{assistant_id}"""
    store = service().store
    fields = _fields(bodies.read("jan", "AssistantChanges").fields)
    with store.transaction():
        if "parameters" in fields:
            before = store.assistants.get(assistant_id).parameters
            fields["parameters"] = {**before, **fields["parameters"]}
        return jsonify(assistant_json(store.assistants.update(assistant_id, **fields)))


def delete_assistant(assistant_id: str) -> ResponseReturnValue:
    """DELETE /v1/assistants/{assistant_id}"""
    service().store.assistants.delete(assistant_id)
    return jsonify(deleted("assistant", assistant_id))


def find_assistant(store: Store, assistant_id: str, field: str) -> Assistant:
    """The assistant that the *field* of a body names. Raises NotFound, with the field."""
    try:
        return store.assistants.get(assistant_id)
    except NotFound:
        raise NotFound("assistant", assistant_id, field=field) from None


def _fields(body: dict[str, Any]) -> Any:
    """The fields of a body as those of a stored assistant."""
    if body.get("tools"):
        raise Unsupported(
            f"tools {shorten(body['tools'])} are not supported on this route",
            field="tools",
            value=shorten(body["tools"]),
            allowed="no tools",
        )
    fields = {name: body[name] for name in _SAME if name in body}
    if "model" in body:
        fields["model"] = None if body["model"] in ("", ANY_MODEL) else body["model"]
    given = body.get("parameters", {})
    ignore_parameters(given)
    parameters = {**given, **{name: body[name] for name in _PARAMETERS if name in body}}
    return {**fields, "parameters": parameters} if parameters else fields
