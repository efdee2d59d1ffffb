"""Messages of the Jan dialect, and the files that belong to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import Conflict, InvalidRequest, Unsupported
from nitrolib.store import text_part
from nitrolib.validation import shorten

from .. import bodies
from ..service import service
from .objects import deleted, file_json, list_json, message_json, page_query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask.typing import ResponseReturnValue

    from nitrolib.store import Json, Store

__all__ = [
    "add_messages",
    "change_message",
    "create_message",
    "delete_message",
    "list_messages",
    "message_file",
    "message_files",
    "show_message",
]


def create_message(thread_id: str) -> ResponseReturnValue:
    """POST /v1/threads/{thread_id}/messages"""
    body = bodies.read("jan", "CreateMessageRequest").fields
    store = service().store
    with store.transaction():
        _refuse_while_answered(store, thread_id)
        message = store.messages.create(thread_id, **_fields(body, ""))
    return jsonify(message_json(message))


def add_messages(
    store: Store, thread_id: str, given: Sequence[Mapping[str, Any]], field: str
) -> None:
    """Append the messages *given*, which are checked and the *field* of a body, inside a
    transaction. Raises NotFound, Conflict while the thread is being answered, Unsupported for
    content that is no text."""
    if not given:
        return
    _refuse_while_answered(store, thread_id)
    fields = [_fields(one, f"{field}/{index}/") for index, one in enumerate(given)]
    store.messages.create_many(thread_id, fields)


def list_messages(thread_id: str) -> ResponseReturnValue:
    """GET /v1/threads/{thread_id}/messages"""
    page = service().store.messages.list(thread_id, **page_query("MessagesQuery"))
    return jsonify(list_json(page, message_json))


def show_message(thread_id: str, message_id: str) -> ResponseReturnValue:
    """GET /v1/threads/{thread_id}/messages/{message_id}"""
    return jsonify(message_json(service().store.messages.get(thread_id, message_id)))


def change_message(thread_id: str, message_id: str) -> ResponseReturnValue:
    """POST /v1/threads/{thread_id}/messages/{message_id}"""
    body = bodies.read("jan", "MessageChanges", optional=True).fields
    changes: Any = {"metadata": body["metadata"]} if "metadata" in body else {}
    return jsonify(message_json(service().store.messages.update(thread_id, message_id, **changes)))


def delete_message(thread_id: str, message_id: str) -> ResponseReturnValue:
    """DELETE /v1/threads/{thread_id}/messages/{message_id}"""
    service().store.messages.delete(thread_id, message_id)
    return jsonify(deleted("thread.message", message_id))


def message_files(thread_id: str, message_id: str) -> ResponseReturnValue:
    """GET /v1/threads/{thread_id}/messages/{message_id}/files"""
    found = service().store.messages.files(thread_id, message_id)
    return jsonify({"object": "list", "data": [file_json(file) for file in found]})


def message_file(thread_id: str, message_id: str, file_id: str) -> ResponseReturnValue:
    """GET /v1/threads/{thread_id}/messages/{message_id}/files/{file_id}"""
    return jsonify(file_json(service().store.messages.file(thread_id, message_id, file_id)))


def _refuse_while_answered(store: Store, thread_id: str) -> None:
    active = store.runs.active(thread_id)
    if active is not None:
        raise Conflict(
            f"the thread is being answered by the run {active!r}: wait for its end, or cancel it"
        )


def _fields(given: Mapping[str, Any], place: str) -> Any:
    """The message *given*, which stands at *place* in its body, as fields of a stored one."""
    return {
        "role": given["role"],
        "content": _content(given["content"], f"{place}content"),
        "file_ids": _file_ids(given, place),
        "metadata": given.get("metadata") or {},
    }


def _content(content: Any, field: str) -> list[Json]:
    if isinstance(content, str):
        return [text_part(content)]
    return [text_part(_text(part, f"{field}/{index}")) for index, part in enumerate(content)]


def _text(part: Mapping[str, Any], field: str) -> str:
    """The text of a part, which OpenAI's answers have one level deeper than its requests."""
    if part["type"] != "text":
        raise Unsupported(
            f"{field} has type {shorten(part['type'])}, and only text parts are supported",
            field=f"{field}/type",
            value=shorten(part["type"]),
            allowed="text",
        )
    text = part.get("text")
    value = text.get("value") if isinstance(text, dict) else text
    if not isinstance(value, str):
        raise InvalidRequest(f"{field}/text is required", field=f"{field}/text", allowed="a text")
    return value


def _file_ids(given: Mapping[str, Any], place: str) -> list[str]:
    """Jan's file_ids, then those of OpenAI's attachments. Tools of these are not supported."""
    found = list(given.get("file_ids") or ())
    for index, one in enumerate(given.get("attachments") or ()):
        if one.get("tools"):
            where = f"{place}attachments/{index}/tools"
            raise Unsupported(f"{where} is not supported", field=where, allowed="no tools")
        found.append(one["file_id"])
    return list(dict.fromkeys(found))
