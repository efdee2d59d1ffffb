"""From a conversation to a GenerationRequest: template, stop strings, and what to do when it does
not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import ContextOverflow, InvalidRequest
from ..prompt.message import Message, Prompt
from .request import GenerationRequest

if TYPE_CHECKING:
    from ..sampling import SamplingParams
    from .model import LoadedModel

__all__ = ["ContextPolicy", "MessageLike", "Template", "chat_request"]

ContextPolicy = Literal["error", "drop_oldest_turns", "shift"]
MessageLike = Message | Mapping[str, str]


class Template(Protocol):
    """What makes a prompt of messages: PromptTemplate, ChatTemplate, or one's own."""

    @property
    def stops(self) -> tuple[str, ...]: ...

    def render(self, messages: Sequence[Message]) -> Prompt: ...


def chat_request(
    model: LoadedModel,
    messages: Sequence[MessageLike],
    params: SamplingParams,
    template: Template | None,
    context_policy: ContextPolicy,
    fields: dict[str, Any],
) -> GenerationRequest:
    """The request for the next answer; see `Engine.chat`."""
    chosen: Template = model.chat_template if template is None else template
    turns = [_message(index, one) for index, one in enumerate(messages)]
    if not turns:
        raise InvalidRequest(
            "messages is empty", field="messages", value=[], allowed="at least one message"
        )
    prompt: Prompt | tuple[int, ...] = chosen.render(turns)
    notes = tuple(fields.pop("notes", ()))
    if context_policy == "drop_oldest_turns":
        prompt, dropped = _fit(model, turns, chosen)
        if dropped:
            notes += (f"the {dropped} oldest messages were left out to fit the context",)
    elif context_policy not in ("error", "shift"):
        raise InvalidRequest(
            f"context_policy is {context_policy!r}",
            field="context_policy",
            value=context_policy,
            allowed='"error", "drop_oldest_turns" or "shift"',
        )
    return GenerationRequest(
        prompt=prompt,
        params=replace(params, stop=tuple(dict.fromkeys((*params.stop, *chosen.stops)))),
        **{"kind": "chat", "strip_leading_space": True, **fields},
        context_policy="shift" if context_policy == "shift" else "error",
        notes=notes,
    )


def _message(index: int, one: MessageLike) -> Message:
    if isinstance(one, Message):
        return one
    try:
        role, content = one["role"], one["content"]
    except (KeyError, TypeError):
        role = content = None  # type: ignore[assignment]
    if not isinstance(role, str) or not isinstance(content, str):
        raise InvalidRequest(
            f"messages[{index}] is no message: {one!r}",
            field=f"messages[{index}]",
            value=one,
            allowed="a Message, or a mapping with the texts role and content",
        )
    return Message(role, content)


def _fit(
    model: LoadedModel, turns: list[Message], template: Template
) -> tuple[tuple[int, ...], int]:
    """The prompt of as many of the newest messages as fit, as ids, and how many were dropped.

    System messages and the last message stay. An answer whose question was dropped goes with it:
    templates expect the user to speak first. Raises ContextOverflow when what must stay is too
    long by itself.
    """
    kept = list(turns)
    while True:
        try:
            return tuple(model.prompt_ids(template.render(kept))), len(turns) - len(kept)
        except ContextOverflow:
            oldest = _oldest(kept)
            if oldest is None:
                raise
        del kept[oldest]
        following = _oldest(kept)
        if following is not None and kept[following].role == "assistant":
            del kept[following]


def _oldest(turns: list[Message]) -> int | None:
    """Index of the first message that may go."""
    for index, one in enumerate(turns[:-1]):
        if one.role != "system":
            return index
    return None
