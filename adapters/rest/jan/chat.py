"""The chat of the Jan dialect: its fields, its defaults, and what its answers look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import bodies, chat
from ..chat import AnswerStyle, ChatDialect
from ..service import service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from ..service import Lease

__all__ = ["CHAT", "chat_completion", "defaults_of"]

# Fields of model.json's parameters that a chat without them gets; `stop` is the lease's.
_OF_MODEL = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty")
_LIMITS = ("max_tokens", "max_completion_tokens")


def chat_completion() -> ResponseReturnValue:
    """POST /v1/chat/completions"""
    return chat.respond(CHAT)


def defaults_of(lease: Lease, defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a chat gets that leaves fields out: as the model's model.json says, else *defaults*."""
    entry = lease.entry
    if entry is None:
        return defaults
    given = entry.manifest.parameters
    own = {name: given[name] for name in _OF_MODEL if name in given}
    if entry.manifest.max_tokens is not None:
        own["max_tokens"] = entry.manifest.max_tokens
    return {**defaults, **own}


def _adjust(body: dict[str, Any]) -> None:
    """Jan's limit is `max_tokens` where `n_predict` is there too; a model may say in its model.json
    that it streams."""
    if "n_predict" in body and not body.keys().isdisjoint(_LIMITS):
        del body["n_predict"]
        bodies.ignore("n_predict")
    if "stream" not in body:
        entry = service().registry.find(body["model"])
        if entry is not None and "stream" in entry.manifest.parameters:
            body["stream"] = entry.manifest.parameters["stream"]


CHAT = ChatDialect(
    document="jan",
    request="CreateChatCompletionDto",
    message="ChatCompletionMessage",
    strict=True,
    stream=False,
    style=AnswerStyle(
        model=None,
        id_prefix="chatcmpl-",
        whole={"system_fingerprint": "nitrolib"},
        chunk={"system_fingerprint": "nitrolib"},
        choice={"logprobs": None},
        bare_logprobs=True,
    ),
    defaults=defaults_of,
    adjust=_adjust,
)
