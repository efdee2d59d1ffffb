"""verify(): proves, before native code sees a file, that it is sound and that a backend can run it.

Damage that leaves the header as it was, inside the weights, stays unseen: only a checksum finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import ModelInfo
from .reader import GGUFFile, open_gguf
from .rules import SCORES, TOKENS, TYPES, Candidate, is_token_id, listed
from .types import F32, I32, U32

if TYPE_CHECKING:
    import os

    from .rules import Rule

__all__ = ["verify", "verify_file"]


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
        candidate = Candidate(file, info, rule)
        _check_whole_model(candidate)
        for check in rule.checks:
            check(candidate)
    return info


def _check_vocabulary(file: GGUFFile) -> None:
    """What any backend relies on: arrays of one length, all keys of the types they must have."""
    metadata = file.metadata
    metadata.text("tokenizer.ggml.pre")
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        metadata.flag(f"tokenizer.ggml.{name}")
    for key in metadata:
        if is_token_id(key):
            metadata.integer(key)
    if TOKENS not in metadata:
        return
    n_tokens = len(metadata.strings(TOKENS))
    for key, elements, words in (
        (SCORES, {F32}, "an array of f32"),
        (TYPES, {I32, U32}, "an array of i32"),
    ):
        if key not in metadata:
            continue
        entry = metadata.entry(key)
        if entry.element not in elements:
            file.fail(f"its type is {entry.type_name}; {words} is expected", key=key)
        if entry.count != n_tokens:
            file.fail(f"{entry.count} values for {n_tokens} tokens", key=key)


def _check_whole_model(candidate: Candidate) -> None:
    info, rule = candidate.info, candidate.rule
    try:
        info.path.encode()
    except UnicodeEncodeError:
        candidate.fail(f"the path {info.path!a} is not valid UTF-8")
    if info.split_count > 1:
        candidate.refuse(
            f"the model is cut into {info.split_count} files, and {rule.backend} reads one",
            key="split.count",
        )
    if info.architecture not in rule.architectures:
        candidate.refuse(
            f"{info.architecture!r} is not run by {rule.backend}, which knows "
            f"{listed(rule.architectures)}",
            key="general.architecture",
        )
