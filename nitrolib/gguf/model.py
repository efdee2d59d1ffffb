"""ModelInfo: what a GGUF file says about its model, as plain data that outlives the file."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .reader import GGUFFile, open_gguf
from .source import FileIdentity, fault
from .types import ARRAY

if TYPE_CHECKING:
    import os

__all__ = ["ModelInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model as its file describes it.

    Counts are 0 where the file does not state them (verify with a backend's rule makes sure of
    those it needs); where they differ between layers, the largest is given.

    identity: state of the file when it was read; `check_unchanged` compares.
    file_bytes, tensor_bytes: size of the file and of the weights in it.
    n_ctx_train: trained context in tokens; n_vocab: tokens; n_embd: width of the hidden state;
        n_head_kv: heads with keys and values of their own; n_ff: width of the feed-forward part;
        head_size, value_size: numbers a head keeps in the KV cache for keys and for values.
    n_params: weights, norms included.
    quantization: the tensor type that takes up most bytes, such as "Q8_0".
    tensor_types: (type name, tensors of it), the most frequent first.
    tokenizer: "llama" (SentencePiece), "gpt2" (byte-level BPE), "bert", "t5", ...; "" without one.
    split_count: files that the model is cut into; 1 for a whole one.
    """

    path: str
    identity: FileIdentity
    file_bytes: int
    version: int
    architecture: str
    name: str | None
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int
    head_size: int
    value_size: int
    rope_freq_base: float | None
    n_params: int
    n_tensors: int
    tensor_bytes: int
    tensor_types: tuple[tuple[str, int], ...]
    quantization: str
    tokenizer: str
    chat_template: str | None
    split_count: int

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ModelInfo:
        """Read a file's header; raises ModelFileError."""
        return cls.from_gguf(open_gguf(path))

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> ModelInfo:
        """Describe an open file; raises ModelFileError for keys of a wrong type."""
        _check_split(file)
        architecture = file.metadata.text("general.architecture")
        if not architecture:
            file.fail("the key is missing; it says what kind of model this is", key=_ARCHITECTURE)
        n_embd = _size(file, f"{architecture}.embedding_length")
        n_head = _size(file, f"{architecture}.attention.head_count")
        head_size = n_embd // n_head if n_head else 0
        key_size = _size(file, f"{architecture}.attention.key_length") or head_size
        tensors = file.tensors.values()
        types = Counter(tensor.type.name for tensor in tensors)
        type_bytes: Counter[str] = Counter()
        for tensor in tensors:
            type_bytes[tensor.type.name] += tensor.n_bytes
        return cls(
            path=file.path,
            identity=file.identity,
            file_bytes=file.n_bytes,
            version=file.version,
            architecture=architecture,
            name=file.metadata.text("general.name"),
            n_ctx_train=_size(file, f"{architecture}.context_length"),
            n_vocab=_n_vocab(file, architecture),
            n_embd=n_embd,
            n_layer=_size(file, f"{architecture}.block_count"),
            n_head=n_head,
            n_head_kv=_size(file, f"{architecture}.attention.head_count_kv") or n_head,
            n_ff=_size(file, f"{architecture}.feed_forward_length"),
            head_size=key_size,
            value_size=_size(file, f"{architecture}.attention.value_length") or head_size,
            rope_freq_base=file.metadata.number(f"{architecture}.rope.freq_base"),
            n_params=sum(math.prod(tensor.shape) for tensor in tensors),
            n_tensors=len(tensors),
            tensor_bytes=sum(type_bytes.values()),
            tensor_types=tuple(types.most_common()),
            quantization=type_bytes.most_common(1)[0][0] if type_bytes else "",
            tokenizer=file.metadata.text("tokenizer.ggml.model") or "",
            chat_template=file.metadata.text("tokenizer.chat_template"),
            split_count=_size(file, "split.count") or 1,
        )

    def check_unchanged(self, path_or_fd: str | int | None = None) -> None:
        """Raise ModelFileError unless the file at the path (or behind the descriptor; default
        `path`) is the one that was read, byte for byte as far as its inode, size and time of
        change tell."""
        try:
            now = FileIdentity.of(self.path if path_or_fd is None else path_or_fd)
        except OSError as error:
            raise fault(self.path, f"the file is gone: {error.strerror}") from error
        if now != self.identity:
            raise fault(self.path, "the file changed after it was verified")


_ARCHITECTURE = "general.architecture"


def _check_split(file: GGUFFile) -> None:
    """Only the first file of a split model has metadata."""
    number = file.metadata.integer("split.no") or 0
    if number > 0:
        count = file.metadata.integer("split.count") or 0
        file.fail(
            f"this is part {number + 1} of a model cut into {count} files; give the first",
            key="split.no",
            unsupported=True,
        )


def _size(file: GGUFFile, key: str) -> int:
    """A count of the model; the largest where there is one for every layer; 0 where absent."""
    if key not in file.metadata:
        return 0
    if file.metadata.entry(key).type == ARRAY:
        values = file.metadata.numbers(key)
        if values.dtype.kind not in "iu":
            file.fail("whole numbers are expected", key=key)
        value = int(values.max()) if values.size else 0
    else:
        value = file.metadata.integer(key) or 0
    if not 0 <= value < 1 << 48:
        file.fail(f"{value} is no possible size", key=key)
    return value


def _n_vocab(file: GGUFFile, architecture: str) -> int:
    if "tokenizer.ggml.tokens" in file.metadata:
        return len(file.metadata.strings("tokenizer.ggml.tokens"))
    stated = _size(file, f"{architecture}.vocab_size")
    embedding = file.tensors.get("token_embd.weight")
    return stated or (embedding.shape[-1] if embedding else 0)
