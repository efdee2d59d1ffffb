"""Constraints: grammars and JSON schemas that an answer must follow, token by token.

    compiled = compile_constraint(params, vocabulary)   # once a request, cached
    constraint = compiled.start()                       # once an answer
    constraint.allows(token), constraint.accept(token)  # once a token

The sampler draws first and asks `allows`; only a refused draw costs a `mask` and a second draw. An
answer that is `finished` is complete: it should end there, with "stop", also where
`ignore_eos` bans every end-of-generation token. One that is cut off (length, cancelled) while
`may_end` is False is incomplete and must be reported so.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import InvalidRequest
from .constraint_gbnf import translate_gbnf
from .constraint_matcher import GrammarError, Matcher, make_matcher, make_tokenizer, refused
from .constraint_schema import Checked, check_schema, parse_schema
from .legality import Constraint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .params import SamplingParams

__all__ = [
    "JSON_OBJECT",
    "CompiledConstraint",
    "Constraint",
    "Kind",
    "TokenTexts",
    "compile_constraint",
    "compile_source",
    "forget",
    "json_rule",
]

Kind = Literal["grammar", "json_schema", "lark"]

JSON_OBJECT = '{"type": "object"}'
"""The schema of response_format json_object."""

MAX_COMPILED = 32
"""Compiled constraints kept for one vocabulary, the last used ones."""

MAX_VOCABULARIES = 4
MAX_LARK_BYTES = 1_048_576


class TokenTexts(Protocol):
    """What is needed of a vocabulary, as nitrolib.gguf.Vocabulary has it."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """Bytes that each token adds to a text."""

    @property
    def control(self) -> frozenset[int]:
        """Tokens without a text."""

    @property
    def eog(self) -> frozenset[int]:
        """Tokens that end a generation."""


class CompiledConstraint:
    """A grammar over a vocabulary, shared between threads and answers."""

    def __init__(self, make: Callable[[], Matcher]) -> None:
        self._make = make
        self._matcher = make()

    def start(self) -> Constraint:
        """A constraint at the beginning of an answer, independent of all others (about 5 us).

        The lexer that answers share grows with what they explore, up to a limit; where an answer
        failed, the next one begins with a fresh lexer (and may raise as compiling does)."""
        if self._matcher.failed:
            self._matcher = self._make()
        return self._matcher.copy()


def compile_constraint(params: SamplingParams, vocabulary: TokenTexts) -> CompiledConstraint | None:
    """The constraint that *params* ask for, or None.

    Raises InvalidRequest with the facts `field` ("grammar" or "json_schema") and `line` (grammar)
    or `pointer` (schema: a JSON pointer into it), and Unsupported where llguidance is missing.
    """
    if params.grammar:
        if params.json_schema is not None:
            raise InvalidRequest(
                "grammar and json_schema cannot be used together",
                field="grammar",
                value=params.grammar[:200],
                allowed="one of grammar and json_schema",
            )
        return compile_source("grammar", params.grammar, vocabulary)
    if params.json_schema is not None:
        return compile_source("json_schema", params.json_schema, vocabulary)
    return None


def compile_source(
    kind: Kind, source: str, vocabulary: TokenTexts, field: str | None = None
) -> CompiledConstraint:
    """Compile *source*: GBNF ("grammar"), JSON text of a schema ("json_schema"), or rules in the
    Lark dialect of llguidance with root `start` ("lark", from our own code; see `json_rule`).
    *field* is what errors name, *kind* itself where None. Cached; thread-safe."""
    return _grammars(vocabulary, field or kind).compile(kind, source, field or kind)


def json_rule(schema: Any, field: str = "json_schema") -> str:
    """*schema*, a parsed JSON schema, as the right side of a Lark rule: `call: <json_rule(...)>`.
    Raises InvalidRequest as `compile_source` does for what is not enforced."""
    return check_schema(schema, field).lark()


def forget(vocabulary: TokenTexts) -> None:
    """Drop what is kept for *vocabulary*: its model was unloaded."""
    with _LOCK:
        _KEPT.pop(id(vocabulary), None)


_LOCK = threading.Lock()
_KEPT: OrderedDict[int, _Grammars] = OrderedDict()  # each holds its vocabulary, so ids stay its own


def _grammars(vocabulary: TokenTexts, field: str) -> _Grammars:
    with _LOCK:
        found = _KEPT.get(id(vocabulary))
        if found is None:
            found = _KEPT[id(vocabulary)] = _Grammars(vocabulary, field)
            if len(_KEPT) > MAX_VOCABULARIES:
                _KEPT.popitem(last=False)
        _KEPT.move_to_end(id(vocabulary))
        return found


class _Grammars:
    """What is compiled for one vocabulary, the last used ones."""

    def __init__(self, vocabulary: TokenTexts, field: str) -> None:
        self._vocabulary = vocabulary
        self._tokenizer = make_tokenizer(vocabulary, field)
        self._lock = threading.Lock()
        self._compiled: OrderedDict[bytes, CompiledConstraint] = OrderedDict()

    def compile(self, kind: Kind, source: str, field: str) -> CompiledConstraint:
        text = f"{kind}\0{source}".encode("utf-8", "surrogatepass")
        key = hashlib.sha256(text).digest()
        with self._lock:
            found = self._compiled.get(key)
            if found is not None:
                self._compiled.move_to_end(key)
                return found
        # Outside the lock: a slow grammar holds up nobody but whoever sent it.
        made = CompiledConstraint(lambda: self._make(kind, source, field))
        with self._lock:
            self._compiled[key] = made
            if len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return made

    def _make(self, kind: Kind, source: str, field: str) -> Matcher:
        if kind == "json_schema":
            return self._schema(check_schema(parse_schema(source, field), field), field)
        if kind == "lark" and len(source) > MAX_LARK_BYTES:
            raise InvalidRequest(
                f"{field} is too large", field=field, allowed=f"at most {MAX_LARK_BYTES} characters"
            )
        lark = translate_gbnf(source, field) if kind == "grammar" else source
        try:
            return make_matcher(self._tokenizer, lark, self._vocabulary, field, kind)
        except GrammarError as error:
            raise refused(error, field, value=source[:200], line=1) from error

    def _schema(self, checked: Checked, field: str) -> Matcher:
        def make(part: Checked) -> Matcher:
            lark = f"start: {part.lark()}\n"
            return make_matcher(self._tokenizer, lark, self._vocabulary, field, "json_schema")

        def fails(part: Checked) -> bool:
            try:
                make(part)
            except GrammarError:
                return True
            return False

        try:
            return make(checked)
        except GrammarError as error:
            pointer = checked.locate(fails)
            raise refused(
                error, field, value=json.dumps(checked.schema)[:200], pointer=pointer
            ) from error
