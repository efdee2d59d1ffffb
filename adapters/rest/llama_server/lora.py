"""LoRA adapters of the llama-server dialect: what is loaded, and how strongly it acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import jsonify

from .. import bodies
from ..service import service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask.typing import ResponseReturnValue

    from ..service import Lease

__all__ = ["adapters", "pairs", "set_scales"]


def adapters() -> ResponseReturnValue:
    with service().use() as lease:
        found = lease.status.lora
    rows = [
        {
            "id": one.id,
            "path": one.path,
            "scale": one.scale,
            "task_name": "",
            "prompt_prefix": "",
        }
        for one in found
    ]
    return jsonify(rows)


def set_scales() -> ResponseReturnValue:
    """Set how strongly the adapters act on requests that do not say; 0 for those not listed."""
    asked = bodies.read_array("llama-server", "LoraScales", "lora")
    with service().use() as lease:
        known = pairs(asked, lease)
        if known or lease.status.lora:
            lease.engine.set_lora_scales(known)
    return jsonify({"success": True})


def pairs(asked: Sequence[Mapping[str, Any]], lease: Lease) -> tuple[tuple[int, float], ...]:
    """The numbers and strengths of a list; adapters that are not loaded are ignored, and told."""
    given = [(int(one["id"]), float(one["scale"])) for one in asked]
    loaded = {one.id for one in lease.status.lora}
    bodies.ignore(*(f"lora/{number}" for number, _ in given if number not in loaded))
    return tuple(one for one in given if one[0] in loaded)
