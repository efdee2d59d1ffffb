"""Runs of threads: the routes. Jan has none; they are as OpenAI has them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import Conflict, InvalidRequest
from nitrolib.store import ACTIVE
from nitrolib.validation import schema

from .. import bodies, chat
from ..chat import request
from ..running import Run
from ..service import service
from .chat import CHAT, defaults_of
from .messages import add_messages
from .objects import list_json, page_query, run_json
from .run import DONE, Answering, encode
from .run_plan import chat_body, make_plan
from .state import state
from .threads import new_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from nitrolib.engine import Generation
    from nitrolib.store import Run as StoredRun
    from nitrolib.store import Store, Thread

    from ..chat.request import Chat
    from ..service import Lease
    from .run_plan import RunPlan

__all__ = ["cancel_run", "change_run", "create_run", "create_with_thread", "list_runs", "show_run"]

EXPIRES_S = 3600  # a run that has not ended by then belonged to a server that was killed


def create_run(thread_id: str) -> ResponseReturnValue:
    """POST /v1/threads/{thread_id}/runs"""
    body = bodies.read("jan", "CreateRunRequest", optional=True).fields
    return _answer(service().store, thread_id, body)


def create_with_thread() -> ResponseReturnValue:
    """POST /v1/threads/runs"""
    body = bodies.read("jan", "CreateThreadAndRunRequest").fields
    store = service().store
    given = body.get("thread") or {}
    bodies.ignore_inside("thread", [given], "jan", "CreateThreadObject")
    with store.transaction():
        fields = {name: value for name, value in given.items() if value is not None}
        thread_id = new_thread(store, fields, "thread/").id
    try:
        return _answer(store, thread_id, body)
    except BaseException:
        store.threads.delete(thread_id)
        raise


def list_runs(thread_id: str) -> ResponseReturnValue:
    """GET /v1/threads/{thread_id}/runs"""
    page = service().store.runs.list(thread_id, **page_query())
    return jsonify(list_json(page, run_json))


def show_run(thread_id: str, run_id: str) -> ResponseReturnValue:
    """GET /v1/threads/{thread_id}/runs/{run_id}"""
    return jsonify(run_json(service().store.runs.get(thread_id, run_id)))


def change_run(thread_id: str, run_id: str) -> ResponseReturnValue:
    """POST /v1/threads/{thread_id}/runs/{run_id}"""
    body = bodies.read("jan", "RunChanges", optional=True).fields
    changes: Any = {"metadata": body["metadata"]} if "metadata" in body else {}
    return jsonify(run_json(service().store.runs.update(thread_id, run_id, **changes)))


def cancel_run(thread_id: str, run_id: str) -> ResponseReturnValue:
    """POST /v1/threads/{thread_id}/runs/{run_id}/cancel"""
    store = service().store
    run = store.runs.update(thread_id, run_id, only_if=ACTIVE, status="cancelling")
    if not state().cancel_run(run_id):  # its server was killed, or it has just come to its end
        try:
            run = store.runs.update(
                thread_id,
                run_id,
                only_if=["cancelling"],
                status="cancelled",
                cancelled_at=int(time.time()),
            )
        except Conflict:
            run = store.runs.get(thread_id, run_id)
    return jsonify(run_json(run))


def _answer(store: Store, thread_id: str, body: Mapping[str, Any]) -> ResponseReturnValue:
    """Answer a thread as *body* says: as a stream, or in the background."""
    stream = chat.wants_stream(body, default=False)
    thread = store.threads.get(thread_id)
    plan = make_plan(store, thread, body)
    lease, _ = service().select(plan.model, strict=True)
    running: Run | None = None
    generations: tuple[Generation, ...] = ()
    try:
        if not lease.profile.chats:
            raise InvalidRequest("the model was loaded for embeddings", field="model")
        with store.transaction():
            run, asked = _begin(store, thread, plan, body, lease, stream=stream)
            if stream:
                running = Run(lease, asked.request)
                generations = running.generations
            else:
                generations = lease.engine.submit_choices(asked.request, 1)
    except BaseException:  # the end of the transaction may have failed too
        for generation in generations:
            generation.cancel()
        (running or lease).close()
        raise
    answering = Answering(store, run, generations[0], asked.form, state(), plan.notes)
    if running is not None:
        return running.stream(answering.stream(), encode=encode, done=DONE, after=answering.close)
    answering.in_background(lease.close)
    return jsonify(run_json(run))


def _begin(
    store: Store,
    thread: Thread,
    plan: RunPlan,
    body: Mapping[str, Any],
    lease: Lease,
    *,
    stream: bool,
) -> tuple[StoredRun, Chat]:
    """Store the run and its additional messages, and make the request of all there are, inside a
    transaction: what cannot be asked leaves nothing behind."""
    additional = body.get("additional_messages") or ()
    add_messages(store, thread.id, additional, "additional_messages")
    run = store.runs.create(
        thread.id,
        assistant_id=plan.assistant_id,
        model=lease.id,
        instructions=plan.instructions,
        parameters=plan.parameters,
        metadata=plan.metadata,
        expires_at=int(time.time()) + EXPIRES_S,
    )
    messages = store.messages.list(thread.id, limit=None, order="asc").data
    defaults = defaults_of(lease, schema("jan", CHAT.request).defaults)
    chat_fields = chat_body(plan, messages)
    return run, request.from_body(chat_fields, defaults, lease, CHAT.style, stream=stream)
