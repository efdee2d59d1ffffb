"""The forms in which requests write a logit bias."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FLOAT32_MAX = 3.4028234663852886e38
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")


def parse_logit_bias(
    value: Any, tokenize: Callable[[str], Sequence[int]], n_vocab: int
) -> tuple[tuple[int, float], ...]:
    """Pairs of token id and bias, for `SamplingParams.logit_bias`, of an object or a list of pairs.

    An object maps token ids (as decimal numbers) or texts to biases, {"15043": 1.5, " the": false};
    in a list of pairs, [[15043, 1.5], [" the", false]], an id is a number and any string is a text.
    Each token of a text gets the bias: *tokenize* gives its ids, without BOS and control tokens. A
    bias is a finite number (float32), or false for a ban. Ids may repeat: their biases add up.

    Raises InvalidRequest, naming the entry, for anything else, for an id outside 0 to *n_vocab* -
    1, and for a text that has no tokens: no entry is left out in silence.
    """
    if isinstance(value, dict):
        entries = [(f"logit_bias/{key}"[:200], _id_or_text(key), b) for key, b in value.items()]
    elif isinstance(value, list | tuple):
        entries = [_pair(f"logit_bias/{place}", pair) for place, pair in enumerate(value)]
    else:
        _refuse("logit_bias", value, "an object or a list of pairs")
    return tuple(
        (token_id, amount)
        for field, key, bias in entries
        for amount in (_amount(field, bias),)
        for token_id in _ids(field, key, tokenize, n_vocab)
    )


def _pair(field: str, pair: Any) -> tuple[str, Any, Any]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        _refuse(field, pair, "a pair of token id or text, and number or false")
    return field, pair[0], pair[1]


def _id_or_text(key: Any) -> Any:
    """Objects of JSON have texts for keys."""
    return int(key) if isinstance(key, str) and _WHOLE_NUMBER.fullmatch(key) else key


def _amount(field: str, bias: Any) -> float:
    if bias is False:
        return -math.inf
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        _refuse(field, bias, "a number, or false to ban the token")
    if not abs(bias) <= _FLOAT32_MAX:
        _refuse(field, bias, "a finite number, or false to ban the token")
    return float(bias)


def _ids(
    field: str, key: Any, tokenize: Callable[[str], Sequence[int]], n_vocab: int
) -> Iterator[int]:
    if isinstance(key, str):
        ids = tokenize(key)
        if not ids:
            _refuse(field, key, "a text that has tokens")
        yield from ids
    elif isinstance(key, int) and not isinstance(key, bool) and 0 <= key < n_vocab:
        yield key
    else:
        _refuse(field, key, f"for a text or a token id from 0 to {n_vocab - 1}")


def _refuse(field: str, value: Any, allowed: str) -> NoReturn:
    text = repr(value)[:200]
    raise InvalidRequest(
        f"{field} must be {allowed}, got {text}", field=field, value=value, allowed=allowed
    )
