"""verify(): proves, before native code sees a file, that it is sound and that a backend can run it.

Damage that leaves the header as it was, inside the weights, stays unseen: only a checksum finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .model import ModelInfo
from .reader import GGUFFile, open_gguf
from .types import ARRAY, F32, I32, U32, VALUE_NAMES
from .vocabulary import BYTE, NO_TOKEN, byte_value

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from .rules import KeyRule, Rule

__all__ = ["verify", "verify_file"]

_TOKENS = "tokenizer.ggml.tokens"
_SCORES = "tokenizer.ggml.scores"
_TYPES = "tokenizer.ggml.token_type"


def verify(
    path: str | os.PathLike[str], rule: Rule | None = None, *, fd: int | None = None
) -> ModelInfo:
    """Prove that a file is a sound model and, with a rule, that its backend may be handed it.

    With `fd` the open file behind that descriptor is read instead of opening `path`. Raises
    ModelFileError naming the key or tensor and the byte; its `unsupported` tells a sound file
    that this backend cannot run (`instead` names one that may) from a damaged one.
    """
    return verify_file(open_gguf(path, fd=fd), rule)


def verify_file(file: GGUFFile, rule: Rule | None = None) -> ModelInfo:
    """As `verify`, for a file that was opened already: open it once for ModelInfo, Vocabulary and
    this."""
    info = ModelInfo.from_gguf(file)
    _check_vocabulary(file)
    if rule is not None:
        _RuleCheck(file, info, rule).run()
    return info


def _check_vocabulary(file: GGUFFile) -> None:
    """What any backend relies on: arrays of one length, all keys of the types they must have."""
    metadata = file.metadata
    metadata.text("tokenizer.ggml.pre")
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        metadata.flag(f"tokenizer.ggml.{name}")
    for key in metadata:
        if _is_token_id(key):
            metadata.integer(key)
    if _TOKENS not in metadata:
        return
    n_tokens = len(metadata.strings(_TOKENS))
    for key, elements, words in (
        (_SCORES, {F32}, "an array of f32"),
        (_TYPES, {I32, U32}, "an array of i32"),
    ):
        if key not in metadata:
            continue
        entry = metadata.entry(key)
        if entry.element not in elements:
            file.fail(f"its type is {entry.type_name}; {words} is expected", key=key)
        if entry.count != n_tokens:
            file.fail(f"{entry.count} values for {n_tokens} tokens", key=key)


class _RuleCheck:
    """One file against one rule."""

    def __init__(self, file: GGUFFile, info: ModelInfo, rule: Rule) -> None:
        self.file, self.info, self.rule = file, info, rule
        self.metadata = file.metadata

    def run(self) -> None:
        self._path()
        self._whole_model()
        self._keys()
        self._unknown_keys()
        self._rope_scaling()
        self._tokenizer()
        self._tensors()

    def _refuse(
        self, message: str, *, key: str | None = None, tensor: str | None = None
    ) -> NoReturn:
        """The file is sound and not for this backend."""
        self.file.fail(
            f"{message}; {self.rule.instead} may run it",
            key=key,
            tensor=tensor,
            unsupported=True,
            backend=self.rule.backend,
            instead=self.rule.instead,
        )

    def _path(self) -> None:
        try:
            self.info.path.encode()
        except UnicodeEncodeError:
            self.file.fail(f"the path {self.info.path!a} is not valid UTF-8")

    def _whole_model(self) -> None:
        if self.info.split_count > 1:
            self._refuse(
                f"the model is cut into {self.info.split_count} files, and {self.rule.backend} "
                "reads one",
                key="split.count",
            )
        if self.info.architecture not in self.rule.architectures:
            self._refuse(
                f"{self.info.architecture!r} is not run by {self.rule.backend}, which knows "
                f"{_listed(self.rule.architectures)}",
                key="general.architecture",
            )

    def _full(self, key: str) -> str:
        return self.info.architecture + key if key.startswith(".") else key

    def _keys(self) -> None:
        for rule in self.rule.keys:
            key = self._full(rule.key)
            if key in self.metadata:
                self._key(key, rule)
            elif rule.required:
                self.file.fail("the key is missing", key=key)

    def _key(self, key: str, rule: KeyRule) -> None:
        entry = self.metadata.entry(key)
        if entry.type != rule.type:
            message = f"its type is {entry.type_name}; {VALUE_NAMES[rule.type]} is expected"
            if entry.type == ARRAY:  # a value for every layer: newer models have that
                self._refuse(message, key=key)
            self.file.fail(message, key=key)
        value = self.metadata[key]
        if not rule.check(value, self.info):
            allowed = rule.allowed.format(info=self.info)
            message = f"the value is {value!r}; {allowed} is what {self.rule.backend} can run"
            if rule.unsupported:
                self._refuse(message, key=key)
            self.file.fail(message, key=key)

    def _unknown_keys(self) -> None:
        prefix = f"{self.info.architecture}."
        known = {self._full(rule.key) for rule in self.rule.keys}
        known |= {self._full(key) for key in self.rule.ignored}
        for key in self.metadata:
            scaling = key.startswith(f"{prefix}rope.scaling.")
            if key.startswith(prefix) and key not in known and not scaling:
                self._refuse(f"{self.rule.backend} would ignore this key", key=key)

    def _rope_scaling(self) -> None:
        """The keys of today are ignored, so they must ask for no scaling."""
        prefix = f"{self.info.architecture}.rope.scaling."
        keys = [key for key in self.metadata if key.startswith(prefix)]
        if not keys:
            return
        kind = self.metadata.text(f"{prefix}type") or "linear"
        factor = self.metadata.number(f"{prefix}factor")
        harmless = {f"{prefix}{name}" for name in _SCALING_KEYS}
        if kind == "none":
            return
        if kind not in ("linear", "yarn") or factor not in (None, 1.0) or not harmless >= {*keys}:
            self._refuse(
                f"{self.rule.backend} would ignore rope scaling {kind!r} by factor {factor}",
                key=f"{prefix}type" if f"{prefix}type" in self.metadata else keys[0],
            )

    def _tokenizer(self) -> None:
        self._tokenizer_model()
        for key in (_TOKENS, _SCORES, _TYPES):
            if key not in self.metadata:
                self.file.fail("the key is missing", key=key)
        self._token_ids()
        types = self.metadata.numbers(_TYPES)
        wrong = np.flatnonzero((types < 1) | (types > 6))
        if wrong.size:
            self.file.fail(f"token {wrong[0]} has type {types[wrong[0]]}; 1 to 6 exist", key=_TYPES)
        not_numbers = np.flatnonzero(np.isnan(self.metadata.numbers(_SCORES)))
        if not_numbers.size:
            self.file.fail(f"the score of token {not_numbers[0]} is not a number", key=_SCORES)
        self._byte_tokens(np.flatnonzero(types == BYTE).tolist())
        self._token_texts(types)

    def _tokenizer_model(self) -> None:
        key = "tokenizer.ggml.model"
        if key not in self.metadata:
            self.file.fail("the key is missing", key=key)
        if self.info.tokenizer not in self.rule.tokenizers:
            self._refuse(
                f"tokenizer {self.info.tokenizer!r} is not known to {self.rule.backend}, which has "
                f"{_listed(self.rule.tokenizers)}",
                key=key,
            )

    def _token_ids(self) -> None:
        n_vocab = self.info.n_vocab
        for key in self.metadata:
            if not _is_token_id(key):
                continue
            entry = self.metadata.entry(key)
            if entry.type != U32:
                self.file.fail(f"its type is {entry.type_name}; u32 is expected", key=key)
            token = self.metadata[key]
            absent = token == NO_TOKEN and not key.endswith((".bos_token_id", ".eos_token_id"))
            if token >= n_vocab and not absent:
                self._refuse(f"the id is {token}, and there are {n_vocab} tokens", key=key)

    def _byte_tokens(self, byte_tokens: list[int]) -> None:
        """All 256, each of its type: the native tokenizer aborts on a byte it has no token for."""
        texts = self.metadata.strings(_TOKENS).raw()
        found = set()
        for token in byte_tokens:
            value = byte_value(texts[token])
            if value is None:
                self.file.fail(
                    f"token {token} is a byte token and its text {texts[token][:20]!r} is none of "
                    "<0x00> to <0xFF>",
                    key=_TYPES,
                )
            found.add(value)
        missing = sorted(set(range(256)) - found)
        if missing:
            self.file.fail(
                f"{len(missing)} of the 256 byte tokens are missing, the first is "
                f"<0x{missing[0]:02X}>",
                key=_TOKENS,
            )

    def _token_texts(self, types: NDArray[Any]) -> None:
        """The native library finds a token by what C reads of its text, and the last one with
        that text wins: one of another type, or with a NUL, would take the place of another."""
        texts = self.metadata.strings(_TOKENS).raw()
        if 0 in b"".join(texts):
            token = next(token for token, text in enumerate(texts) if 0 in text)
            self._refuse(f"the text of token {token} holds a NUL", key=_TOKENS)
        if len(set(texts)) == len(texts):
            return
        first: dict[bytes, int] = {}
        for token, text in enumerate(texts):
            other = first.setdefault(text, token)
            if types[other] != types[token]:
                self._refuse(
                    f"tokens {other} and {token} have one text, {text[:40]!r}, and are of types "
                    f"{types[other]} and {types[token]}",
                    key=_TOKENS,
                )

    def _tensors(self) -> None:
        vectors, matrices = self.rule.vectors(self.info), self.rule.matrices(self.info)
        tensors = self.file.tensors
        if "output.weight" in matrices and "output.weight" not in tensors:
            self._refuse(
                "it is missing: the model shares it with token_embd.weight", tensor="output.weight"
            )
        for name in tensors:
            if name not in vectors and name not in matrices:
                self._refuse(f"{self.rule.backend} has no use for it", tensor=name)
        for shapes, types in (
            (vectors, self.rule.vector_types),
            (matrices, self.rule.matrix_types),
        ):
            for name, shape in shapes.items():
                self._tensor(name, shape, types)

    def _tensor(self, name: str, shape: tuple[int, ...], types: frozenset[str]) -> None:
        tensor = self.file.tensors.get(name)
        if tensor is None:
            self.file.fail("it is missing", tensor=name)
        if tensor.shape != shape:
            self.file.fail(
                f"its shape is {list(tensor.shape)}; the metadata say {list(shape)}", tensor=name
            )
        if tensor.type.name not in types:
            self._refuse(
                f"its type is {tensor.type.name}; {self.rule.backend} takes {_listed(types)} here",
                tensor=name,
            )


_SCALING_KEYS = ("type", "factor", "original_context_length", "finetuned")


def _is_token_id(key: str) -> bool:
    return key.startswith("tokenizer.ggml.") and key.endswith("_token_id")


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
