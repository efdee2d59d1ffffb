"""What a backend may be handed: a `Rule`, and the `Candidate` file that its checks look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .types import ARRAY, VALUE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .model import ModelInfo
    from .reader import GGUFFile, Metadata

__all__ = ["Candidate", "KeyRule", "Rule"]

TOKENS = "tokenizer.ggml.tokens"
SCORES = "tokenizer.ggml.scores"
TYPES = "tokenizer.ggml.token_type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a backend may be handed.

    backend: its name; instead: one that may run sound files which this one cannot, if there is any.
    architectures: values of general.architecture. checks: applied in order, each raises
        ModelFileError; a later one may rely on an earlier one.
    """

    backend: str
    instead: str | None
    architectures: frozenset[str]
    checks: tuple[Callable[[Candidate], None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """What one metadata key must be. Keys beginning with "." belong to the architecture.

    type: the exact value type. check: whether a value of it will do; gets the model too.
    allowed: the check in words; "{info...}" is filled in.
    unsupported: a value that fails is sound, and only this backend cannot honour it.
    """

    key: str
    type: int
    allowed: str
    check: Callable[[Any, ModelInfo], bool] = lambda _value, _info: True
    required: bool = False
    unsupported: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sound file that is looked at for one backend."""

    file: GGUFFile
    info: ModelInfo
    rule: Rule

    @property
    def metadata(self) -> Metadata:
        return self.file.metadata

    def full(self, key: str) -> str:
        """The key with the architecture before it, where it begins with a dot."""
        return self.info.architecture + key if key.startswith(".") else key

    def fail(self, message: str, *, key: str | None = None, tensor: str | None = None) -> NoReturn:
        """The file is damaged."""
        self.file.fail(message, key=key, tensor=tensor)

    def refuse(
        self, message: str, *, key: str | None = None, tensor: str | None = None
    ) -> NoReturn:
        """The file is sound and not for this backend."""
        instead = self.rule.instead
        self.file.fail(
            f"{message}; {instead} may run it" if instead else message,
            key=key,
            tensor=tensor,
            unsupported=True,
            backend=self.rule.backend,
            instead=instead,
        )

    def check_keys(self, rules: tuple[KeyRule, ...]) -> None:
        """Apply the rules in order."""
        for rule in rules:
            key = self.full(rule.key)
            if key in self.metadata:
                self._check_key(key, rule)
            elif rule.required:
                self.fail("the key is missing", key=key)

    def _check_key(self, key: str, rule: KeyRule) -> None:
        entry = self.metadata.entry(key)
        if entry.type != rule.type:
            message = f"its type is {entry.type_name}; {VALUE_NAMES[rule.type]} is expected"
            if entry.type == ARRAY:  # a value for every layer: newer models have that
                self.refuse(message, key=key)
            self.fail(message, key=key)
        value = self.metadata[key]
        if not rule.check(value, self.info):
            allowed = rule.allowed.format(info=self.info)
            message = f"the value is {value!r}; {allowed} is what {self.rule.backend} can run"
            if rule.unsupported:
                self.refuse(message, key=key)
            self.fail(message, key=key)

    def tokenizer(self) -> str:
        """The kind of tokenizer; raises where the file names none."""
        if "tokenizer.ggml.model" not in self.metadata:
            self.fail("the key is missing", key="tokenizer.ggml.model")
        return self.info.tokenizer

    def checked_types(self) -> NDArray[Any]:
        """The types of the tokens, all of them such as exist."""
        types = self.metadata.numbers(TYPES)
        wrong = np.flatnonzero((types < 1) | (types > 6))
        if wrong.size:
            self.fail(f"token {wrong[0]} has type {types[wrong[0]]}; 1 to 6 exist", key=TYPES)
        return types

    def check_scores(self) -> None:
        not_numbers = np.flatnonzero(np.isnan(self.metadata.numbers(SCORES)))
        if not_numbers.size:
            self.fail(f"the score of token {not_numbers[0]} is not a number", key=SCORES)

    def check_all_bytes(self, found: set[int]) -> None:
        """`found` are the bytes that have a token."""
        missing = sorted(set(range(256)) - found)
        if missing:
            self.fail(
                f"{len(missing)} of the 256 byte tokens are missing, the first is "
                f"<0x{missing[0]:02X}>",
                key=TOKENS,
            )

    def check_no_nul(self, texts: Sequence[bytes]) -> None:
        """C ends a text at its first NUL."""
        if 0 in b"".join(texts):
            token = next(token for token, text in enumerate(texts) if 0 in text)
            self.refuse(f"the text of token {token} holds a NUL", key=TOKENS)


def is_token_id(key: str) -> bool:
    """Whether the key names a token by its id."""
    return key.startswith("tokenizer.ggml.") and key.endswith("_token_id")


def listed(names: frozenset[str]) -> str:
    """Names for a message."""
    return ", ".join(sorted(names))
