"""The grammar library behind the Constraint protocol: tokenizers, limits, matchers.

The only module that touches llguidance, which is imported when a constraint is first compiled.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..errors import BackendError, InvalidRequest, Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from .constraint import TokenTexts

__all__ = ["GrammarError", "Matcher", "make_matcher", "make_tokenizer"]

_SPECIAL = b"\xff"  # how the library marks bytes that are no text


class GrammarError(Exception):
    """The library refused a grammar; the text is its reason."""


def library(field: str) -> ModuleType:
    """The module llguidance, or Unsupported naming the extra that brings it."""
    try:
        import llguidance
    except ImportError as error:
        raise Unsupported(
            f"{field} needs the package llguidance: pip install 'nitrolib[constraints]'",
            field=field,
            allowed="None, or the extra constraints installed",
        ) from error
    return llguidance


class _Tokens:
    """What LLTokenizer asks for. It calls a tokenizer only to force tokens, which is off."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, texts: TokenTexts) -> None:
        no_text = texts.control | texts.eog
        self.tokens = [
            _SPECIAL + b"%d" % token
            if token in no_text or piece.startswith((b"\0", _SPECIAL))
            else piece
            for token, piece in enumerate(texts.pieces)
        ]
        self.eog = sorted(texts.eog)
        if not self.eog:  # the library needs one; no model can say it
            self.eog = [len(self.tokens)]
            self.tokens.append(_SPECIAL + b"end")
        self.eos_token_id = self.eog[0]

    def __call__(self, _text: bytes) -> list[int]:
        raise BackendError("the grammar library asked for a tokenization")


def make_tokenizer(texts: TokenTexts, field: str) -> Any:
    """The library's tokenizer of a vocabulary (about 4 us a token; keep it)."""
    tokens = _Tokens(texts)
    return library(field).LLTokenizer(tokens, eos_token=tokens.eog)


MAX_MASK_SECONDS = 2.0
"""A mask that takes longer ends the request, since the next one may too."""

STACK_BYTES = 64 << 20
MAX_ITEMS = {"json_schema": 10_000, "lark": 10_000, "grammar": 2_000}
"""Parser items at one position, by kind of source. Time is quadratic in them where a grammar is
ambiguous; schemas, alone or in rules, are hardly, and have some for every optional property."""


def make_matcher(tokenizer: Any, lark: str, texts: TokenTexts, field: str, kind: str) -> Matcher:
    """Compile Lark rules. Raises GrammarError for what the library refuses or warns of, and for a
    grammar that no token of the vocabulary can begin.

    The library recurses from rule to rule, and a stack that is used up would end the process: so
    this happens in a thread of its own with a stack for the longest way that the sizes of sources
    allow.
    """
    found: list[Matcher | BaseException] = []

    def work() -> None:
        try:
            found.append(_make_matcher(tokenizer, lark, texts, field, kind))
        except BaseException as error:  # noqa: BLE001  (raised again by the caller's thread)
            found.append(error)

    thread = threading.Thread(target=work, name="nitrolib-grammar")
    with _STACK_LOCK:  # the size is the process's, so it is set for the moment of starting only
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


_STACK_LOCK = threading.Lock()


def _make_matcher(tokenizer: Any, lark: str, texts: TokenTexts, field: str, kind: str) -> Matcher:
    module = library(field)
    # They bound time (some 20 ms of building a lexer, at worst 100 ms a mask) and memory (about
    # 100 MB of lexer states at the very most, shared by all matchers of one grammar).
    limits = module.LLParserLimits(
        max_items_in_row=MAX_ITEMS[kind],
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=1_000_000,
        step_max_items=1_000_000,
        max_lexer_states=50_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )
    # Without no_forcing a mask would hold one tokenization of what must follow, not all.
    source = '%llguidance {"no_forcing": true}\n' + lark
    try:
        matcher = module.LLMatcher(tokenizer, source, log_level=0, limits=limits)
        if matcher.is_error():
            raise GrammarError(_reason(matcher.get_error()))
        warnings = matcher.get_grammar_warnings()
        if warnings:
            raise GrammarError(_reason(str(warnings[0])))
        found = Matcher(matcher, texts)
        if not (found.may_end or found.mask().any()):
            raise GrammarError("no token of this model can begin an answer")
    except BackendError as error:
        raise GrammarError(error.message) from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise GrammarError("the grammar library failed") from error
    return found


def _reason(text: str) -> str:
    """The first line of the library's message, without where in our own text it happened."""
    line = text.strip().split("\n")[0]
    if "Unable to determine if regex is empty" in line:
        return "patterns too complex to be enforced"
    return line.rpartition("failed to compile JSON schema: ")[2][:300]


class Matcher:
    """Where one answer stands in its grammar: the Constraint protocol. Not thread-safe."""

    def __init__(self, matcher: Any, texts: TokenTexts) -> None:
        self._matcher = matcher
        self._texts = texts
        self._n_vocab = len(texts.pieces)
        self._eog = texts.eog
        n_words = (max(self._n_vocab, int(not texts.eog) + self._n_vocab) + 31) // 32
        self._words = np.zeros(n_words, np.int32)
        self._ended = False
        self._failed = [False]

    def copy(self) -> Matcher:
        """An independent matcher in the same state (about 3 us). What is alike for all answers,
        the lexer, is shared, and so is whether it `failed`."""
        copy = Matcher(self._matcher.deep_copy(), self._texts)
        copy._failed = self._failed
        return copy

    @property
    def failed(self) -> bool:
        """Whether a copy met an error: the lexer they share may have reached its limit for good."""
        return self._failed[0]

    @property
    def may_end(self) -> bool:
        """Whether the answer is complete as it stands: an end-of-generation token is legal."""
        return bool(self._matcher.is_accepting())

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._ended or (self._matcher.is_stopped() and self._matcher.is_accepting())

    def allows(self, token: int) -> bool:
        """Whether *token* may come next (under a microsecond)."""
        if token in self._eog:
            return self.may_end
        if self._ended or not 0 <= token < self._n_vocab:
            return False
        try:
            return bool(self._matcher.validate_tokens([token]))
        except BaseException as error:
            if not _is_panic(error):
                raise
            raise BackendError("the grammar library failed") from error

    def accept(self, token: int) -> None:
        """Note that *token* was chosen; BackendError if it is not legal here."""
        if token in self._eog:
            if not self.may_end:
                raise BackendError("the answer ended before its grammar allowed it")
            self._ended = True
            return
        if self._ended or not 0 <= token < self._n_vocab:
            raise BackendError(f"token {token} is not legal under the grammar")
        try:
            if self._matcher.consume_token(token):
                return
        except BaseException as error:
            if not _is_panic(error):
                raise
            raise BackendError("the grammar library failed") from error
        self._fail(f"the grammar does not take token {token}")

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, (n_vocab,) bool, a new array. All False at the end of a
        vocabulary without end-of-generation tokens; BackendError where the grammar is stuck."""
        if self._ended:
            mask = np.zeros(self._n_vocab, np.bool_)
            mask[list(self._eog)] = True
            return mask
        words = self._words
        started = time.monotonic()
        try:
            self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        except BaseException as error:
            if not _is_panic(error):
                raise
            raise BackendError("the grammar library failed") from error
        if self._matcher.is_error():
            self._fail("the grammar cannot go on")
        if time.monotonic() - started > MAX_MASK_SECONDS:
            raise BackendError("the grammar is too ambiguous: a mask took too long")
        bits = np.unpackbits(words.view(np.uint8), count=self._n_vocab, bitorder="little")
        return bits.view(np.bool_)

    def _fail(self, what: str) -> NoReturn:
        self._failed[0] = True
        raise BackendError(f"{what}: {_reason(self._matcher.get_error())}")


def _is_panic(error: BaseException) -> bool:
    """Whether the library's native code panicked: that ends a request, not the process. The class
    is no Exception and can be imported from nowhere."""
    return type(error).__name__ == "PanicException"


def refused(error: GrammarError, field: str, **facts: Any) -> InvalidRequest:
    """The InvalidRequest for a grammar that the library refuses."""
    return InvalidRequest(f"{field}: {error}", field=field, **facts)
