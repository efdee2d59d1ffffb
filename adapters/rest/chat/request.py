"""The request of a chat: a body becomes a GenerationRequest and the form of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

from . import details, probs
from . import params as chat_params
from .answer import AnswerForm
from .prompt import Conversation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nitrolib.engine.request import GenerationRequest

    from ..service import Lease
    from .answer import AnswerStyle

__all__ = ["Chat", "check_probs", "from_body", "lora", "own_field"]

_NO_CHOICE = ("auto", "none")
# Fields that ask for something that is not done here, and the values that ask for nothing.
_REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "audio": lambda _value: False,
    "function_call": lambda value: value in _NO_CHOICE,
    "functions": lambda value: value == [],
    "grammar_file": lambda value: value == "",
    "modalities": lambda value: value == ["text"],
    "multimodal_data": lambda value: value == [],
    "prediction": lambda _value: False,
    "prompt": lambda _value: False,
}


@dataclass(frozen=True, slots=True)
class Chat:
    """What a chat asks for: a request, how many answers to it, and what they show."""

    request: GenerationRequest
    n: int
    form: AnswerForm


def from_body(
    body: Mapping[str, Any],
    defaults: Mapping[str, Any],
    lease: Lease,
    style: AnswerStyle,
    *,
    stream: bool,
) -> Chat:
    """The chat in *body*, already checked against the schema whose *defaults* are given, with the
    model of *lease*; *style* is what the answer looks like.

    Raises InvalidRequest and Unsupported, and ModelNotLoaded where the model is gone.
    """
    _refuse_unsupported(body)
    n: int = body.get("n", 1)
    listed = probs.asked(body)
    conversation = Conversation(body, lease.template, lease.engine)
    request = _request(body, defaults, lease, conversation, listed)
    if listed:
        check_probs(listed, request, n, lease, stream=stream)
    form = AnswerForm(
        request=request,
        probs=listed,
        tokens=body.get("return_tokens", False),
        vocabulary=lease.engine.vocabulary if details.wanted(body) else None,
        fields=tuple(body.get("response_fields", ())),
        usage_event=bool((body.get("stream_options") or {}).get("include_usage")),
        plan=conversation.plan,
        style=style,
        model=lease.id if style.model is None else style.model,
    )
    return Chat(request, n, form)


def own_field(error: InvalidRequest, body: Mapping[str, Any]) -> None:
    """Make an *error* of the engine call its field as the client called it."""
    if error.field == "prompt" and "prompt" not in body:
        error.field = "messages"
    elif error.field == "json_schema" and "json_schema" not in body:
        error.field = "response_format"
        error.message = error.message.replace("json_schema", "response_format", 1)


def _request(
    body: Mapping[str, Any],
    defaults: Mapping[str, Any],
    lease: Lease,
    conversation: Conversation,
    listed: int | None,
) -> GenerationRequest:
    params = chat_params.sampling(
        body,
        defaults,
        lease.profile,
        logit_bias=chat_params.biases(body, lease.engine),
        n_probs=0 if listed is None else max(listed, 1),
    )
    plan, note = conversation.plan, chat_params.limit(body, defaults)[1]
    return lease.engine.chat_request(
        conversation.messages,
        params,
        conversation,
        body.get("context_policy", lease.profile.context_policy),
        n_keep=body.get("n_keep", 0),
        cache_prompt=body.get("cache_prompt", True),
        id_slot=body.get("id_slot", -1),
        timings_per_token=body.get("timings_per_token", False),
        return_progress=body.get("return_progress", False),
        lora=lora(body),
        constraint=plan.constraint,
        trigger=plan.trigger,
        shown=plan.shown,
        notes=plan.notes if note is None else (*plan.notes, note),
    )


def lora(body: Mapping[str, Any]) -> tuple[tuple[int, float], ...] | None:
    """The strengths of LoRA adapters; None is those in force. What is not loaded is refused."""
    if "lora" not in body:
        return None
    return tuple((int(one["id"]), float(one["scale"])) for one in body["lora"])


def check_probs(
    listed: int, request: GenerationRequest, n: int, lease: Lease, *, stream: bool
) -> None:
    """Raise InvalidRequest where `n` answers to *request*, with so many probabilities *listed* for
    every token, would be too large."""
    model = lease.status
    most = request.params.max_tokens
    tokens = model.n_ctx if most is None else most
    if request.context_policy != "shift":
        tokens = min(tokens, model.n_ctx)
    probs.check_amount(min(listed, model.n_vocab), tokens, n, stream=stream)


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, harmless in _REFUSED.items():
        if name in body and not harmless(body[name]):
            raise Unsupported(
                f"{name} {shorten(body[name])} is not supported on this route",
                field=name,
                value=shorten(body[name]),
            )
