"""Text completions of the OpenAI dialect: a body becomes requests, one for each prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

from ..chat import params as chat_params
from ..chat.request import check_probs, lora, own_field
from .completion_answer import TextCompletion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nitrolib.engine import Engine
    from nitrolib.engine.request import GenerationRequest
    from nitrolib.prompt import Prompt

    from ..service import Lease

__all__ = ["from_body", "own_field"]


def from_body(body: Mapping[str, Any], defaults: Mapping[str, Any], lease: Lease) -> TextCompletion:
    """The completions that *body* asks of the model of *lease*; it is checked against the schema
    whose *defaults* are given.

    Raises InvalidRequest and Unsupported, and ModelNotLoaded where the model is gone.
    """
    n, made, listed = body.get("n", 1), _made(body), _listed(body)
    _refuse_unsupported(body, listed)
    # Without lists the answers are ranked by the probabilities of the tokens themselves.
    n_probs = max(listed or 0, 1) if listed is not None or made > n else 0
    given = _prompts(body.get("prompt", ""))
    request = _request(body, defaults, lease, n_probs)
    if n_probs:
        answers = made * len(given)
        check_probs(n_probs, request, answers, lease, stream=body.get("stream", False))
    return TextCompletion(
        model=lease.id,
        requests=tuple(replace(request, prompt=_prompt(one)) for one in given),
        made=made,
        n=n,
        echoes=tuple(_text(one, lease.engine) if body.get("echo") else "" for one in given),
        listed=listed,
        vocabulary=lease.engine.vocabulary,
        tokens=body.get("return_tokens", False),
        verbose=body.get("verbose", False),
        usage_event=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def _made(body: Mapping[str, Any]) -> int:
    """Answers to make to each prompt."""
    n: int = body.get("n", 1)
    best_of: int = body.get("best_of", n)
    if best_of < n or (best_of > n and body.get("stream")):
        raise InvalidRequest(
            f"best_of {best_of} does not go with "
            + (f"n {n}" if best_of < n else "stream: the best is known at the end"),
            field="best_of",
            value=best_of,
            allowed="n or more, and n alone in a stream",
        )
    return best_of


def _listed(body: Mapping[str, Any]) -> int | None:
    """Tokens in the log probabilities of each step; None is no log probabilities."""
    given: int | None = body.get("logprobs")
    n_probs: int = body.get("n_probs", 0)
    if n_probs and given is not None and given != n_probs:
        raise InvalidRequest(
            "logprobs and n_probs differ",
            field="n_probs",
            value=n_probs,
            allowed="the same number, or one of the two",
        )
    return given if given is not None else n_probs or None


def _refuse_unsupported(body: Mapping[str, Any], listed: int | None) -> None:
    reasons = {
        "suffix": body.get("suffix") and "nothing is inserted before a suffix",
        "echo": body.get("echo") and listed is not None and "a prompt has no log probabilities",
        "multimodal_data": body.get("multimodal_data") and "only texts are read",
    }
    for name, reason in reasons.items():
        if reason:
            raise Unsupported(
                f"{name} {shorten(body[name])} is not supported here: {reason}",
                field=name,
                value=shorten(body[name]),
            )
    if body.get("post_sampling_probs") and listed is None:
        raise InvalidRequest(
            "post_sampling_probs needs logprobs",
            field="post_sampling_probs",
            value=True,
            allowed="logprobs beside it",
        )


def _prompts(given: Any) -> list[str | list[int]]:
    """The prompts, each a text or token ids."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], (str, list)):
        return [one if isinstance(one, str) else _ids(one) for one in given]
    return [_ids(given)]


def _ids(items: list[Any]) -> list[int]:
    return list(map(int, items))  # 5.0 is a whole number to the schema


def _prompt(one: str | list[int]) -> Prompt | tuple[int, ...]:
    """The client writes the whole prompt, so that control tokens are its to write too."""
    from nitrolib.prompt import Prompt, Segment

    return Prompt((Segment(one, special=True),)) if isinstance(one, str) else tuple(one)


def _text(one: str | list[int], engine: Engine) -> str:
    return one if isinstance(one, str) else engine.detokenize(one)


def _request(
    body: Mapping[str, Any], defaults: Mapping[str, Any], lease: Lease, n_probs: int
) -> GenerationRequest:
    """What all prompts have in common; the prompt is still to be put in."""
    from nitrolib.engine.request import GenerationRequest
    from nitrolib.prompt import Prompt

    # Stop words of chats, and the template's, are not those of a raw text.
    profile = replace(lease.profile, template=None, stop=())
    params = chat_params.sampling(
        body,
        defaults,
        profile,
        logit_bias=chat_params.biases(body, lease.engine),
        n_probs=n_probs,
    )
    note = chat_params.limit(body, defaults)[1]
    return GenerationRequest(
        prompt=Prompt(()),
        params=params,
        context_policy=body.get("context_policy", profile.context_policy),
        n_keep=body.get("n_keep", 0),
        cache_prompt=body.get("cache_prompt", True),
        id_slot=body.get("id_slot", -1),
        timings_per_token=body.get("timings_per_token", False),
        lora=lora(body),
        notes=() if note is None else (note,),
    )
