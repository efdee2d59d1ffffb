"""Requests of the LocalLab dialect: a prompt or a conversation becomes a GenerationRequest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nitrolib.engine import Engine
    from nitrolib.engine.request import GenerationRequest
    from nitrolib.prompt import Message
    from nitrolib.sampling import SamplingParams

    from ..service import Lease

__all__ = ["conversation", "evaluated", "prompt", "sampling"]

# The order of transformers, which the dialect's numbers are made for: the temperature comes before
# the truncation.
_SAMPLERS = ("penalties", "temperature", "top_k", "top_p")


def sampling(
    body: Mapping[str, Any], defaults: Mapping[str, Any], stop: Sequence[str] = ()
) -> SamplingParams:
    """The sampling of a request; what it leaves out has the dialect's default. *stop* are the stop
    strings of the model."""
    from nitrolib.sampling import SamplingParams, clean_stops

    values = {**defaults, **body}
    return SamplingParams(
        temperature=values["temperature"] if values["do_sample"] else 0,
        top_k=values["top_k"],
        top_p=values["top_p"],
        min_p=0,
        repeat_penalty=values["repetition_penalty"],
        repeat_last_n=-1,  # transformers penalises what stands anywhere in the text
        samplers=_SAMPLERS,
        seed=values["seed"],
        max_tokens=body.get("max_length", body.get("max_tokens", defaults["max_length"])),
        stop=clean_stops(stop),
    )


def prompt(
    text: str,
    body: Mapping[str, Any],
    defaults: Mapping[str, Any],
    lease: Lease,
    *,
    form: str,
    instructions: str,
) -> GenerationRequest:
    """What /generate asks for: an answer to *text*, or its continuation.

    form: "chat", "text", or "auto": chat where the model has a template of its own or was given
        one. A model that was trained on conversations rarely ends what it only continues.
    instructions: the system message of a request that brings none; "" is none.
    """
    from nitrolib.engine.request import GenerationRequest
    from nitrolib.prompt import Message, Prompt, PromptTemplate

    if form == "chat" or (form == "auto" and lease.template != PromptTemplate()):
        system = body.get("system_prompt", instructions)
        turns = [Message("system", system)] if system else []
        return _chat([*turns, Message("user", text)], body, defaults, lease)
    return GenerationRequest(
        prompt=Prompt.plain(text),
        params=sampling(body, defaults, lease.profile.stop),
        **_fields(body, defaults),
        context_policy=lease.profile.context_policy,
    )


def conversation(
    body: Mapping[str, Any], defaults: Mapping[str, Any], lease: Lease
) -> GenerationRequest:
    """What /chat asks for."""
    from nitrolib.prompt import Message

    turns = [Message(item["role"], item["content"]) for item in body["messages"]]
    return _chat(turns, body, defaults, lease)


def evaluated(request: GenerationRequest, engine: Engine) -> GenerationRequest:
    """*request* with its prompt as token ids, so that one of many which is too long is known before
    any of them runs. Raises ContextOverflow, and ModelNotLoaded."""
    prompt = request.prompt
    return replace(request, prompt=tuple(engine.prompt_ids(prompt)))


def _chat(
    turns: list[Message],
    body: Mapping[str, Any],
    defaults: Mapping[str, Any],
    lease: Lease,
) -> GenerationRequest:
    return lease.engine.chat_request(
        turns,
        sampling(body, defaults, lease.profile.stop),
        lease.template,
        lease.profile.context_policy,
        **_fields(body, defaults),
    )


def _fields(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    seconds = body.get("max_time", defaults["max_time"])
    return {"timeout_s": seconds or None}
