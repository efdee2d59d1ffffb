"""GGUFFile: the header of a GGUF file, every count, length and offset of it proven to lie inside
the file. Values are decoded when they are asked for; arrays of strings are only stepped over.

Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np

from .source import FileIdentity, Source, StreamSource, fault
from .types import (
    ARRAY,
    BOOL,
    F32,
    F64,
    GGML_TYPES,
    INTEGERS,
    SCALARS,
    STRING,
    U32,
    VALUE_NAMES,
    GGMLType,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["GGUFFile", "Metadata", "StringArray", "TensorInfo", "open_gguf", "read_gguf"]

# Far above anything real; they bound the work that a damaged count can cause.
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_KEY_BYTES = (1 << 16) - 1
MAX_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_STRING_BYTES = 64 << 20

_HEAD = struct.Struct("<4xIQQ")
_ARRAY = struct.Struct("<IQ")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_DIMENSIONS = [struct.Struct(f"<{n}Q") for n in range(MAX_DIMENSIONS + 1)]
_TYPE_AND_OFFSET = struct.Struct("<IQ")
_OLD_MAGICS = {b"lmgg", b"fmgg", b"tjgg", b"algg"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a metadata value lies: `offset` is the byte where the value begins, `data` where its
    content does (behind the length of a string, behind the type and count of an array)."""

    type: int
    offset: int
    data: int
    count: int = 0
    element: int | None = None

    @property
    def type_name(self) -> str:
        if self.element is None:
            return VALUE_NAMES[self.type]
        return f"array of {VALUE_NAMES[self.element]}"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. `shape` has the row length first; `data_offset` is from the beginning of the
    file; `offset` is the byte where its entry in the tensor table begins."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    data_offset: int
    n_bytes: int
    offset: int


class StringArray(Sequence[str]):
    """An array of strings in the header, decoded when it is first looked into."""

    def __init__(self, buffer: bytes, entry: Entry) -> None:
        self._buffer = buffer
        self._entry = entry
        self._raw: list[bytes] | None = None

    def raw(self) -> list[bytes]:
        """The strings as bytes; the list is kept, so do not change it."""
        if self._raw is None:
            buffer, position, unpack = self._buffer, self._entry.data, _U64.unpack_from
            strings: list[bytes] = []
            append = strings.append
            for _ in range(self._entry.count):
                start = position + 8
                position = start + unpack(buffer, position)[0]
                append(buffer[start:position])
            self._raw = strings
        return self._raw

    def __len__(self) -> int:
        return self._entry.count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = self.raw()[index]
        return [_text(raw) for raw in found] if isinstance(found, list) else _text(found)

    def __repr__(self) -> str:
        return f"StringArray of {len(self)}"


class Metadata(Mapping[str, Any]):
    """The metadata by key: int, float, bool, str, a StringArray, or a read-only numpy array.

    Bytes of a string that are not UTF-8 show as U+FFFD; `raw` gives them as they are.
    """

    def __init__(self, path: str, buffer: bytes, entries: dict[str, Entry]) -> None:
        self._path = path
        self._buffer = buffer
        self._entries = entries
        self._strings: dict[str, StringArray] = {}

    def __getitem__(self, key: str) -> Any:
        entry = self._entries[key]
        if entry.type == STRING:
            return _text(self.raw(key))
        if entry.type == ARRAY:
            return self.strings(key) if entry.element == STRING else self.numbers(key)
        (value,) = SCALARS[entry.type][0].unpack_from(self._buffer, entry.data)
        return bool(value) if entry.type == BOOL else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, key: str) -> Entry:
        """Type and place of a value; raises KeyError."""
        return self._entries[key]

    def raw(self, key: str) -> bytes:
        """The bytes of a string; raises KeyError, ModelFileError for another type."""
        entry = self._expect(key, entry_is=lambda entry: entry.type == STRING, allowed="a string")
        return self._buffer[entry.data : entry.data + entry.count]

    def strings(self, key: str) -> StringArray:
        """An array of strings; raises KeyError, ModelFileError for another type."""
        if key not in self._strings:
            entry = self._expect(
                key, lambda entry: entry.element == STRING, allowed="an array of strings"
            )
            self._strings[key] = StringArray(self._buffer, entry)
        return self._strings[key]

    def numbers(self, key: str) -> NDArray[Any]:
        """An array of numbers or booleans, a read-only view; raises KeyError, ModelFileError for
        another type."""
        entry = self._expect(
            key, lambda entry: entry.element in SCALARS, allowed="an array of numbers"
        )
        assert entry.element is not None
        dtype = SCALARS[entry.element][1]
        end = entry.data + entry.count * np.dtype(dtype).itemsize
        view = np.frombuffer(memoryview(self._buffer)[entry.data : end], dtype)
        return view.astype(np.bool_) if entry.element == BOOL else view

    def text(self, key: str) -> str | None:
        """A string, None where the key is absent; raises ModelFileError for another type."""
        return _text(self.raw(key)) if key in self._entries else None

    def integer(self, key: str) -> int | None:
        """A whole number of any width, None where the key is absent; raises ModelFileError for
        another type."""
        if key not in self._entries:
            return None
        self._expect(key, lambda entry: entry.type in INTEGERS, allowed="a whole number")
        return int(self[key])

    def number(self, key: str) -> float | None:
        """A float, None where the key is absent; raises ModelFileError for another type."""
        if key not in self._entries:
            return None
        self._expect(key, lambda entry: entry.type in (F32, F64), allowed="a float")
        return float(self[key])

    def flag(self, key: str) -> bool | None:
        """A boolean, None where the key is absent; raises ModelFileError for another type."""
        if key not in self._entries:
            return None
        self._expect(key, lambda entry: entry.type == BOOL, allowed="a boolean")
        return bool(self[key])

    def _expect(self, key: str, entry_is: Any, allowed: str) -> Entry:
        entry = self._entries[key]
        if not entry_is(entry):
            raise fault(
                self._path,
                f"its type is {entry.type_name}; {allowed} is expected",
                key=key,
                offset=entry.offset,
            )
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFFile:
    """A header that was read whole and found sound. The file itself is closed again.

    `identity` is the state of the file when it was read; `data_offset` is where tensor data begins.
    """

    path: str
    identity: FileIdentity
    version: int
    alignment: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]
    data_offset: int

    @property
    def n_bytes(self) -> int:
        return self.identity.size

    def fail(
        self,
        message: str,
        *,
        key: str | None = None,
        tensor: str | None = None,
        unsupported: bool = False,
        **facts: object,
    ) -> NoReturn:
        """Raise ModelFileError about a key or tensor of this file; its offset is looked up."""
        offset = None
        if key is not None and key in self.metadata:
            offset = self.metadata.entry(key).offset
        elif tensor is not None and tensor in self.tensors:
            offset = self.tensors[tensor].offset
        raise fault(
            self.path,
            message,
            key=key,
            tensor=tensor,
            offset=offset,
            unsupported=unsupported,
            **facts,
        )


def open_gguf(path: str | os.PathLike[str], *, fd: int | None = None) -> GGUFFile:
    """Read and prove the header of a GGUF file; about 1 ms, plus 70 ns for every token.

    With `fd`, the open file behind that descriptor is read (from its beginning; the descriptor
    stays open) and `path` is only its name in errors. Raises ModelFileError for anything that is
    not a sound GGUF file of version 2 or 3, and never waits for a pipe or a device.
    """
    path = os.fspath(path)
    if not isinstance(path, str):
        raise TypeError(f"path must be str or os.PathLike[str], got {type(path).__name__}")
    source = Source(path, fd)
    try:
        return _read(source)
    finally:
        source.close()


def read_gguf(name: str, size: int, more: Callable[[int], bytes]) -> GGUFFile:
    """Read and prove the header of a GGUF file that is on its way here, as `open_gguf` does.

    name: what errors call it. size: bytes of the whole file. more: gives the next bytes from the
    beginning on, at most as many as asked for, and b"" at the end; what it raises comes through.
    """
    return _read(StreamSource(name, size, more))


def _read(source: Source) -> GGUFFile:
    version, n_tensors, n_keys = _read_head(source)
    entries = _read_metadata(source, n_keys)
    alignment = _alignment(source, entries)
    tensors = _read_tensors(source, n_tensors)
    data_offset = -(-source.position // alignment) * alignment
    _check_data(source, tensors, data_offset, alignment)
    buffer = bytes(memoryview(source.buffer)[: source.position])
    return GGUFFile(
        path=source.path,
        identity=source.identity,
        version=version,
        alignment=alignment,
        metadata=Metadata(source.path, buffer, entries),
        tensors={
            tensor.name: TensorInfo(
                tensor.name,
                tensor.shape,
                tensor.type,
                data_offset + tensor.data_offset,
                tensor.n_bytes,
                tensor.offset,
            )
            for tensor in tensors
        },
        data_offset=data_offset,
    )


def _read_head(source: Source) -> tuple[int, int, int]:
    source.need(min(4, source.size), "the file's magic number")
    magic = bytes(source.buffer[:4])
    if magic != b"GGUF":
        hint = "an old GGML file, convert it to GGUF" if magic in _OLD_MAGICS else "not a GGUF file"
        source.fail(f"the file begins with {magic!r} instead of b'GGUF': {hint}", offset=0)
    version, n_tensors, n_keys = source.unpack(_HEAD, "the file's header")
    if version not in (2, 3):
        if version in (2 << 24, 3 << 24):
            source.fail("a big-endian GGUF file; little endian is expected", offset=4)
        source.fail(f"GGUF version {version}; 2 and 3 are known", offset=4)
    # A key takes at least 8 + 1 + 4 + 1 bytes, a tensor 8 + 1 + 4 + 8 + 4 + 8.
    room = source.size - source.position
    if n_keys > min(MAX_KEYS, room // 14):
        source.fail(f"a count of {n_keys} metadata keys cannot be right", offset=16)
    if n_tensors > min(MAX_TENSORS, room // 33):
        source.fail(f"a count of {n_tensors} tensors cannot be right", offset=8)
    return version, n_tensors, n_keys


def _read_metadata(source: Source, n_keys: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for index in range(n_keys):
        start = source.position
        raw = source.string(MAX_KEY_BYTES, f"metadata key {index}")
        key = _name(source, raw, f"metadata key {index}", start)
        if key in entries:
            source.fail("the key is there twice", key=key, offset=start)
        entries[key] = _read_entry(source, key)
    return entries


def _read_entry(source: Source, key: str) -> Entry:
    (kind,) = source.unpack(_U32, "the type of a value", key=key)
    offset = source.position
    if kind == STRING:
        value = source.string(MAX_STRING_BYTES, "a string", key=key)
        return Entry(STRING, offset, offset + 8, len(value))
    if kind == ARRAY:
        return _read_array(source, key)
    if kind not in SCALARS:
        source.fail(f"value type {kind} does not exist; 0 to 12 do", key=key, offset=offset - 4)
    number = source.scalar(kind, "a value", key=key)
    if kind == BOOL and number not in (0, 1):
        source.fail(f"a boolean is 0 or 1, not {number}", key=key, offset=offset)
    return Entry(kind, offset, offset)


def _read_array(source: Source, key: str) -> Entry:
    offset = source.position
    element, count = source.unpack(_ARRAY, "the type and count of an array", key=key)
    data = source.position
    if element == STRING:
        source.skip_strings(count, key)
    elif element in SCALARS:
        source.skip_scalars(element, count, key)
        if element == BOOL:
            values = np.frombuffer(bytes(source.buffer[data : source.position]), np.uint8)
            if values.size and values.max() > 1:
                source.fail("a boolean of the array is neither 0 nor 1", key=key, offset=data)
    elif element == ARRAY:
        source.fail("an array of arrays is not supported", key=key, offset=offset, unsupported=True)
    else:
        source.fail(
            f"array element type {element} does not exist; 0 to 12 do", key=key, offset=offset
        )
    return Entry(ARRAY, offset, data, count, element)


def _alignment(source: Source, entries: dict[str, Entry]) -> int:
    key = "general.alignment"
    entry = entries.get(key)
    if entry is None:
        return 32
    if entry.type != U32:
        source.fail(f"its type is {entry.type_name}; u32 is expected", key=key, offset=entry.offset)
    (value,) = _U32.unpack_from(source.buffer, entry.data)
    if not (8 <= value <= 65536 and value & (value - 1) == 0):
        source.fail(
            f"an alignment of {value}; a power of two from 8 to 65536 is allowed",
            key=key,
            offset=entry.offset,
        )
    return int(value)


def _read_tensors(source: Source, n_tensors: int) -> list[TensorInfo]:
    tensors: list[TensorInfo] = []
    seen: set[str] = set()
    for index in range(n_tensors):
        tensor = _read_tensor(source, index)
        if tensor.name in seen:
            source.fail("the name is there twice", tensor=tensor.name, offset=tensor.offset)
        seen.add(tensor.name)
        tensors.append(tensor)
    return tensors


def _read_tensor(source: Source, index: int) -> TensorInfo:
    start = source.position
    raw = source.string(MAX_NAME_BYTES, f"the name of tensor {index}")
    name = _name(source, raw, f"the name of tensor {index}", start)
    (n_dims,) = source.unpack(_U32, "the number of dimensions", tensor=name)
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        source.fail(
            f"{n_dims} dimensions; 1 to {MAX_DIMENSIONS} are allowed", tensor=name, offset=start
        )
    shape = source.unpack(_DIMENSIONS[n_dims], "the shape", tensor=name)
    number, data_offset = source.unpack(_TYPE_AND_OFFSET, "type and offset", tensor=name)
    kind = GGML_TYPES.get(number)
    if kind is None:
        source.fail(f"tensor type {number} is unknown", tensor=name, offset=start, unsupported=True)
    if 0 in shape:
        source.fail(f"shape {list(shape)} is empty", tensor=name, offset=start)
    if shape[0] % kind.block:
        source.fail(
            f"rows of {shape[0]} weights are no multiple of the {kind.block} in a block of "
            f"{kind.name}",
            tensor=name,
            offset=start,
        )
    n_bytes = math.prod(shape) // kind.block * kind.block_bytes
    return TensorInfo(name, shape, kind, data_offset, n_bytes, start)


def _check_data(
    source: Source, tensors: list[TensorInfo], data_offset: int, alignment: int
) -> None:
    """Every tensor's data is aligned, inside the file, and its own."""
    room = source.size - data_offset
    for tensor in tensors:
        if tensor.data_offset % alignment:
            source.fail(
                f"data offset {tensor.data_offset} is no multiple of the alignment {alignment}",
                tensor=tensor.name,
                offset=tensor.offset,
            )
        if tensor.data_offset + tensor.n_bytes > room:
            source.fail(
                f"{tensor.n_bytes} bytes of data at byte {data_offset + tensor.data_offset} would "
                f"end behind the file's {source.size} bytes: it is cut or damaged",
                tensor=tensor.name,
                offset=tensor.offset,
            )
    ordered = sorted(tensors, key=lambda tensor: tensor.data_offset)
    for before, tensor in itertools.pairwise(ordered):
        if before.data_offset + before.n_bytes > tensor.data_offset:
            source.fail(
                f"its data overlaps that of {before.name}",
                tensor=tensor.name,
                offset=tensor.offset,
            )


def _name(source: Source, raw: bytes, what: str, offset: int) -> str:
    """A key or tensor name as text. Control characters are refused: behind a NUL, C sees another
    name than Python does."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable():
        source.fail(f"{what} is no name: {raw[:40]!r}", offset=offset)
    return name


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
