"""What a llama-server tells of itself: /health and /props."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import jsonify

from nitrolib import __version__

from ..problem import Refused
from ..service import service
from .answer import settings

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from nitrolib.gguf import Vocabulary

    from ..service import Lease

__all__ = ["BUILD", "health", "props", "set_props"]

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
