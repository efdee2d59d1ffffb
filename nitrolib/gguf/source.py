"""The file under a reader: opened without ever waiting, read forward, never past its end."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ..errors import ModelFileError
from .types import SCALARS, STRING, VALUE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FileIdentity", "Source", "StreamSource"]

# The largest real headers (vocabularies of 262 144 tokens with their merges) take about 25 MiB.
MAX_HEADER_BYTES = 128 << 20
MAX_STRINGS = 1 << 22

_FIRST_READ = 256 << 10
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells one state of a file from another: if any of it differs, the file is another one
    or was written to."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path_or_fd: str | int) -> FileIdentity:
        """Identity of the file now at this path or behind this descriptor; raises OSError."""
        status = os.stat(path_or_fd)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Source:
    """Bytes of one file from its beginning on, as many as were asked for.

    `position` is where the next value is read; `buffer` holds the file up to some point behind it.
    Every read is checked against the size of the file first and raises ModelFileError.
    """

    def __init__(self, path: str, fd: int | None = None) -> None:
        self.path = path
        self.position = 0
        self.buffer = bytearray()
        self._owned = fd is None
        self._fd = _open(path) if fd is None else fd
        try:
            self._check_regular()
            self.identity = FileIdentity.of(self._fd)
            if not self._owned:
                os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError as error:
            self.close()
            raise _cannot_read(path, error) from error
        except BaseException:
            self.close()
            raise
        self.size = self.identity.size

    def close(self) -> None:
        if self._owned:
            self._owned = False
            os.close(self._fd)

    def fail(
        self,
        message: str,
        *,
        key: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
        unsupported: bool = False,
    ) -> NoReturn:
        """Raise the ModelFileError for this file; the message gets the file's name and the
        offset."""
        raise fault(
            self.path, message, key=key, tensor=tensor, offset=offset, unsupported=unsupported
        )

    def need(self, n: int, what: str, *, key: str | None = None, tensor: str | None = None) -> None:
        """Make sure that `n` bytes from the position on are in the buffer."""
        end = self.position + n
        if end > self.size:
            self.fail(
                f"{what} takes {n} bytes, and the file ends {self.size - self.position} bytes on: "
                "it is cut or damaged",
                key=key,
                tensor=tensor,
                offset=self.position,
            )
        if end > len(self.buffer):
            self._extend(end)

    def scalar(self, kind: int, what: str, *, key: str | None = None) -> int | float:
        """The next value of a type of SCALARS."""
        codec = SCALARS[kind][0]
        self.need(codec.size, what, key=key)
        (value,) = codec.unpack_from(self.buffer, self.position)
        self.position += codec.size
        return value  # type: ignore[no-any-return]

    def unpack(self, codec: struct.Struct, what: str, **names: str | None) -> tuple[int, ...]:
        """The next values of a struct."""
        self.need(codec.size, what, **names)
        values = codec.unpack_from(self.buffer, self.position)
        self.position += codec.size
        return values

    def string(self, limit: int, what: str, *, key: str | None = None) -> bytes:
        """The next string of at most `limit` bytes: a u64 length, then the bytes."""
        (length,) = self.unpack(_U64, f"the length of {what}", key=key)
        if length > limit:
            self.fail(
                f"{what} claims a length of {length} bytes; at most {limit} are allowed",
                key=key,
                offset=self.position - 8,
            )
        self.need(length, what, key=key)
        start = self.position
        self.position += length
        return bytes(self.buffer[start : self.position])

    def skip_string(self, key: str) -> None:
        (length,) = self.unpack(_U64, "the length of a string", key=key)
        self.need(length, "a string", key=key)
        self.position += length

    def skip_strings(self, count: int, key: str) -> None:
        """Walk over `count` strings. The walk is the cost of opening a file with a large
        vocabulary (70 ns a string), so the loop trusts the lengths and the end is checked."""
        self._check_count(count, 8, STRING, key)
        if count > MAX_STRINGS:
            self.fail(
                f"an array of {count} strings; at most {MAX_STRINGS} are allowed",
                key=key,
                offset=self.position,
            )
        start = position = self.position
        unpack, done = _U64.unpack_from, 0
        while done < count and position + 8 <= self.size:
            if position + 8 > len(self.buffer):
                self._extend(position + 8)
            buffer = self.buffer
            try:
                for done in range(done, count):  # noqa: B007, B020 (resumes)
                    position += 8 + unpack(buffer, position)[0]
            except (struct.error, OverflowError):
                continue  # `position` is behind the buffer, and `done` the string that begins there
            done = count
        whole = done - (position > self.size)
        if whole < count:
            self.fail(
                f"of its {count} strings only {whole} lie inside the file: it is cut or damaged",
                key=key,
                offset=start,
            )
        self.position = position
        self.need(0, "an array of strings", key=key)

    def skip_scalars(self, kind: int, count: int, key: str) -> None:
        """Step over `count` numbers or booleans."""
        size = SCALARS[kind][0].size
        self._check_count(count, size, kind, key)
        self.need(count * size, f"an array of {count} {VALUE_NAMES[kind]}", key=key)
        self.position += count * size

    def _check_count(self, count: int, size: int, kind: int, key: str) -> None:
        if count * size > self.size - self.position:
            self.fail(
                f"an array of {count} {VALUE_NAMES[kind]} cannot lie in the "
                f"{self.size - self.position} bytes up to the end of the file",
                key=key,
                offset=self.position,
            )

    def _extend(self, end: int) -> None:
        """Read on until `end` (known to lie in the file) is in the buffer, at least doubling it."""
        if end > MAX_HEADER_BYTES:
            self.fail(
                f"the header is longer than {MAX_HEADER_BYTES} bytes: damaged", offset=self.position
            )
        goal = min(max(end, 2 * len(self.buffer), _FIRST_READ), self.size, MAX_HEADER_BYTES)
        while len(self.buffer) < goal:
            piece = self._next(goal - len(self.buffer))
            if not piece:
                self.fail("the file became shorter while it was read", offset=len(self.buffer))
            self.buffer += piece

    def _next(self, n: int) -> bytes:
        """The next bytes of the file, at most `n`; none at its end."""
        try:
            return os.read(self._fd, n)
        except OSError as error:
            raise _cannot_read(self.path, error) from error

    def _check_regular(self) -> None:
        mode = os.fstat(self._fd).st_mode
        if not stat.S_ISREG(mode):
            raise fault(self.path, f"this is {_kind(mode)}, not a regular file")


class StreamSource(Source):
    """Bytes of a file that is on its way here: `more(n)` gives the next ones, at most `n`, and none
    at the end; `size` is what the whole file will have."""

    def __init__(self, name: str, size: int, more: Callable[[int], bytes]) -> None:
        self.path = name
        self.position = 0
        self.buffer = bytearray()
        self.size = size
        self.identity = FileIdentity(device=0, inode=0, size=size, mtime_ns=0)
        self._owned = False
        self._more = more

    def _next(self, n: int) -> bytes:
        return self._more(n)


def fault(
    path: str,
    message: str,
    *,
    key: str | None = None,
    tensor: str | None = None,
    offset: int | None = None,
    unsupported: bool = False,
    **facts: object,
) -> ModelFileError:
    """The ModelFileError of this package: names the file, the key or tensor, and the byte."""
    subject = f"{key}: " if key else f"tensor {tensor}: " if tensor else ""
    place = "" if offset is None else f" (byte {offset})"
    return ModelFileError(
        f"{os.path.basename(path)}: {subject}{message}{place}",
        path=path,
        key=key,
        tensor=tensor,
        offset=offset,
        unsupported=unsupported,
        **facts,
    )


def _open(path: str) -> int:
    """Open for reading. A pipe or device is refused before it is opened, and should one take the
    file's place in between, O_NONBLOCK keeps the call from waiting."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise fault(path, f"this is {_kind(mode)}, not a regular file")
        flags = os.O_RDONLY
        for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOCTTY"):
            flags |= getattr(os, name, 0)
        return os.open(path, flags)
    except OSError as error:
        raise _cannot_read(path, error) from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise fault(path, f"this cannot be a path: {error}") from error


def _cannot_read(path: str, error: OSError) -> ModelFileError:
    if isinstance(error, FileNotFoundError):
        dangling = os.path.islink(path)
        reason = "a link to a file that does not exist" if dangling else "no such file"
    elif isinstance(error, PermissionError):
        reason = "no permission to read it"
    else:
        reason = f"it cannot be read: {error.strerror or error}"
    return fault(path, reason)


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return name
    return "something else"
