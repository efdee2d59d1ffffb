"""Requests of the llama-server dialect: a body becomes GenerationRequests, one for each prompt, and
the form of their answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nitrolib.errors import Unsupported
from nitrolib.validation import shorten

from .. import bodies
from ..chat import params as chat_params
from ..chat.request import check_probs
from . import lora
from .answer import AnswerForm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nitrolib.engine.request import GenerationRequest
    from nitrolib.errors import InvalidRequest
    from nitrolib.prompt import Prompt

    from ..service import Lease

__all__ = ["Asked", "from_body", "own_field"]

# Fields that ask for something that is not done here, and the values that ask for nothing.
_REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "adaptive_target": lambda value: value < 0,
    "grammar_lazy": lambda value: not value,
    "grammar_triggers": lambda value: value == [],
    "n_discard": lambda value: value == 0,
    "preserved_tokens": lambda value: value == [],
}
# Fields that change no answer, or nothing without one that is refused.
_IGNORED = ("adaptive_decay", "backend_sampling", "n_cache_reuse", "stream_options", "verbose")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: a generation for each prompt, how many answers to each, and what
    they show."""

    requests: tuple[GenerationRequest, ...]
    n: int
    form: AnswerForm


def from_body(
    body: Mapping[str, Any],
    defaults: Mapping[str, Any],
    lease: Lease,
    prompts: Sequence[Prompt | tuple[int, ...]],
    notes: tuple[str, ...] = (),
) -> Asked:
    """What *body* asks of the model of *lease*; it is checked against the schema whose *defaults*
    are given.

    prompts: what it asks to continue. notes: what was cut while they were made.

    Raises InvalidRequest and Unsupported, and ModelNotLoaded where the model is gone.
    """
    _refuse_unsupported(body)
    bodies.ignore(*(name for name in _IGNORED if name in body))
    n: int = body.get("n_cmpl", body.get("n", defaults["n_cmpl"]))
    n_probs: int = body.get("n_probs", body.get("logprobs", defaults["n_probs"]))
    stream: bool = body.get("stream", defaults["stream"])
    request = _request(body, defaults, lease, prompts[0], n_probs, notes)
    if n_probs:
        check_probs(n_probs, request, n * len(prompts), lease, stream=stream)
    ping: int = body.get("sse_ping_interval", defaults["sse_ping_interval"])
    form = AnswerForm(
        request=request,
        model=lease.id,
        vocabulary=lease.engine.vocabulary,
        listed=n_probs,
        tokens=body.get("return_tokens", False),
        progress=body.get("return_progress", False),
        fields=tuple(body.get("response_fields", ())),
        silence_s=ping if ping > 0 else None,
    )
    # A stream tells the length of its prompt from the first event on: the progress knows it.
    asked = replace(request, return_progress=stream)
    return Asked(tuple(replace(asked, prompt=one) for one in prompts), n, form)


def own_field(error: InvalidRequest, body: Mapping[str, Any]) -> None:
    """Make an *error* of the engine call its field as the client called it."""
    if error.field == "n" and "n_cmpl" in body:
        error.field = "n_cmpl"
    elif error.field == "n_probs" and "n_probs" not in body:
        error.field = "logprobs"


def _request(
    body: Mapping[str, Any],
    defaults: Mapping[str, Any],
    lease: Lease,
    prompt: Prompt | tuple[int, ...],
    n_probs: int,
    notes: tuple[str, ...],
) -> GenerationRequest:
    from nitrolib.engine.request import GenerationRequest

    defaults = {**defaults, "max_tokens": defaults["n_predict"]}
    params = chat_params.sampling(
        body,
        defaults,
        replace(lease.profile, template=None),  # a template's stop words are those of chats
        logit_bias=chat_params.biases(body, lease.engine),
        n_probs=n_probs,
    )
    note = chat_params.limit(body, defaults)[1]
    return GenerationRequest(
        prompt=prompt,
        params=params,
        context_policy=body.get("context_policy", lease.profile.context_policy),
        n_keep=body.get("n_keep", 0),
        cache_prompt=body.get("cache_prompt", True),
        id_slot=_slot(body.get("id_slot", -1), lease),
        timings_per_token=body.get("timings_per_token", False),
        lora=lora.pairs(body["lora"], lease) if "lora" in body else None,
        notes=notes if note is None else (*notes, note),
    )


def _slot(asked: int, lease: Lease) -> int:
    return asked if asked < 0 else asked % lease.status.n_parallel


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, harmless in _REFUSED.items():
        if name in body and not harmless(body[name]):
            raise Unsupported(
                f"{name} {shorten(body[name])} is not supported",
                field=name,
                value=shorten(body[name]),
            )
