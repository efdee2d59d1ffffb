"""What a llama-server tells of itself: /health, /props, /slots."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import jsonify, request

from nitrolib import __version__
from nitrolib.errors import InvalidRequest
from nitrolib.validation import shorten

from .llama_server_answer import settings
from .problem import Refused
from .service import service

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from nitrolib.gguf import Vocabulary

    from .service import Lease

__all__ = ["BUILD", "health", "props", "set_props", "slot_action", "slots"]

BUILD = f"b-nitrolib-{__version__}"  # clients look for the b of a build number


def health() -> ResponseReturnValue:
    return jsonify({"status": "ok"})


def props() -> ResponseReturnValue:
    """The model, and the settings of a request that has none."""
    with service().use() as lease:
        return jsonify(_props(lease))


def set_props() -> ResponseReturnValue:
    raise Refused(
        HTTPStatus.NOT_IMPLEMENTED,
        "This server does not support changing global properties.",
        "not_supported",
    )


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


def slot_action(id_slot: str) -> ResponseReturnValue:
    action = request.args.get("action", "")
    if action not in ("save", "restore", "erase"):
        raise InvalidRequest(
            f"action must be save, restore or erase, got {shorten(action)}",
            field="action",
            value=shorten(action),
            allowed="save, restore or erase",
        )
    with service().use() as lease:
        model = lease.status
    numbers = [str(one) for one in range(model.n_parallel)]
    if id_slot not in numbers:
        raise InvalidRequest(
            f"there is no slot {shorten(id_slot)}",
            field="id_slot",
            value=shorten(id_slot),
            allowed=f"0 to {model.n_parallel - 1}",
        )
    raise Refused(
        HTTPStatus.NOT_IMPLEMENTED,
        f"This server does not {action} slots.",
        "not_supported",
    )


def _props(lease: Lease) -> dict[str, Any]:
    from nitrolib.prompt import ChatTemplate

    model, vocabulary, template = lease.status, lease.engine.vocabulary, lease.template
    facts = None if lease.entry is None else lease.entry.facts
    return {
        "default_generation_settings": {
            "params": _defaults(lease, vocabulary),
            "n_ctx": model.n_ctx,
        },
        "total_slots": model.n_parallel,
        "model_alias": lease.id,
        "model_path": model.path,
        "model_ftype": "" if facts is None else facts.quantization,
        "modalities": {"vision": False, "audio": False},
        "media_marker": "<__media__>",
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": True,
        "chat_template": template.source if isinstance(template, ChatTemplate) else "",
        "chat_template_caps": {},
        "bos_token": _name(vocabulary.bos, vocabulary),
        "eos_token": _name(vocabulary.eos, vocabulary),
        "build_info": BUILD,
        "is_sleeping": False,
    }


def _defaults(lease: Lease, vocabulary: Vocabulary) -> dict[str, Any]:
    from nitrolib.engine.request import GenerationRequest
    from nitrolib.sampling import SamplingParams

    asked = GenerationRequest(
        prompt=(0,),
        params=SamplingParams(stop=lease.profile.stop),
        context_policy=lease.profile.context_policy,
    )
    return settings(asked, vocabulary, seed=None, stream=False)


def _name(token: int | None, vocabulary: Vocabulary) -> str:
    return next((name for name, known in vocabulary.special.items() if known == token), "")
