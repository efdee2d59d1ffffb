"""SamplingParams: how one answer is sampled and where it ends, validated once.

The fields, defaults and ranges are those of the CreateChatCompletionDto that the server must
accept. Dialects translate into it; nothing else does. Where llama.cpp clamps a value in silence,
this class refuses it: no request is silently altered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT_SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
"""What runs, in this order, when `samplers` is None."""

SAMPLER_NAMES = frozenset(DEFAULT_SAMPLERS) | {"infill", "adaptive_p"}

MAX_STOP_CHARACTERS = 65_536
"""All stop strings of one request together: the matcher needs about 200 bytes a character."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Parameters of one generation. Frozen; change one with `dataclasses.replace`.

    Numbers must be finite in float32, and whole numbers fit 32 bits, `seed` apart. A value of the
    wrong type or out of range raises InvalidRequest with the facts `field`, `value`, `allowed`.

    Field (default), range, meaning:

    temperature (0.8), 0 or more: divides the logits; 0 is greedy, the most likely token.
    dynatemp_range (0), 0 or more: the temperature moves by up to this much with the entropy.
    dynatemp_exponent (1), 0 or more: how it moves.
    top_k (40), -1 or more: keep the k largest logits; 0 and -1 are off.
    top_p (0.95), 0 to 1: keep the fewest tokens whose probabilities reach it; 1 is off.
    min_p (0.05), 0 to 1: drop tokens less likely than this times the best; 0 is off.
    typical_p (1), 0 to 1: keep the most typical tokens up to this probability; 1 is off.
    top_n_sigma (-1), any: keep logits within n standard deviations of the best; 0 or less is off.
    xtc_probability (0), 0 to 1: the chance to exclude the top choices; 0 is off.
    xtc_threshold (0.1), 0 to 1: the probability that makes a top choice; above 0.5 is off.
    repeat_penalty (1.1), above 0, its inverse finite in float32: divides positive and multiplies
        other logits of tokens in the window; 1 is off.
    repeat_last_n (64), -1 or more: the window, in tokens of prompt and answer; 0 is off, -1 is the
        context length of the slot.
    frequency_penalty (0), any: subtracted once for each time the token is in the window.
    presence_penalty (0), any: subtracted once if it is there at all.
    dry_multiplier (0), any: strength of the penalty on repeated sequences; 0 is off.
    dry_base (1.75), 1 or more: it grows by this factor for each token of the repetition
    dry_allowed_length (2), 0 or more: beyond this many tokens,
    dry_penalty_last_n (-1), -1 or more: looked for in a window of its own, as `repeat_last_n`,
    dry_sequence_breakers (newline, colon, double quote, asterisk): never across one of these; at
        least one string.
    mirostat (0), 0, 1 or 2: the version of Mirostat to run instead of the chain; 0 is off.
    mirostat_tau (5), 0 or more: its target surprise in bits.
    mirostat_eta (0.1), 0 or more: its learning rate.
    min_keep (0), 0 or more: top_p, min_p, typical_p and xtc leave at least this many tokens.
    samplers (None): canonical names of the chain's samplers in the order they run; a sampler that
        is not named does not run. None is DEFAULT_SAMPLERS.
    seed (-1), any whole number, taken modulo 2**32: -1 (and so 4294967295) draws a fresh one.
    logit_bias (()): pairs of token id (0 or more) and bias; biases add to the raw logit, repeated
        ids add up, -inf bans the token.
    ignore_eos (False): never end at an end-of-generation token; all of them are banned.
    n_probs (0), 0 or more: probabilities to return with every token; 0 is off.
    post_sampling_probs (False): take them after the chain instead of from the raw logits.
    grammar (None): GBNF that the answer must follow; None or "" is off.
    json_schema (None): JSON text of a schema it must follow; not together with `grammar`.
    max_tokens (None), 0 or more: most tokens to sample; 0 evaluates the prompt and samples none,
        None is as many as the context holds.
    stop (()): strings, none of them empty, that end the answer before they are part of it; 65,536
        characters together.
    n_indent (0), 0 or more: end at a line, other than the first, that is indented by fewer spaces
        and tabs than this; 0 is off.
    t_max_predict_ms (0), -1 or more: end with the first newline later than this after the first
        token; 0 and -1 are off.
    """

    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.1
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    min_keep: int = 0
    samplers: tuple[str, ...] | None = None
    seed: int = -1
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    n_probs: int = 0
    post_sampling_probs: bool = False
    grammar: str | None = None
    json_schema: str | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n_indent: int = 0
    t_max_predict_ms: int = 0

    def __post_init__(self) -> None:
        for field, rule in _RULES.items():
            value = getattr(self, field)
            if not rule.holds(value):
                raise _refusal(field, value, rule.allowed)
        if self.grammar and self.json_schema is not None:
            raise _refusal("grammar", self.grammar, "one of grammar and json_schema, not both")

    @property
    def order(self) -> tuple[str, ...]:
        """The chain's samplers in the order they run, those that are off included."""
        return DEFAULT_SAMPLERS if self.samplers is None else self.samplers


def clean_stops(stops: Iterable[str]) -> tuple[str, ...]:
    """The stop strings without empty ones and repetitions, in order of first appearance: for a
    dialect that accepts those (an empty stop string would match at once)."""
    return tuple(dict.fromkeys(stop for stop in stops if stop != ""))


def _refusal(field: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field} must be {allowed}, got {_shown(value)}", field=field, value=value, allowed=allowed
    )


def _shown(value: Any) -> str:
    if _is_int(value) and value.bit_length() > 512:
        return f"a number of {value.bit_length()} bits"  # Python refuses to print the longest ones
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


class _Rule(NamedTuple):
    """When a value is right, and the same in words."""

    holds: Callable[[Any], bool]
    allowed: str


_INT32_MAX = 2**31 - 1
_FLOAT32_MAX = 3.4028234663852886e38


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Finite in float32, the type of the logits; an int will do."""
    return (isinstance(value, float) or _is_int(value)) and abs(value) <= _FLOAT32_MAX


def _whole(least: int, most: int = _INT32_MAX) -> _Rule:
    return _Rule(
        lambda value: _is_int(value) and least <= value <= most,
        f"a whole number from {least} to {most}",
    )


def _real(least: float = -math.inf, most: float = math.inf) -> _Rule:
    bounds = {
        (False, False): "",
        (True, False): f", {least:g} or more",
        (True, True): f" from {least:g} to {most:g}",
    }[math.isfinite(least), math.isfinite(most)]
    return _Rule(
        lambda value: _is_finite(value) and least <= value <= most, f"a finite number{bounds}"
    )


def _is_strings(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _is_invertible(value: Any) -> bool:
    return _is_finite(value) and 1 / _FLOAT32_MAX <= value <= _FLOAT32_MAX


def _is_bias(value: Any) -> bool:
    """A pair of a token id and a number that is finite in float32, or -inf."""
    if not (isinstance(value, tuple) and len(value) == 2):
        return False
    token_id, bias = value
    return (
        _is_int(token_id)
        and 0 <= token_id <= _INT32_MAX
        and (_is_finite(bias) or bias == -math.inf)
    )


_FLAG = _Rule(lambda value: isinstance(value, bool), "True or False")
_TEXT = _Rule(lambda value: value is None or isinstance(value, str), "a string or None")

_RULES = {
    "temperature": _real(0),
    "dynatemp_range": _real(0),
    # A negative exponent would leave the range [t - r, t + r], and divide by zero at entropy 0.
    "dynatemp_exponent": _real(0),
    "top_k": _whole(-1),
    "top_p": _real(0, 1),
    "min_p": _real(0, 1),
    "typical_p": _real(0, 1),
    "top_n_sigma": _real(),
    "xtc_probability": _real(0, 1),
    "xtc_threshold": _real(0, 1),
    "repeat_penalty": _Rule(_is_invertible, "a number above 0, finite in float32 as its inverse"),
    "repeat_last_n": _whole(-1),
    "frequency_penalty": _real(),
    "presence_penalty": _real(),
    "dry_multiplier": _real(),
    "dry_base": _real(1),
    "dry_allowed_length": _whole(0),
    "dry_penalty_last_n": _whole(-1),
    "dry_sequence_breakers": _Rule(
        lambda value: _is_strings(value) and len(value) > 0, "a tuple of at least one string"
    ),
    "mirostat": _whole(0, 2),
    "mirostat_tau": _real(0),
    "mirostat_eta": _real(0),
    "min_keep": _whole(0),
    "samplers": _Rule(
        lambda value: value is None or (_is_strings(value) and SAMPLER_NAMES.issuperset(value)),
        f"None or a tuple of names among {', '.join(sorted(SAMPLER_NAMES))}",
    ),
    "seed": _Rule(_is_int, "a whole number"),
    "logit_bias": _Rule(
        lambda value: isinstance(value, tuple) and all(map(_is_bias, value)),
        "a tuple of pairs (token id of 0 or more, finite number or -inf)",
    ),
    "ignore_eos": _FLAG,
    "n_probs": _whole(0),
    "post_sampling_probs": _FLAG,
    "grammar": _TEXT,
    "json_schema": _TEXT,
    "max_tokens": _Rule(
        lambda value: value is None or (_is_int(value) and 0 <= value <= _INT32_MAX),
        f"None or a whole number from 0 to {_INT32_MAX}",
    ),
    "stop": _Rule(
        lambda value: (
            _is_strings(value) and all(value) and sum(map(len, value)) <= MAX_STOP_CHARACTERS
        ),
        f"a tuple of strings, none empty, at most {MAX_STOP_CHARACTERS} characters together",
    ),
    "n_indent": _whole(0),
    "t_max_predict_ms": _whole(-1),
}
