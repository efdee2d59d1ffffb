"""Sampling of a chat: the fields of a body become SamplingParams."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, ModelNotLoaded, Unsupported
from nitrolib.validation import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nitrolib.engine import Engine
    from nitrolib.sampling import SamplingParams

    from ..profile import Profile

__all__ = ["biases", "constraint", "limit", "sampling"]

# Fields that SamplingParams has too, and those it knows by another name.
_SAMPLING = (
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dynatemp_exponent",
    "dynatemp_range",
    "frequency_penalty",
    "ignore_eos",
    "min_keep",
    "min_p",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "n_indent",
    "post_sampling_probs",
    "presence_penalty",
    "repeat_last_n",
    "repeat_penalty",
    "seed",
    "t_max_predict_ms",
    "temperature",
    "top_k",
    "top_n_sigma",
    "top_p",
    "typ_p",
    "xtc_probability",
    "xtc_threshold",
)
_RENAMED = {"typ_p": "typical_p"}

MAX_BIAS_TEXT = 256  # characters: native code turns them into tokens, and cannot be interrupted

# The names of the limit, the first that is given decides.
_LIMITS = ("n_predict", "max_completion_tokens", "max_tokens")


def sampling(
    body: Mapping[str, Any],
    defaults: Mapping[str, Any],
    profile: Profile,
    *,
    logit_bias: tuple[tuple[int, float], ...] = (),
    n_probs: int = 0,
) -> SamplingParams:
    """The sampling of a chat; what it leaves out has the dialect's default."""
    from nitrolib.sampling import SamplingParams, parse_samplers

    values = {**defaults, **body}
    if "repeat_last_n" not in body and profile.repeat_last_n is not None:
        values["repeat_last_n"] = profile.repeat_last_n
    values["typ_p"] = _typical_p(body, defaults)
    grammar, json_schema = constraint(body)
    return SamplingParams(
        **{_RENAMED.get(name, name): values[name] for name in _SAMPLING},
        dry_sequence_breakers=tuple(values["dry_sequence_breakers"]),
        samplers=parse_samplers(body["samplers"]) if "samplers" in body else None,
        grammar=grammar,
        json_schema=json_schema,
        max_tokens=limit(body, defaults)[0],
        stop=_stops(body, profile),
        logit_bias=logit_bias,
        n_probs=n_probs,
    )


def limit(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """Most tokens of the answer (None is no limit), and a note about a limit that was given and
    does not count."""
    given = [name for name in _LIMITS if name in body]
    most = body[given[0]] if given else defaults["max_tokens"]
    unused = [name for name in given[1:] if body[name] != most]
    note = f"{' and '.join(unused)} not used: {given[0]} goes before" if unused else None
    return (None if most == -1 else most), note


def biases(body: Mapping[str, Any], engine: Engine) -> tuple[tuple[int, float], ...]:
    """The logit biases, texts among them turned into tokens of the loaded model."""
    given = body.get("logit_bias")
    if not given:
        return ()
    from nitrolib.sampling import parse_logit_bias

    model = engine.status().model
    if model is None:
        raise ModelNotLoaded
    return parse_logit_bias(given, partial(_tokens, engine), model.n_vocab)


def _tokens(engine: Engine, text: str) -> list[int]:
    if len(text) > MAX_BIAS_TEXT:
        raise InvalidRequest(
            f"logit_bias has a text of {len(text)} characters",
            field="logit_bias",
            value=shorten(text),
            allowed=f"texts of at most {MAX_BIAS_TEXT} characters",
        )
    return engine.tokenize(text)


def constraint(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The grammar and the JSON schema that the answer must follow; at most one of them is there."""
    asked = {
        "grammar": body.get("grammar") or None,
        "json_schema": _text(body["json_schema"]) if "json_schema" in body else None,
        "response_format": _response_schema(body.get("response_format") or {}),
    }
    names = [name for name, value in asked.items() if value is not None]
    if len(names) > 1:
        raise InvalidRequest(
            f"{' and '.join(names)} rule each other out",
            field=names[1],
            value=shorten(body[names[1]]),
            allowed="one of grammar, json_schema and response_format",
        )
    return asked["grammar"], asked["json_schema"] or asked["response_format"]


def _response_schema(form: Mapping[str, Any]) -> str | None:
    kind = form.get("type") or "text"
    if kind == "text":
        return None
    any_object = {"type": "object"}
    if kind == "json_object":
        return _text(form.get("schema") or any_object)
    if kind == "json_schema":
        named = form.get("json_schema") or {}
        return _text(named.get("schema") or any_object)
    raise Unsupported(
        f"response_format/type {shorten(kind)} is not supported",
        field="response_format/type",
        value=shorten(kind),
        allowed="text, json_object or json_schema",
    )


def _text(schema: Any) -> str:
    return json.dumps(schema, ensure_ascii=False)


def _typical_p(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> float:
    given = {body[name] for name in ("typ_p", "typical_p") if name in body}
    if len(given) > 1:
        raise InvalidRequest(
            "typ_p and typical_p differ",
            field="typical_p",
            value=body["typical_p"],
            allowed="the same number, or one of the two",
        )
    value: float = given.pop() if given else defaults["typ_p"]
    return value


def _stops(body: Mapping[str, Any], profile: Profile) -> tuple[str, ...]:
    """The request's own stop words (else those of the load), then the template's."""
    from nitrolib.sampling import clean_stops

    own = body.get("stop", profile.stop)
    words = [own] if isinstance(own, str) else own
    ends = () if profile.template is None else profile.template.stops
    return clean_stops([*words, *ends])
