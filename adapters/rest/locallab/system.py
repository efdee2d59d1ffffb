"""The system routes of the LocalLab dialect: the machine, the server, the instructions."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from flask import jsonify, request

from nitrolib.errors import ModelNotFound

from .. import bodies, machine
from ..service import service
from .models import loading
from .state import state

if TYPE_CHECKING:
    from pathlib import Path

    from flask.typing import ResponseReturnValue

__all__ = ["health", "info", "instruct", "instructions", "reset", "resources", "root", "startup"]

_GB = 1024**3


def health() -> ResponseReturnValue:
    return jsonify({"status": "healthy"})


def info() -> ResponseReturnValue:
    """LocalLab's own fields, and the three objects that its client's examples read."""
    here = state()
    cpu, memory, gpus = machine.cpu(), machine.memory(), machine.gpus()
    return jsonify(
        {
            "cpu_usage": cpu["usage"],
            "memory_usage": memory["percent"],
            "gpu_info": gpus or None,
            "active_model": _current(),
            "uptime": here.uptime,
            "request_count": here.requests,
            "cpu": cpu,
            "memory": memory,
            "gpu": gpus,
        }
    )


def resources() -> ResponseReturnValue:
    here = state()
    return jsonify(
        {
            "cpu": machine.cpu(),
            "memory": machine.memory(),
            "gpu": machine.gpus(),
            "disk": machine.disk(_existing(service().settings.models_folder)),
            "platform": platform.system(),
            "server_uptime": here.uptime,
            "api_requests": here.requests,
        }
    )


def startup() -> ResponseReturnValue:
    return jsonify(
        {
            "server_ready": True,
            "model_loading": loading(service()),
            "current_model": _current(),
            "uptime": state().uptime,
        }
    )


def root() -> ResponseReturnValue:
    from nitrolib import __version__

    memory, cpu, gpus = machine.memory(), machine.cpu(), machine.gpus()
    return jsonify(
        {
            "name": "nitrolib",
            "version": __version__,
            "status": "running",
            "model": _current(),
            "uptime": state().uptime,
            "resources": {
                "ram_gb": round(memory["total"] / _GB, 2),
                "ram_available_gb": round(memory["available"] / _GB, 2),
                "ram_used_percent": memory["percent"],
                "cpu_count": cpu["threads"],
                "cpu_usage": cpu["usage"],
                "gpu_available": bool(gpus),
                "gpu_info": gpus or None,
            },
        }
    )


def instructions() -> ResponseReturnValue:
    name = _known(request.args.get("model_id"))
    return jsonify({"instructions": state().instructions(name), "model_id": name or "global"})


def instruct() -> ResponseReturnValue:
    body, _ = bodies.read("locallab", "InstructionsRequest", any_type=True)
    name = _known(body.get("model_id"))
    state().instruct(name, body["instructions"])
    return _note("Instructions updated", name)


def reset() -> ResponseReturnValue:
    name = _known(request.args.get("model_id"))
    state().forget(name)
    return _note("Instructions reset", name)


def _note(text: str, name: str | None) -> ResponseReturnValue:
    answer: dict[str, Any] = {"message": text if name is None else f"{text} for model {name}"}
    return jsonify(answer)


def _known(name: str | None) -> str | None:
    """The id of the model that is called *name*; None for no name. Raises ModelNotFound."""
    if not name:
        return None
    here = service()
    seat = here.called(name)
    if seat is not None:
        return seat.key
    entry = here.registry.find(name)
    if entry is None:
        raise ModelNotFound(name)
    return entry.id


def _current() -> str | None:
    seat = service().pool.current
    return None if seat is None else seat.key


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
