"""What a run of a thread is asked to do: the thread, its assistant and the request, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import schema, shorten

from .assistants import find_assistant
from .objects import ANY_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nitrolib.store import Assistant, Json, Message, Store, Thread

__all__ = ["RunPlan", "chat_body", "make_plan"]

# Fields of a run that ask for something that is not done here, and what asks for nothing.
_HARMLESS: Mapping[str, Any] = {
    "tools": lambda value: value == [],
    "tool_choice": lambda value: value in ("auto", "none"),
    "max_prompt_tokens": lambda _value: False,
    "reasoning_effort": lambda value: value == "none",
}
_NOT_CHAT = ("stream", "token_limit")  # parameters that are no fields of a chat's body


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run.

    model: whose answer is wanted; None is the current one.
    instructions: the system message; "" is none.
    parameters: fields of a chat's body, and `truncation_strategy`.
    last_messages: how many of the thread's messages are the prompt; None is all.
    notes: what is not as asked.
    """

    assistant_id: str
    model: str | None
    instructions: str
    parameters: Json
    last_messages: int | None
    metadata: Json
    notes: tuple[str, ...]


def make_plan(store: Store, thread: Thread, body: Mapping[str, Any]) -> RunPlan:
    """The run that *body* asks for, which is checked: what it leaves out is as the thread says,
    then its assistant. Raises NotFound for an unknown assistant, Unsupported, InvalidRequest for
    parameters that cannot be."""
    _refuse_unsupported(body)
    own = _of_thread(thread, body.get("assistant_id"))
    named = body.get("assistant_id") or (own or {}).get("assistant_id") or "jan"
    assistant = find_assistant(store, named, "assistant_id")
    own = own or {}
    own_model: Mapping[str, Any] = own.get("model") or {}
    strategy = body.get("truncation_strategy") or {}
    parameters = _parameters(
        (assistant.parameters, own_model.get("parameters"), thread.parameters, body)
    )
    if strategy:
        parameters["truncation_strategy"] = strategy
    settings = thread.settings or own_model.get("settings")
    return RunPlan(
        assistant_id=assistant.id,
        model=_model(assistant, own_model, thread, body),
        instructions=_instructions(assistant, own, body),
        parameters=parameters,
        last_messages=_last_messages(strategy),
        metadata=body.get("metadata") or {},
        notes=("settings of a thread are not used: a model has its own",) if settings else (),
    )


def chat_body(plan: RunPlan, messages: Sequence[Message]) -> dict[str, Any]:
    """The body of the chat that answers *messages*, oldest first."""
    some = messages if plan.last_messages is None else messages[-plan.last_messages :]
    if not some:
        raise InvalidRequest(
            "the thread has no message to answer", field="thread_id", allowed="a message or more"
        )
    system = [{"role": "system", "content": plan.instructions}] if plan.instructions else []
    fields = dict(plan.parameters)
    if fields.pop("truncation_strategy", None) is not None:
        fields.setdefault("context_policy", "drop_oldest_turns")
    if fields.get("response_format") == "auto":
        del fields["response_format"]
    return {
        **fields,
        "messages": [*system, *({"role": one.role, "content": one.text} for one in some)],
    }


def _of_thread(thread: Thread, assistant_id: str | None) -> Json | None:
    """What the thread says of its first assistant, or of this one."""
    for one in thread.assistants:
        if assistant_id is None or one.get("assistant_id") == assistant_id:
            return one
    return None


def _model(
    assistant: Assistant, own: Mapping[str, Any], thread: Thread, body: Mapping[str, Any]
) -> str | None:
    bound = [one.get("model_id") for one in assistant.models]
    first = bound[0] if len(bound) == 1 else None
    for name in (body.get("model"), thread.model_id, own.get("id"), assistant.model, first):
        if name and name != ANY_MODEL:
            return str(name)
    return None


def _instructions(assistant: Assistant, own: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    given = body.get("instructions")
    if given is None:
        given = own.get("instructions") or assistant.instructions
    return "\n".join(text for text in (given, body.get("additional_instructions")) if text)


def _parameters(sources: Iterable[Mapping[str, Any] | None]) -> Json:
    """The parameters of all *sources*, later ones before earlier ones, under a chat's names."""
    rules = schema("jan", "Parameters")
    merged: Json = {}
    for source in sources:
        given = {k: v for k, v in (source or {}).items() if v is not None and k in rules.fields}
        if "token_limit" in given:
            given.setdefault("max_tokens", given["token_limit"])
        if "max_tokens" in given or "max_completion_tokens" in given:
            merged.pop("max_tokens", None), merged.pop("max_completion_tokens", None)
        merged |= given
    rules.check(merged)
    return {
        name: rules.whole(name, value) for name, value in merged.items() if name not in _NOT_CHAT
    }


def _last_messages(strategy: Mapping[str, Any]) -> int | None:
    if strategy.get("type") != "last_messages":
        return None
    count: int | None = strategy.get("last_messages")
    if count is None:
        raise InvalidRequest(
            "truncation_strategy/last_messages is required",
            field="truncation_strategy/last_messages",
            allowed="1 or more",
        )
    return int(count)


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, harmless in _HARMLESS.items():
        if name in body and not harmless(body[name]):
            raise Unsupported(
                f"{name} {shorten(body[name])} is not supported on this route",
                field=name,
                value=shorten(body[name]),
            )
