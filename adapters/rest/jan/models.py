"""Models of the Jan dialect: listed, told of, added, started, stopped, deleted."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from flask import jsonify, request

from nitrolib.errors import InvalidRequest, ModelFileError, ModelNotFound
from nitrolib.models import Manifest, check_id
from nitrolib.validation import schema, shorten

from .. import bodies, jsonbody
from ..model_object import known_models, loaded_entry, model_object, settings_of
from ..problem import Refused
from ..service import service
from .state import state

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from nitrolib.models import ModelEntry, Seat

    from ..service import Service

__all__ = [
    "add_model",
    "delete_model",
    "download_model",
    "list_models",
    "show_model",
    "start_model",
    "stop_model",
]

_MANIFEST = ("name", "description", "settings", "parameters", "metadata")


def list_models() -> ResponseReturnValue:
    """GET /v1/models"""
    here = service()
    loaded_only = bodies.read_query("jan", "ModelsQuery").fields.get("loaded", False)
    known = known_models(here)
    shown = [
        model_object(entry, seat, state="available")
        for entry, seat in known
        if seat is not None or not loaded_only
    ]
    if not loaded_only:
        ids = {entry.id for entry, _ in known}
        shown += [
            model_object(entry, state="downloading")
            for entry in here.registry.entries()
            if entry.id not in ids and _is_downloading(here, entry.id)
        ]
    return jsonify({"object": "list", "data": shown})


def show_model(model_id: str) -> ResponseReturnValue:
    """GET /v1/models/{model_id}"""
    here = service()
    entry, seat = _known(here, model_id)
    told = model_object(entry, seat, state=_state(here, entry, seat))
    return jsonify({**told, "parameters": told["parameters"] | settings_of(entry, seat)})


def add_model() -> ResponseReturnValue:
    """POST /v1/models"""
    here = service()
    body = bodies.read("jan", "DownloadModelRequest").fields
    manifest = {name: body[name] for name in _MANIFEST if name in body}
    path = _local_path(body["source_url"])
    if path is None:
        _check_downloads(here)
        status = here.downloads.start(body["source_url"], id=body.get("id"), **manifest)
        return jsonify(_download_answer(status.id, status.state))
    return jsonify(_register(here, path, body, manifest))


def download_model(model_id: str) -> ResponseReturnValue:
    """GET /v1/models/download/{model_id}"""
    here = service()
    bodies.ignore(*request.args)
    entry = here.registry.get(model_id)
    if entry.present:
        return jsonify(_download_answer(entry.id, "downloaded"))
    _check_downloads(here)
    return jsonify(_download_answer(entry.id, here.downloads.start(entry).state))


def start_model(model_id: str) -> ResponseReturnValue:
    """PUT /v1/models/{model_id}/start"""
    here = service()
    settings = _start_settings()
    seat = here.called(model_id)
    if seat is None or settings:
        entry = here.registry.get(seat.key if seat is not None else model_id)
        with here.start(_with_settings(entry, settings)) as lease:
            model_id = lease.id
    else:
        model_id = seat.key
    return jsonify(_action(model_id, "running", f"Model {model_id} started"))


def stop_model(model_id: str) -> ResponseReturnValue:
    """PUT /v1/models/{model_id}/stop"""
    here = service()
    state().note_models(here)
    if here.stop(model_id):
        return jsonify(_action(model_id, "stopped", "Model stopped"))
    here.registry.get(model_id)
    return jsonify(_action(model_id, "stopped", "Model isn't running"))


def delete_model(model_id: str) -> ResponseReturnValue:
    """DELETE /v1/models/{model_id}"""
    here = service()
    entry = here.registry.get(model_id)
    here.stop(entry.id)
    if not here.downloads.cancel(entry.id) or here.registry.find(entry.id) is not None:
        here.registry.remove(entry.id)
    state().forget_model(entry.id)
    return jsonify({"id": entry.id, "object": "model", "deleted": True})


def _known(here: Service, model_id: str) -> tuple[ModelEntry, Seat | None]:
    seat = here.called(model_id)
    if seat is not None:
        return loaded_entry(here, seat), seat
    return here.registry.get(model_id), None


def _state(here: Service, entry: ModelEntry, seat: Seat | None) -> str:
    """In the words of the route of one model."""
    if seat is not None or here.pool.state(entry.id) == "unloading":
        return "running"
    if not entry.present:
        return "not_downloaded"
    if here.pool.state(entry.id) is None and state().has_run(entry.id):
        return "stopped"
    return "downloaded"


def _is_downloading(here: Service, model_id: str) -> bool:
    status = here.downloads.status(model_id)
    return status is not None and status.active


def _check_downloads(here: Service) -> None:
    if not here.settings.downloads:
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "this server downloads no models: its operator has turned that off",
            "downloads_disabled",
        )


def _local_path(source: str) -> str | None:
    """The path of a file on this machine that *source* is; None for what is elsewhere."""
    parts = urlsplit(source) if source.lower().startswith("file:") else None
    if parts is not None:
        if parts.netloc not in ("", "localhost"):
            raise InvalidRequest(
                "source_url names a file of another machine",
                field="source_url",
                value=shorten(source),
                allowed="file:///PATH",
            )
        return url2pathname(parts.path)
    if os.path.isabs(source) or source.startswith(("./", "../", ".\\", "..\\")):
        return source
    return None


def _register(
    here: Service, path: str, body: dict[str, Any], manifest: dict[str, Any]
) -> dict[str, Any]:
    """Remember a file where it is."""
    allowed = here.paths.check(path)
    name = os.path.basename(path.replace("\\", "/"))
    model_id = body.get("id") or name.removesuffix(".gguf")
    check_id(model_id)
    try:
        entry = here.registry.add(model_id, path=allowed, **manifest)
    except ModelFileError as error:
        raise InvalidRequest(
            f"source_url is no model that can be used: {error.message}",
            field="source_url",
            value=shorten(body["source_url"]),
            allowed="a sound GGUF file",
        ) from error
    return _action(entry.id, "downloaded", f"Model {entry.id} added")


def _download_answer(model_id: str, found: str) -> dict[str, Any]:
    if found == "downloaded":
        return _action(model_id, "downloaded", f"Model {model_id} is there already")
    return _action(model_id, "downloading", f"Starting download {model_id}")


def _action(model_id: str, found: str, message: str) -> dict[str, Any]:
    return {"id": model_id, "object": "model", "state": found, "message": message}


def _start_settings() -> dict[str, Any]:
    """The load settings in the body, which may be an object, an object in a text, or nothing."""
    data = request.get_data(cache=True)
    if not data.lstrip().startswith(b'"'):
        return bodies.read("jan", "StartModelRequest", optional=True).fields
    try:
        text = json.loads(data)
    except ValueError:
        text = ""
    given = jsonbody.parse(text.encode("utf-8", "replace"))
    fields = {name: value for name, value in given.items() if value is not None}
    rules = schema("jan", "StartModelRequest")
    bodies.ignore(*rules.unknown(fields))
    rules.check(fields)
    return {name: rules.whole(name, value) for name, value in fields.items()}


def _with_settings(entry: ModelEntry, settings: dict[str, Any]) -> ModelEntry:
    """*entry* with other load settings, for this start alone."""
    if not settings:
        return entry
    if not entry.present:
        raise ModelNotFound(entry.id, f"the file of model {entry.id!r} is not there")
    document = entry.manifest.as_json()
    document["settings"] = {**document["settings"], **settings}
    return replace(entry, manifest=Manifest.parse(document, entry.id))
