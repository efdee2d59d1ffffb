"""Answers of a model that knows nothing, under a constraint: logits drawn anew for every token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonschema import Draft202012Validator, FormatChecker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nitrolib.sampling.constraint import CompiledConstraint

_WORDS = (
    b'{"', b'"}', b'":', b'": ', b'", "', b'"]', b"[]", b"{}", b"},", b"],", b", ", b"  ", b"\n  ",
    b"true", b"false", b"null", b"tru", b"12", b"2024", b"-0", b"0.5", b"e+", b"a", b"the", b" of",
    b"cat", b"value ", b"abc", b"\\n", b'\\"', "é".encode(), "日".encode(), "🙂".encode()[:2],
    "\u0085".encode(), "\ufeff".encode(), "٣".encode(), "²".encode(), b"\xff", b"\x00ab",
)  # fmt: skip


@dataclass(frozen=True)
class RandomVocabulary:
    """The 256 bytes, pieces of several bytes (some cut characters), a control token, two ends."""

    pieces: Sequence[bytes] = (
        *(bytes((value,)) for value in range(256)),
        *_WORDS,
        b"",
        b"",
        b"<|end|>",
    )
    control: frozenset[int] = frozenset((256 + len(_WORDS), 257 + len(_WORDS)))
    eog: frozenset[int] = frozenset((257 + len(_WORDS), 258 + len(_WORDS)))


VOCABULARY = RandomVocabulary()
_CLOSERS = np.array(
    [2.0 * piece.endswith((b'"', b"}", b"]", b"e", b"l")) for piece in VOCABULARY.pieces]
)


@dataclass(frozen=True)
class Answer:
    text: bytes
    finished: bool  # by itself; False: cut at the limit
    refusals: int  # draws that the constraint refused


def answer(
    compiled: CompiledConstraint, seed: int, limit: int = 600, vocabulary: Any = VOCABULARY
) -> Answer:
    """Draw, ask, and draw again under the mask where refused, at temperature 1.5. What closes
    something becomes likelier with the length, or most answers would go on to the limit."""
    rng = np.random.default_rng(seed)
    constraint = compiled.start()
    text = b""
    refusals = 0
    n_vocab = len(vocabulary.pieces)
    for length in range(limit):
        if constraint.finished:
            return Answer(text, True, refusals)
        logits = rng.normal(0, 3, n_vocab).astype(np.float32)
        logits += (0.5 + length / 40) * _CLOSERS.astype(np.float32)
        token = _draw(logits, rng)
        if not constraint.allows(token):
            refusals += 1
            mask = constraint.mask()
            assert not mask[token]
            token = _draw(np.where(mask, logits, -np.inf), rng)
            assert mask[token]
            assert constraint.allows(token)
        constraint.accept(token)
        if token in vocabulary.eog:
            return Answer(text, True, refusals)
        text += vocabulary.pieces[token]
    return Answer(text, False, refusals)


def _draw(logits: np.ndarray[Any, Any], rng: np.random.Generator) -> int:
    """Gumbel-max at temperature 1.5."""
    return int((logits / 1.5 + rng.gumbel(size=logits.size)).argmax())


CHECKER = FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.A)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@CHECKER.checks("time")
def is_time(value: object) -> bool:
    return not isinstance(value, str) or _TIME.fullmatch(value) is not None


@CHECKER.checks("date-time")
def is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    date, _, time = value.partition("T")
    return CHECKER.conforms(date, "date") and is_time(time)


@CHECKER.checks("hostname")
def is_hostname(value: object) -> bool:
    return not isinstance(value, str) or (
        0 < len(value) <= 253 and all(_LABEL.fullmatch(label) for label in value.split("."))
    )


@CHECKER.checks("duration")
def is_duration(value: object) -> bool:
    if not isinstance(value, str):
        return True
    whole = re.fullmatch(
        r"P(?:\d+W|(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?:\d+H)?(?:\d+M)?(?:\d+S)?)?)", value, re.A
    )
    return whole is not None and value[-1] not in "PT"


@CHECKER.checks("uri")
def is_uri(value: object) -> bool:
    return not isinstance(value, str) or (
        re.fullmatch(
            r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
            r"(?:#(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?",
            value,
        )
        is not None
    )


def problems(schema: Any, value: Any) -> list[str]:
    """What jsonschema says is wrong with *value*, formats included."""
    validator = Draft202012Validator(schema, format_checker=CHECKER)
    return [error.message for error in validator.iter_errors(value)]
