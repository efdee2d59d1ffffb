"""Models of the LocalLab dialect: the registry, and which of them is loaded."""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import ModelNotFound, NitroError

from .. import bodies
from ..problem import Refused
from ..service import service

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from nitrolib.models import ModelEntry, Seat

    from ..service import Service

__all__ = ["available", "begin_load", "current", "load", "loading", "status", "unload"]

log = logging.getLogger(__name__)


def load() -> ResponseReturnValue:
    body, _ = bodies.read("locallab", "LoadRequest", any_type=True)
    name: str = body["model_id"]
    there = service().called(name) is not None
    service().use(name, start=True).close()
    done = "is already loaded" if there else "loaded successfully"
    return jsonify({"status": "success", "message": f"Model {name} {done}"})


def begin_load(model_id: str) -> ResponseReturnValue:
    here = service()
    if here.called(model_id) is not None:
        message = f"Model {model_id} is already loaded"
        return jsonify({"status": "success", "message": message})
    entry = _entry(here, model_id)
    if here.pool.state(entry.id) != "loading":
        name = f"nitro-load-{entry.id}"
        threading.Thread(target=_load, args=(here, entry), name=name, daemon=True).start()
    return jsonify({"status": "loading", "message": f"Model {model_id} is being loaded"})


def unload() -> ResponseReturnValue:
    """The client compares `status` with the text that LocalLab sent at first."""
    here = service()
    seat = here.pool.current
    if seat is None or not here.stop(seat.key):
        return jsonify({"status": "success", "message": "No model is currently loaded"})
    message = f"Model {seat.key} unloaded successfully"
    return jsonify({"status": "Model unloaded successfully", "message": message})


def current() -> ResponseReturnValue:
    here = service()
    seat = here.pool.current
    if seat is None:
        raise Refused(HTTPStatus.NOT_FOUND, "No model currently loaded", "model_not_loaded")
    return jsonify(_state(seat.key, _name(here, seat), is_loaded=True))


def status(model_id: str) -> ResponseReturnValue:
    here = service()
    seat = here.called(model_id)
    if seat is not None:
        return jsonify(_state(seat.key, _name(here, seat), is_loaded=True))
    entry = _entry(here, model_id)
    return jsonify(_state(entry.id, entry.name, is_loaded=False))


def available() -> ResponseReturnValue:
    """The models of the registry, and before them what was loaded by its path."""
    here = service()
    seats = {seat.key: seat for seat in here.pool.seats()}
    entries = {entry.id: entry for entry in here.registry.entries()}
    seat = here.pool.current
    models = [_loaded(here, seats[key]) for key in seats.keys() - entries.keys()]
    models += [_listed(entry, is_loaded=entry.id in seats) for entry in entries.values()]
    return jsonify({"models": models, "current_model": None if seat is None else seat.key})


def loading(here: Service) -> bool:
    """Whether a model is being loaded."""
    return any(here.pool.state(entry.id) == "loading" for entry in here.registry.entries())


def _entry(here: Service, name: str) -> ModelEntry:
    entry = here.registry.find(name)
    if entry is None:
        raise ModelNotFound(name)
    return entry


def _load(here: Service, entry: ModelEntry) -> None:
    try:
        here.start(entry).close()
    except NitroError as error:
        log.warning("model %s could not be loaded: %s", entry.id, error)


def _name(here: Service, seat: Seat) -> str:
    entry = here.registry.find(seat.key)
    return seat.key if entry is None else entry.name


def _state(id: str, name: str, *, is_loaded: bool) -> dict[str, Any]:  # noqa: A002
    return {
        "id": id,
        "model_id": id,
        "name": name,
        "is_loaded": is_loaded,
        "loading_progress": 1.0 if is_loaded else 0.0,
    }


def _listed(entry: ModelEntry, *, is_loaded: bool) -> dict[str, Any]:
    return {
        "id": entry.id,
        "name": entry.name,
        "can_load": entry.present,
        "description": entry.description,
        "is_loaded": is_loaded,
    }


def _loaded(here: Service, seat: Seat) -> dict[str, Any]:
    return {
        "id": seat.key,
        "name": _name(here, seat),
        "can_load": True,
        "description": "",
        "is_loaded": True,
    }
