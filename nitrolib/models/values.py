"""Values of model.json in every spelling it has had: numbers and booleans may be texts."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PARAMETERS", "SETTINGS", "group", "seconds", "text"]

_LARGEST = 1 << 53
_MILLISECONDS = 10**11  # larger times are not in seconds: as seconds they are the year 5138


def text(value: Any, field: str) -> str:
    """A text; "" for null."""
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(field, value, "a text")
    return value


def whole(value: Any, field: str) -> int:
    """A whole number, also as a text or as 4096.0."""
    found = number(value, field)
    if not float(found).is_integer() or abs(found) > _LARGEST:
        raise _wrong(field, value, "a whole number")
    return int(found)


def number(value: Any, field: str) -> int | float:
    """A finite number, also as a text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise _wrong(field, value, "a number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(field, value, "a number")
    if abs(value) > _LARGEST or math.isnan(value):
        raise _wrong(field, value, "a number")
    return value


def flag(value: Any, field: str) -> bool:
    """A boolean, also as a text."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise _wrong(field, value, "true or false")
    return value


def texts(value: Any, field: str) -> tuple[str, ...]:
    """A list of texts, or a single one; empty ones are left out."""
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, (list, tuple)):
        raise _wrong(field, value, "a list of texts")
    return tuple(one for one in (text(one, field) for one in several) if one)


def seconds(value: Any, field: str) -> int:
    """A time in whole Unix seconds, also when it is given in milliseconds."""
    found = whole(value, field)
    return found // 1000 if found > _MILLISECONDS else found


SETTINGS: Mapping[str, Callable[[Any, str], Any]] = {
    "ctx_len": whole,
    "ngl": whole,
    "embedding": flag,
    "n_parallel": whole,
    "cpu_threads": whole,
    "prompt_template": text,
    "pre_prompt": text,
    "system_prompt": text,
    "user_prompt": text,
    "ai_prompt": text,
    "llama_model_path": text,
    "mmproj": text,
    "cont_batching": flag,
}

PARAMETERS: Mapping[str, Callable[[Any, str], Any]] = {
    "temperature": number,
    "top_p": number,
    "top_k": whole,
    "stream": flag,
    "max_tokens": whole,
    "token_limit": whole,
    "stop": texts,
    "frequency_penalty": number,
    "presence_penalty": number,
}


def group(value: Any, field: str, kinds: Mapping[str, Callable[[Any, str], Any]]) -> dict[str, Any]:
    """An object of settings or parameters with typed values; what *kinds* does not know stays as it
    is. null, and "" where no text is meant, count as absent."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(field, value, "an object")
    typed: dict[str, Any] = {}
    for name, one in value.items():
        kind = kinds.get(name)
        if one is None or (one == "" and kind is not text and kind is not None):
            continue
        typed[name] = one if kind is None else kind(one, f"{field}.{name}")
    return typed


def _wrong(field: str, value: Any, allowed: str) -> InvalidRequest:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return InvalidRequest(
        f"{field} must be {allowed}, got {shown}", field=field, value=value, allowed=allowed
    )
