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

    System messages and the last message stay, with its question where it is the result of a call.
    What answers a dropped question goes with it, calls and results too: templates expect the user
    to speak first. Raises ContextOverflow when what must stay is too long by itself.
    """

    def ids(cut: int) -> tuple[int, ...]:
        return tuple(model.prompt_ids(template.render(_from(turns, cut))))

    try:
        return ids(0), 0
    except ContextOverflow:
        cuts = _cuts(turns)
        if not cuts:
            raise
    best, prompt = len(cuts) - 1, ids(cuts[-1])
    least = 0  # no cut before this one is known to fit or not
    while least < best:  # a conversation of thousands of messages is not rendered once for each
        middle = (least + best) // 2
        try:
            best, prompt = middle, ids(cuts[middle])
        except ContextOverflow:
            least = middle + 1
    return prompt, len(turns) - len(_from(turns, cuts[best]))


def _from(turns: list[Message], cut: int) -> list[Message]:
    """The messages from `cut` on, and the system messages before it."""
    return [one for one in turns[:cut] if one.role == "system"] + turns[cut:]


def _cuts(turns: list[Message]) -> list[int]:
    """Where the conversation may begin instead: at questions up to the last one that may go."""
    last = len(turns) - 1
    if turns[last].role == "tool":
        last = max((at for at in range(last) if _asks(turns[at])), default=0)
    cuts = [at for at in range(1, last + 1) if at == last or _asks(turns[at])]
    return [at for at in cuts if any(one.role != "system" for one in turns[:at])]


def _asks(message: Message) -> bool:
    return message.role not in ("system", "assistant", "tool")
