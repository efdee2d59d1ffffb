"""/lora-adapters of the llama-server dialect: the adapters of the model, and their scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import jsonify

from . import bodies
from .service import service

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

__all__ = ["adapters", "set_scales"]


def adapters() -> ResponseReturnValue:
    service().use().close()  # no model, no answer
    return jsonify([])


def set_scales() -> ResponseReturnValue:
    """Scales of adapters that are not loaded are ignored, and told."""
    asked = bodies.read_array("llama-server", "LoraScales", "lora")
    service().use().close()
    bodies.ignore(*(str(int(one["id"])) for one in asked))
    return jsonify({"success": True})
