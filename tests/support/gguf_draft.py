"""A GGUF file on the drawing board: every field may be changed, wrongly too, before it is written.

Deliberately independent of the reader under test, and without any check of its own. Layout follows
the GGUF specification (github.com/ggml-org/ggml/blob/master/docs/gguf.md), little endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_FORMATS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B",
            U64: "<Q", I64: "<q", F64: "<d"}  # fmt: skip
_DTYPES = {U8: "u1", I8: "i1", U16: "<u2", I16: "<i2", U32: "<u4", I32: "<i4", F32: "<f4",
           BOOL: "u1", U64: "<u8", I64: "<i8", F64: "<f8"}  # fmt: skip


@dataclass
class Value:
    """A metadata value: its GGUF type number and the Python value, or for an array the element
    type and a sequence. `count` lies about an array's or a string's length where it is set."""

    type: int
    data: Any
    element: int | None = None
    count: int | None = None


def u32(value: int) -> Value:
    return Value(U32, value)


def f32(value: float) -> Value:
    return Value(F32, value)


def string(value: str | bytes) -> Value:
    return Value(STRING, value)


def array(element: int, values: Any) -> Value:
    return Value(ARRAY, values, element=element)


@dataclass
class Tensor:
    """A tensor: shape with the row length first, GGML type number, and a function that yields the
    data in pieces. `offset` overrides the place that the writer would choose, `n_dims` the number
    of dimensions."""

    shape: list[int]
    type: int
    n_bytes: int
    data: Callable[[], Iterable[bytes]]
    offset: int | None = None
    n_dims: int | None = None


@dataclass
class Draft:
    """Metadata and tensors in file order. Lists, not mappings: duplicate names can be drawn too."""

    metadata: list[tuple[str | bytes, Value]] = field(default_factory=list)
    tensors: list[tuple[str | bytes, Tensor]] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    alignment: int = 32
    n_metadata: int | None = None
    n_tensors: int | None = None

    def __getitem__(self, key: str) -> Value:
        return next(value for name, value in self.metadata if name == key)

    def __setitem__(self, key: str, value: Value) -> None:
        for index, (name, _) in enumerate(self.metadata):
            if name == key:
                self.metadata[index] = (key, value)
                return
        self.metadata.append((key, value))

    def __delitem__(self, key: str) -> None:
        assert any(name == key for name, _ in self.metadata), key
        self.metadata = [(name, value) for name, value in self.metadata if name != key]

    def tensor(self, name: str) -> Tensor:
        return next(tensor for known, tensor in self.tensors if known == name)

    def remove_tensor(self, name: str) -> None:
        assert any(known == name for known, _ in self.tensors), name
        self.tensors = [(known, tensor) for known, tensor in self.tensors if known != name]

    def header(self) -> tuple[bytes, dict[str, int]]:
        """The bytes before the tensor data, and where in them each key's entry and each tensor's
        entry begins ("n_tensors", "n_metadata", "key:NAME", "value:NAME", "tensor:NAME",
        "data": the start of the data)."""
        places = {"n_tensors": 8, "n_metadata": 16}
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_metadata = len(self.metadata) if self.n_metadata is None else self.n_metadata
        parts = [self.magic, struct.pack("<IQQ", self.version, n_tensors, n_metadata)]
        position = sum(map(len, parts))
        for key, value in self.metadata:
            places[f"key:{key!s}"] = position
            entry = _encode_string(key) + struct.pack("<I", value.type)
            places[f"value:{key!s}"] = position + len(entry)
            entry += _encode(value)
            parts.append(entry)
            position += len(entry)
        offset = 0
        for name, tensor in self.tensors:
            places[f"tensor:{name!s}"] = position
            n_dims = len(tensor.shape) if tensor.n_dims is None else tensor.n_dims
            place = offset if tensor.offset is None else tensor.offset
            entry = _encode_string(name) + struct.pack(
                f"<I{len(tensor.shape)}QIQ", n_dims, *tensor.shape, tensor.type, place
            )
            parts.append(entry)
            position += len(entry)
            offset += _padded(tensor.n_bytes, self.alignment)
        places["data"] = _padded(position, self.alignment)
        parts.append(bytes(places["data"] - position))
        return b"".join(parts), places

    def write(self, path: str | Path) -> Path:
        """Write the file, data streamed piece by piece. Returns the path."""
        path = Path(path)
        with path.open("wb") as file:
            file.write(self.header()[0])
            for _, tensor in self.tensors:
                for piece in tensor.data():
                    file.write(piece)
                file.write(bytes(_padded(tensor.n_bytes, self.alignment) - tensor.n_bytes))
        return path


def _padded(size: int, alignment: int) -> int:
    return size if alignment < 1 else -(-size // alignment) * alignment


def _encode_string(text: str | bytes, count: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else bytes(text)
    return struct.pack("<Q", len(raw) if count is None else count) + raw


def _encode(value: Value) -> bytes:
    if value.type == STRING:
        return _encode_string(value.data, value.count)
    if value.type != ARRAY:
        # A type that does not exist is written as if it were a 4-byte integer.
        return struct.pack(_FORMATS.get(value.type, "<I"), value.data)
    assert value.element is not None
    n = len(value.data) if value.count is None else value.count
    head = struct.pack("<IQ", value.element, n)
    if value.element == STRING:
        return head + b"".join(map(_encode_string, value.data))
    if value.element == ARRAY:
        return head + b"".join(map(_encode, value.data))
    return head + np.asarray(value.data, _DTYPES.get(value.element, "<u4")).tobytes()
