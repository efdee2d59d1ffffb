"""Microseconds per token that a constraint adds to sampling, and what making one costs.

    python tests/benchmarks/bench_constraints.py [--runs 9]

One answer is sampled token by token with the default chain, with and without a constraint, in the
same run; every figure is the median over the runs of the difference of a run's medians, in CPU time
of the one thread. "follows" is a model that writes what the constraint allows, so that no mask is
made; "strays" is one whose every draw is refused, so that every token costs a mask and a second
draw. The vocabulary is made up of bytes and of words, spaces, quotes and punctuation as real ones
have them. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nitrolib.sampling import Sampler, SamplingParams
from nitrolib.sampling.constraint import CompiledConstraint, compile_source, forget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nitrolib.sampling.constraint import Kind

VOCABULARIES = (32_000, 152_064)
_SYLLABLES = [a + b for a in ("", *"bcdfghlmnprst") for b in ("a", "e", "i", "o", "an", "er", "in")]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 5},
        "address": {
            "type": ["object", "null"],
            "properties": {"street": {"type": "string"}, "zip": {"pattern": "^[0-9]{5}$"}},
            "required": ["street"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}
JSON_TEXT = (
    '{"name": "Ada of the Lovelace", "age": 36, "email": "ada@example.com", '
    '"tags": ["red", "blue"], "address": {"street": "12 St James\'s Square, London, the first '
    'house on the left when coming from the station", "zip": "12345"}}'
)
GRAMMAR = r"""
root ::= "{" ws pair ("," ws pair)* "}"
pair ::= string ":" ws value
value ::= string | number | "[" ws (value ("," ws value)*)? "]" | root | "null"
string ::= "\"" [^"\\\x00-\x1f]* "\""
number ::= [0-9]{1,9} ("." [0-9]+)?
ws ::= " "?
"""


@dataclass(frozen=True, eq=False)
class MadeUp:
    """A vocabulary of *n* tokens."""

    n: int
    pieces: Sequence[bytes] = field(init=False)
    control: frozenset[int] = field(init=False)
    eog: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        words = {bytes((value,)): None for value in range(256)}
        words |= dict.fromkeys((b'": "', b'", "', b'{"', b'"}', b'":', b'",', b'": '))
        while len(words) < self.n - 1:
            word = "".join(rng.choice(_SYLLABLES, rng.integers(1, 5)))
            shape = rng.random()
            word = f" {word}" if shape < 0.5 else word.capitalize() if shape < 0.6 else word
            word = f"{word}.," if shape > 0.97 else f'"{word}' if shape > 0.94 else word
            words[(" " * int(rng.integers(2, 12)) if shape > 0.99 else "").encode()
                  + word.encode()] = None  # fmt: skip
        object.__setattr__(self, "pieces", (*list(words)[: self.n - 1], b""))
        object.__setattr__(self, "control", frozenset((self.n - 1,)))
        object.__setattr__(self, "eog", frozenset((self.n - 1,)))

    def tokens(self, text: str) -> list[int]:
        """The longest pieces, from the left."""
        ids = {piece: token for token, piece in enumerate(self.pieces)}
        rest, found = text.encode(), []
        while rest:
            size = next(n for n in range(min(16, len(rest)), 0, -1) if rest[:n] in ids)
            found.append(ids[rest[:size]])
            rest = rest[size:]
        return found


class Script(NamedTuple):
    """What the model of one run says: rows of logits, and the tokens of the answer."""

    rows: list[np.ndarray]
    tokens: list[int]


def script(vocabulary: MadeUp, *, strays: bool) -> Script:
    """Rows that favour the next token of the answer or, straying, fifty others that are illegal."""
    rng = np.random.default_rng(1)
    tokens = vocabulary.tokens(JSON_TEXT)
    rows = []
    for token in tokens:
        row = rng.normal(0, 2, vocabulary.n).astype(np.float32)
        row[token] += 16
        if strays:
            row[:9] = 40  # control characters: legal nowhere
        rows.append(row)
    return Script(rows, tokens)


def per_token(made: Callable[[], Sampler], said: Script) -> float:
    """Median microseconds of a token, sampling and accepting, over one answer."""
    sampler = made()
    taken = []
    for row, token in zip(said.rows, said.tokens, strict=True):
        started = time.thread_time_ns()
        sampler.sample(row)
        sampler.accept((token,))
        taken.append(time.thread_time_ns() - started)
    return statistics.median(taken) / 1000


def added(vocabulary: MadeUp, compiled: CompiledConstraint, said: Script, runs: int) -> float:
    params = SamplingParams(repeat_penalty=1, seed=1)
    differences = []
    for _ in range(runs):
        free = per_token(lambda: Sampler(params, vocabulary.n, 4096), said)
        bound = per_token(
            lambda: Sampler(params, vocabulary.n, 4096, constraint=compiled.start()), said
        )
        differences.append(bound - free)
    return statistics.median(differences)


def compile_ms(vocabulary: MadeUp, kind: Kind, source: str, runs: int) -> float:
    """Compiling alone: a space more each time, so that nothing is found ready."""
    taken = []
    for run in range(runs):
        started = time.thread_time_ns()
        compile_source(kind, source + " " * (run + 1), vocabulary)
        taken.append(time.thread_time_ns() - started)
    return statistics.median(taken) / 1e6


def measure(n_vocab: int, runs: int) -> dict[str, float]:
    vocabulary = MadeUp(n_vocab)
    started = time.thread_time()
    compile_source("json_schema", "{}", vocabulary)
    figures = {"first use of a vocabulary, ms": (time.thread_time() - started) * 1000}
    follows, strays = script(vocabulary, strays=False), script(vocabulary, strays=True)
    sources: list[tuple[str, Kind, str]] = [
        ("schema", "json_schema", json.dumps(SCHEMA)),
        ("grammar", "grammar", GRAMMAR),
    ]
    for name, kind, source in sources:
        compiled = compile_source(kind, source, vocabulary)
        figures[f"{name}: compile, ms"] = compile_ms(vocabulary, kind, source, runs)
        figures[f"{name}: follows, us a token"] = added(vocabulary, compiled, follows, runs)
        figures[f"{name}: strays, us a token"] = added(vocabulary, compiled, strays, runs)
    forget(vocabulary)
    return {name: round(value, 1) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    figures = {n_vocab: measure(n_vocab, runs) for n_vocab in VOCABULARIES}
    print(f"{'added by a constraint':<36}" + "".join(f"{n:>12}" for n in figures))
    for name in figures[VOCABULARIES[0]]:
        print(f"{name:<36}" + "".join(f"{rows[name]:>12.1f}" for rows in figures.values()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
