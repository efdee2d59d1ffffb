"""The names by which requests call the samplers of the chain."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import InvalidRequest
from .params import SAMPLER_NAMES

_LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
    "i": "infill",
    "a": "adaptive_p",
}
_ALIASES = {
    alias: name
    for name in sorted(SAMPLER_NAMES)
    for alias in (name, name.replace("_", "-"), name.replace("_", ""))
}
_ALIASES |= {"nucleus": "top_p", "temp": "temperature"}
_ALIASES |= dict.fromkeys(("typ", "typical", "typical-p", "typical_p"), "typ_p")


def parse_samplers(value: Any) -> tuple[str, ...]:
    """Canonical names, for `SamplingParams.samplers`, of a list of names or a string of letters.

    Names may be spelled with "-" or nothing for "_" ("top-k", "topk"), in any case; "nucleus",
    "temp", "typ", "typical", "typical-p" and "typical_p" are known too. A string stands for one
    sampler a letter ("kpt"): e penalties, d dry, s top_n_sigma, k top_k, y typ_p, p top_p, m min_p,
    x xtc, t temperature, i infill, a adaptive_p. Order and repetitions are kept. Raises
    InvalidRequest for anything else: no sampler is left out in silence.
    """
    if isinstance(value, str):
        return tuple(_LETTERS.get(letter) or _refuse("samplers", value) for letter in value)
    if not isinstance(value, list | tuple):
        _refuse("samplers", value)
    return tuple(
        (_ALIASES.get(name.lower()) if isinstance(name, str) else None)
        or _refuse(f"samplers/{place}", name)
        for place, name in enumerate(value)
    )


def _refuse(field: str, value: Any) -> NoReturn:
    text = repr(value)[:200]
    allowed = f"names among {', '.join(sorted(SAMPLER_NAMES))}, or letters of {''.join(_LETTERS)}"
    raise InvalidRequest(
        f"{field} must be {allowed}, got {text}", field=field, value=value, allowed=allowed
    )
