"""Chat of the Nitro dialect: a body becomes a GenerationRequest, chunks become its answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

from .ids import random_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Completion, GenerationRequest, Usage
    from nitrolib.prompt import Message
    from nitrolib.sampling import SamplingParams

    from .service import Profile

__all__ = ["completion", "events", "from_body", "sampling"]

# Fields that SamplingParams has too, and those it knows by another name.
_SAMPLING = (
    "dynatemp_exponent",
    "dynatemp_range",
    "frequency_penalty",
    "ignore_eos",
    "min_keep",
    "min_p",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "presence_penalty",
    "repeat_last_n",
    "repeat_penalty",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "typ_p",
)
_RENAMED = {"typ_p": "typical_p"}

_NO_CHOICE = ("auto", "none")
# Fields that ask for something this dialect does not do, and the values that ask for nothing.
_REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "audio": lambda _value: False,
    "function_call": lambda value: value in _NO_CHOICE,
    "functions": lambda value: value == [],
    "grammar_file": lambda value: value == "",
    "logprobs": lambda value: value is False,
    "modalities": lambda value: value == ["text"],
    "n": lambda value: value == 1,
    "n_probs": lambda value: value == 0,
    "prediction": lambda _value: False,
    "prompt": lambda _value: False,
    "response_format": lambda value: value.get("type") in (None, "text"),
    "tool_choice": lambda value: value in _NO_CHOICE,
    "tools": lambda value: value == [],
    "top_logprobs": lambda value: value == 0,
}


def from_body(
    body: Mapping[str, Any], defaults: Mapping[str, Any], profile: Profile
) -> GenerationRequest:
    """The request in *body*, already checked against the schema whose *defaults* are given."""
    from nitrolib.engine.request import GenerationRequest

    _refuse_unsupported(body)
    prompt = profile.template.render(_messages(body["messages"]))
    params = sampling(body, defaults, profile)
    return GenerationRequest(prompt=prompt, params=params, kind="chat", strip_leading_space=True)


def sampling(
    body: Mapping[str, Any], defaults: Mapping[str, Any], profile: Profile
) -> SamplingParams:
    """The sampling of a chat; what it leaves out has the dialect's default."""
    from nitrolib.sampling import SamplingParams

    values = {**defaults, **body}
    if "repeat_last_n" not in body and profile.repeat_last_n is not None:
        values["repeat_last_n"] = profile.repeat_last_n
    return SamplingParams(
        **{_RENAMED.get(name, name): values[name] for name in _SAMPLING},
        grammar=body.get("grammar") or None,
        max_tokens=_max_tokens(body, defaults),
        stop=_stops(body, profile),
        logit_bias=_logit_bias(body.get("logit_bias", {})),
    )


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, harmless in _REFUSED.items():
        if name in body and not harmless(body[name]):
            raise Unsupported(
                f"{name} {shorten(body[name])} is not supported on this route",
                field=name,
                value=shorten(body[name]),
            )


def _messages(items: list[Mapping[str, Any]]) -> list[Message]:
    from nitrolib.prompt import Message

    messages = []
    for index, item in enumerate(items):
        if item.get("tool_calls"):
            field = f"messages/{index}/tool_calls"
            raise Unsupported("tool calls are not supported on this route", field=field)
        content = _content(item.get("content"), f"messages/{index}/content")
        messages.append(Message(item.get("role") or "", content))
    return messages


def _content(content: Any, field: str) -> str:
    """Content of a message as text: null is empty, text parts are joined as they are."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(_part(part, f"{field}/{index}") for index, part in enumerate(content))


def _part(part: Mapping[str, Any], field: str) -> str:
    if part["type"] != "text":
        kind = part["type"]
        raise Unsupported(
            f"{field} has type {shorten(kind)}, and only text parts are supported",
            field=f"{field}/type",
            value=shorten(kind),
            allowed="text",
        )
    if "text" not in part:
        raise InvalidRequest(f"{field}/text is required", field=f"{field}/text", allowed="a text")
    return str(part["text"])


def _max_tokens(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> int | None:
    given = {body[name] for name in ("max_tokens", "max_completion_tokens") if name in body}
    if len(given) > 1:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens differ",
            field="max_completion_tokens",
            value=body["max_completion_tokens"],
            allowed="the same number, or one of the two",
        )
    limit: int = given.pop() if given else defaults["max_tokens"]
    return None if limit == -1 else limit


def _stops(body: Mapping[str, Any], profile: Profile) -> tuple[str, ...]:
    """The request's own stop words (else those of the load), then the template's."""
    from nitrolib.sampling import clean_stops

    own = body.get("stop", profile.stop)
    words = [own] if isinstance(own, str) else own
    return clean_stops([*words, *profile.template.stops])


def _logit_bias(given: Any) -> tuple[tuple[int, float], ...]:
    pairs = given.items() if isinstance(given, dict) else enumerate(given)
    if isinstance(given, dict):
        return tuple(_bias(key, bias, f"logit_bias/{key}") for key, bias in pairs)
    return tuple(_bias_pair(pair, f"logit_bias/{index}") for index, pair in pairs)


def _bias_pair(pair: Any, field: str) -> tuple[int, float]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise InvalidRequest(
            f"{field} must be a pair of token id and number, got {shorten(pair)}",
            field=field,
            value=shorten(pair),
            allowed="[token id, number or false]",
        )
    return _bias(pair[0], pair[1], field)


def _bias(key: Any, bias: Any, field: str) -> tuple[int, float]:
    if isinstance(key, str) and not (key.isascii() and key.isdigit() and len(key) < 10):
        raise Unsupported(
            f"{field}: a text in place of a token id is not supported",
            field=field,
            value=shorten(key),
            allowed="a token id",
        )
    if isinstance(key, bool) or not isinstance(key, int | str) or int(key) < 0:
        raise InvalidRequest(
            f"{field} must be for a token id, got {shorten(key)}",
            field=field,
            value=shorten(key),
            allowed="a token id",
        )
    if bias is False:
        return int(key), float("-inf")
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        raise InvalidRequest(
            f"{field} must be a number or false, got {shorten(bias)}",
            field=field,
            value=shorten(bias),
            allowed="a number, or false to forbid the token",
        )
    return int(key), float(bias)


def completion(result: Completion) -> dict[str, Any]:
    """The whole answer as one JSON object."""
    choice = {
        "finish_reason": result.finish_reason,
        "index": 0,
        "message": {"content": result.text, "role": "assistant"},
    }
    answer = {
        "choices": [choice],
        "created": int(time.time()),
        "id": random_id(),
        "model": "_",
        "object": "chat.completion",
        "system_fingerprint": "_",
        "usage": _usage(result.usage),
    }
    return {**answer, "warnings": list(result.notes)} if result.notes else answer


def events(generation: Generation, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """The answer as stream events: text as it comes, then the finish reason, then, if asked for,
    the usage. The role stands in the first of them."""
    fixed = {
        "created": int(time.time()),
        "id": random_id(),
        "model": "_",
        "object": "chat.completion.chunk",
    }
    delta: dict[str, Any] = {"role": "assistant"}
    for chunk in generation:
        if chunk.text:
            yield {"choices": [_choice({"content": chunk.text, **delta}, None)], **fixed}
            delta = {}
        if chunk.finish_reason is not None:
            last = {"choices": [_choice(delta, chunk.finish_reason)], **fixed}
            notes = generation.request.notes
            yield {**last, "warnings": list(notes)} if notes else last
        if chunk.usage is not None and include_usage:
            yield {"choices": [], **fixed, "usage": _usage(chunk.usage)}


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"delta": delta, "finish_reason": finish_reason, "index": 0}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
