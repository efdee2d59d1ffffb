"""Which model a request of the OpenAI dialect is for, and the models that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib.errors import InvalidRequest, ModelNotFound

from .. import chat
from ..model_object import known_models, model_object
from ..service import service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from nitrolib.models import ModelEntry, Seat

    from ..service import Lease

__all__ = ["list_models", "select", "show_model"]

_KEYS = ("id", "object", "created", "owned_by")  # of OpenAI's object


def select(body: Mapping[str, Any], *, generating: bool = True) -> Lease:
    """A lease of the model that *body* names, started where it is known and not loaded.

    A name that nobody knows raises ModelNotFound; on a port that Nitro's dialect shares it stands
    for the current model, as it does there. Raises InvalidRequest for a model that answers nothing
    where the request is for *generating*.
    """
    served = service().settings.dialects
    lease = chat.select(body, strict=None if "nitro" in served else True)
    if generating and not lease.profile.chats:
        lease.close()
        raise InvalidRequest(
            "the model was loaded for embeddings",
            field="model",
            value=lease.id,
            allowed="a model that answers",
        )
    return lease


def list_models() -> ResponseReturnValue:
    """GET /v1/models; where Jan's dialect is served too, its objects are OpenAI's as well."""
    if _beside_jan():
        from ..jan import models

        return models.list_models()
    data = [_shown(entry, seat) for entry, seat in known_models(service())]
    return jsonify({"object": "list", "data": data})


def show_model(model_id: str) -> ResponseReturnValue:
    """GET /v1/models/{model_id}"""
    if _beside_jan():
        from ..jan import models

        return models.show_model(model_id)
    for entry, seat in known_models(service()):
        if model_id == entry.id:
            return jsonify(_shown(entry, seat))
    raise ModelNotFound(model_id)


def _beside_jan() -> bool:
    return "jan" in service().settings.dialects


def _shown(entry: ModelEntry, seat: Seat | None) -> dict[str, Any]:
    whole = model_object(entry, seat, state="available")
    return {name: whole[name] for name in _KEYS}
