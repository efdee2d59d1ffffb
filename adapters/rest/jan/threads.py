"""Threads of the Jan dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import jsonify

from .. import bodies
from ..service import service
from .assistants import find_assistant
from .messages import add_messages
from .objects import (
    deleted,
    ignore_parameters,
    is_openai_client,
    list_json,
    page_query,
    thread_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from nitrolib.store import Json, Store, Thread

__all__ = [
    "change_thread",
    "create_thread",
    "delete_thread",
    "list_threads",
    "new_thread",
    "show_thread",
]

_SAME = ("title", "metadata", "model_id", "settings", "parameters")
_DEFAULT = "jan"


def create_thread() -> ResponseReturnValue:
    """POST /v1/threads"""
    body = bodies.read("jan", "CreateThreadObject", optional=True).fields
    store = service().store
    with store.transaction():
        thread = new_thread(store, body)
        return jsonify(_shown(store, thread))


def new_thread(store: Store, body: Mapping[str, Any], place: str = "") -> Thread:
    """Make the thread of *body*, which is checked and stands at *place* in that of the request,
    inside a transaction."""
    fields = _fields(store, body, place)
    if "assistants" not in fields:
        fields["assistants"] = [_assistant(store, {}, place)]
    thread = store.threads.create(**fields)
    _append(store, thread.id, body, place)
    return thread


def list_threads() -> ResponseReturnValue:
    """GET /v1/threads"""
    store = service().store
    page = store.threads.list(**page_query())
    messages = store.messages.ids([thread.id for thread in page.data])
    if is_openai_client():
        return jsonify(list_json(page, lambda thread: thread_json(thread, messages[thread.id])))
    return jsonify([thread_json(thread, messages[thread.id]) for thread in page.data])


def show_thread(thread_id: str) -> ResponseReturnValue:
    """GET /v1/threads/{thread_id}"""
    store = service().store
    return jsonify(_shown(store, store.threads.get(thread_id)))


def change_thread(thread_id: str) -> ResponseReturnValue:
    """POST and PATCH /v1/threads/{thread_id}"""
    body = bodies.read("jan", "ThreadChanges", optional=True).fields
    store = service().store
    with store.transaction():
        thread = store.threads.update(thread_id, **_fields(store, body))
        _append(store, thread_id, body)
        return jsonify(_shown(store, thread))


def delete_thread(thread_id: str) -> ResponseReturnValue:
    """DELETE /v1/threads/{thread_id}"""
    service().store.threads.delete(thread_id)
    return jsonify(deleted("thread", thread_id))


def _shown(store: Store, thread: Thread) -> dict[str, Any]:
    return thread_json(thread, store.messages.ids([thread.id])[thread.id])


def _fields(store: Store, body: Mapping[str, Any], place: str = "") -> Any:
    """The fields of a body, which stands at *place*, as those of a stored thread."""
    fields = {name: body[name] for name in _SAME if name in body}
    if "title" not in fields and "summary" in body:
        fields["title"] = body["summary"]
    if "model_id" in fields:
        fields["model_id"] = fields["model_id"] or None
    if "assistants" in body:
        given: list[dict[str, Any]] = [
            {"assistant_id": a} if isinstance(a, str) else a for a in body["assistants"]
        ]
        bodies.ignore_inside("assistants", given, "jan", "ThreadAssistant")
        for one in given:
            model = one.get("model") or {}
            ignore_parameters(model.get("parameters"), "assistants/*/model/parameters")
        fields["assistants"] = [
            _assistant(store, one, f"{place}assistants/{index}") for index, one in enumerate(given)
        ]
    ignore_parameters(body.get("parameters"))
    return fields


def _assistant(store: Store, given: Mapping[str, Any], field: str) -> Json:
    """An assistant of a thread, the *field* of its body: which it is, and what the thread says
    otherwise than it. Raises NotFound."""
    kept = {name: value for name, value in given.items() if value is not None}
    found = find_assistant(store, kept.get("assistant_id", _DEFAULT), field)
    return {"assistant_id": found.id, "assistant_name": found.name, **kept}


def _append(store: Store, thread_id: str, body: Mapping[str, Any], place: str = "") -> None:
    messages = body.get("messages", ())
    bodies.ignore_inside("messages", messages, "jan", "ThreadMessageObject")
    add_messages(store, thread_id, messages, f"{place}messages")
