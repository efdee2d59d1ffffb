"""Details of an answer for those who ask: settings, prompt, counts and timings, as llama.cpp and
Jan name them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nitrolib.engine.request import Completion, GenerationRequest, Progress, Timings
    from nitrolib.gguf import Vocabulary

__all__ = ["details", "progress", "select", "settings", "text", "timings", "wanted"]

# Fields that neither Nitro nor OpenAI knows: who sends one reads the details.
_TELLING = frozenset(
    {
        "cache_prompt",
        "context_policy",
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
        "id_slot",
        "json_schema",
        "n_indent",
        "n_keep",
        "n_predict",
        "post_sampling_probs",
        "response_fields",
        "return_progress",
        "return_tokens",
        "samplers",
        "t_max_predict_ms",
        "timings_per_token",
        "top_n_sigma",
        "typical_p",
        "xtc_probability",
        "xtc_threshold",
    }
)


def wanted(body: Mapping[str, Any]) -> bool:
    """Whether the answer to *body* has details: `verbose` says so, else the fields it uses do."""
    return bool(body.get("verbose", not _TELLING.isdisjoint(body)))


def details(
    results: Sequence[Completion],
    request: GenerationRequest,
    vocabulary: Vocabulary,
    *,
    stream: bool,
) -> dict[str, Any]:
    """What an answer of one or more choices has besides the choices. Settings are those of the
    first: the others have the seeds after it. The prompt is that of the tokens evaluated, control
    tokens by their names."""
    first = results[0]
    return {
        "generation_settings": settings(request, seed=first.seed, stream=stream),
        "prompt": text(first.prompt_token_ids, vocabulary),
        "truncated": any(one.truncated for one in results),
        "tokens_cached": min(one.usage.cached_tokens for one in results),
        "tokens_evaluated": first.usage.prompt_tokens,
        "timings": timings(_sum([one.timings for one in results]), choices=len(results)),
    }


def settings(request: GenerationRequest, *, seed: int | None, stream: bool) -> dict[str, Any]:
    """llama.cpp's `generation_settings`; *seed* is the one in use, where it is known."""
    params = request.params
    limit = -1 if params.max_tokens is None else params.max_tokens
    return {
        "seed": params.seed if seed is None else seed,
        "temperature": params.temperature,
        "dynatemp_range": params.dynatemp_range,
        "dynatemp_exponent": params.dynatemp_exponent,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "top_n_sigma": params.top_n_sigma,
        "xtc_probability": params.xtc_probability,
        "xtc_threshold": params.xtc_threshold,
        "typical_p": params.typical_p,
        "repeat_last_n": params.repeat_last_n,
        "repeat_penalty": params.repeat_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "dry_multiplier": params.dry_multiplier,
        "dry_base": params.dry_base,
        "dry_allowed_length": params.dry_allowed_length,
        "dry_penalty_last_n": params.dry_penalty_last_n,
        "dry_sequence_breakers": list(params.dry_sequence_breakers),
        "mirostat": params.mirostat,
        "mirostat_tau": params.mirostat_tau,
        "mirostat_eta": params.mirostat_eta,
        "stop": list(params.stop),
        "max_tokens": limit,
        "n_predict": limit,
        "n_indent": params.n_indent,
        "t_max_predict_ms": params.t_max_predict_ms,
        "ignore_eos": params.ignore_eos,
        "stream": stream,
        "logit_bias": [
            {"bias": None if bias == -math.inf else bias, "token": token}
            for token, bias in params.logit_bias
        ],
        "n_probs": params.n_probs,
        "min_keep": params.min_keep,
        "grammar": params.grammar or "",
        "json_schema": None if params.json_schema is None else json.loads(params.json_schema),
        "samplers": list(params.order),
        "cache_prompt": request.cache_prompt,
        "id_slot": request.id_slot,
        "timings_per_token": request.timings_per_token,
        "post_sampling_probs": params.post_sampling_probs,
        "lora": [{"id": number, "scale": scale} for number, scale in request.lora or ()],
    }


def text(ids: Sequence[int], vocabulary: Vocabulary) -> str:
    """The text of token ids, control tokens by their names; broken UTF-8 becomes U+FFFD."""
    names = {token: text.encode() for text, token in vocabulary.special.items()}
    return b"".join(names.get(one) or vocabulary.pieces[one] for one in ids).decode(
        errors="replace"
    )


def timings(spent: Timings, *, choices: int = 1) -> dict[str, Any]:
    """llama.cpp's `timings`. The first token of an answer comes with the prompt, so that the rates
    are those of one step less."""
    prompt_ms, predicted_ms = spent.prefill_s * 1000, spent.decode_s * 1000
    steps = max(spent.predicted_n - choices, 0)
    return {
        "cache_n": spent.cache_n,
        "prompt_n": spent.prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": _ratio(prompt_ms, spent.prompt_n),
        "prompt_per_second": _ratio(spent.prompt_n * 1000, prompt_ms),
        "predicted_n": spent.predicted_n,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": _ratio(predicted_ms, steps),
        "predicted_per_second": _ratio(steps * 1000, predicted_ms),
    }


def progress(done: Progress) -> dict[str, Any]:
    """llama.cpp's `prompt_progress`."""
    return {
        "total": done.total,
        "cache": done.cached,
        "processed": done.processed,
        "time_ms": done.time_s * 1000,
    }


def select(answer: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The parts of *answer* under *paths*, with the paths as names; those that lead nowhere are
    left out. Names are separated by "/", and places of arrays are numbers."""
    found = {}
    for path in paths:
        value: Any = answer
        for name in path.split("/"):
            value = _under(value, name)
            if value is _NOTHING:
                break
        else:
            found[path] = value
    return found


_NOTHING = object()


def _under(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, _NOTHING)
    if isinstance(value, list) and name.isascii() and name.isdigit() and len(name) < 10:
        return value[int(name)] if int(name) < len(value) else _NOTHING
    return _NOTHING


def _sum(all_spent: Sequence[Timings]) -> Timings:
    """Of choices: the prompt as the first one evaluated it, and the answers together."""
    return replace(
        all_spent[0],
        decode_s=sum(one.decode_s for one in all_spent),
        predicted_n=sum(one.predicted_n for one in all_spent),
    )


def _ratio(amount: float, by: float) -> float:
    return amount / by if by > 0 else 0.0
