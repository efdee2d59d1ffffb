"""/slots of the llama-server dialect: what the slots do, and saving, restoring and erasing them."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import jsonify, request

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

from .. import bodies
from ..problem import Refused
from ..service import service
from . import slot_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.typing import ResponseReturnValue

    from ..service import Lease

__all__ = ["act", "slots"]


def slots() -> ResponseReturnValue:
    with service().use() as lease:
        model = lease.status
    if request.args.get("fail_on_no_slot") and all(one.state != "idle" for one in model.slots):
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "no slot available", "no_slot_available")
    found = [
        {
            "id": one.slot,
            "n_ctx": model.n_ctx,
            "speculative": False,
            "is_processing": one.state != "idle",
            "n_prompt_tokens_cache": one.cached_tokens,
        }
        for one in model.slots
    ]
    return jsonify(found)


def act(id_slot: str) -> ResponseReturnValue:
    """What the query's `action` says, on one slot."""
    action = request.args.get("action", "")
    if action not in _ACTIONS:
        raise _refused("action", action, "save, restore or erase")
    body, _ = bodies.read("llama-server", "SlotFile", optional=True)
    with service().use() as lease:
        numbers = range(lease.status.n_parallel)
        if id_slot not in map(str, numbers):
            raise _refused("id_slot", id_slot, f"0 to {numbers[-1]}")
        try:
            done = _ACTIONS[action](lease, int(id_slot), body)
        except Unsupported as error:
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, error.message, "not_supported") from error
    return jsonify({"id_slot": int(id_slot), **done})


def _save(lease: Lease, slot: int, body: dict[str, Any]) -> dict[str, Any]:
    folder, name = _place(body)
    began = time.perf_counter()
    made = slot_files.write(folder, name, lease.engine.save_slot(slot), lease.status)
    return {
        "filename": name,
        "n_saved": len(made.state.tokens),
        "n_written": made.size,
        "timings": {"save_ms": (time.perf_counter() - began) * 1000},
    }


def _restore(lease: Lease, slot: int, body: dict[str, Any]) -> dict[str, Any]:
    folder, name = _place(body)
    began = time.perf_counter()
    found = slot_files.read(folder, name, lease.status)
    lease.engine.restore_slot(slot, found.state)
    return {
        "filename": name,
        "n_restored": len(found.state.tokens),
        "n_read": found.size,
        "timings": {"restore_ms": (time.perf_counter() - began) * 1000},
    }


def _erase(lease: Lease, slot: int, _body: dict[str, Any]) -> dict[str, Any]:
    return {"n_erased": lease.engine.erase_slot(slot)}


_ACTIONS: dict[str, Callable[[Lease, int, dict[str, Any]], dict[str, Any]]] = {
    "save": _save,
    "restore": _restore,
    "erase": _erase,
}


def _place(body: dict[str, Any]) -> tuple[str, str]:
    """The operator's folder, and the name of the file in it."""
    folder = service().settings.slots_dir
    if folder is None:
        raise Refused(
            HTTPStatus.NOT_IMPLEMENTED,
            "This server does not save slots. Start it with --slots-dir.",
            "not_supported",
        )
    if "filename" not in body:
        raise InvalidRequest("filename is required", field="filename", allowed="a file name")
    return folder, body["filename"]


def _refused(field: str, value: str, allowed: str) -> InvalidRequest:
    shown = shorten(value)
    message = f"{field} must be {allowed}, got {shown}"
    return InvalidRequest(message, field=field, value=shown, allowed=allowed)
