"""Part: a file that is being fetched, `<name>.part`, beside what is known of its source, so that a
later process can go on where this one ended."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import DownloadError, StorageError
from . import files

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Origin", "Part", "part_path", "part_paths", "resumable_parts"]

_FULL = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)
)
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """What tells whether the bytes that are here belong to what the server has now.

    etag, modified: as the server said, "" if it did not. total: bytes of the whole, None if
    unknown. made: whether the model is known for this download alone.
    """

    url: str
    sha256: str | None = None
    etag: str = ""
    modified: str = ""
    total: int | None = None
    made: bool = False

    @property
    def validator(self) -> str:
        """What If-Range is to hold; "" where nothing tells one state of the file from another. A
        weak etag (W/...) does not speak of bytes."""
        return self.etag if self.etag.startswith('"') else self.modified


class Part:
    """`target` with ".part" behind its name, written from the beginning on. A context manager that
    closes it and leaves it where it is; `finish` gives it its name."""

    def __init__(self, target: Path, origin: Origin) -> None:
        """Go on with what is there if it comes from the same URL with the same checksum."""
        self.target = target
        self.path, self._beside = part_paths(target)
        before = _read(self._beside)
        same = before is not None and (before.url, before.sha256) == (origin.url, origin.sha256)
        self.origin = before if before is not None and same else origin
        try:
            files.write_json(self._beside, asdict(self.origin))
            # Not by O_APPEND: on a full disk the place to go on from must be ours to say.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | _NO_LINK
            self._file = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
            if not same:
                self._file.truncate(0)
            self.length = self._file.seek(0, os.SEEK_END)
            self._sum = None if self.length else hashlib.sha256()
        except OSError as error:
            raise storage_error(error, target) from error

    def note(self, **changes: Any) -> None:
        """Keep what the server says about the file."""
        changed = replace(self.origin, **changes)
        if changed != self.origin:
            self.origin = changed
            try:
                files.write_json(self._beside, asdict(changed))
            except OSError as error:
                raise storage_error(error, self.target) from error

    def restart(self) -> None:
        """Forget the bytes that are here."""
        self._file.truncate(0)
        self.length, self._sum = 0, hashlib.sha256()
        self.note(etag="", modified="", total=None)

    def append(self, data: bytes) -> None:
        """Write on. Raises DownloadError (reason "space") on a full disk, StorageError for any
        other failure."""
        view = memoryview(data)
        try:
            self._file.seek(self.length)
            while view:
                written = self._file.write(view)
                self.length += written
                if self._sum is not None and self.origin.sha256:
                    self._sum.update(view[:written])
                view = view[written:]
        except OSError as error:
            raise storage_error(error, self.target) from error

    def read(self, start: int, n: int) -> bytes:
        """At most `n` bytes from `start` on."""
        self._file.seek(start)
        return self._file.read(n)

    def digest(self) -> str:
        """SHA-256 of the whole, in hexadecimal digits. It was reckoned on the way, unless another
        process began the file: that one is read again, about a second for a gigabyte."""
        if self._sum is None:
            self._sum = hashlib.sha256()
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                self._sum.update(block)
        return self._sum.hexdigest()

    def finish(self) -> None:
        """Give the whole file its name: safe on the disk first, then there at once."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.path, self.target)
        except OSError as error:
            raise storage_error(error, self.target) from error
        self._beside.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def part_path(target: Path) -> Path:
    """Where the bytes of a file lie while it is fetched."""
    return target.with_name(f"{target.name}.part")


def part_paths(target: Path) -> tuple[Path, Path]:
    """`part_path`, and where its origin is kept."""
    return part_path(target), target.with_name(f"{target.name}.part.json")


def resumable_parts(folder: Path) -> dict[str, Origin]:
    """The downloads that can go on in *folder*, by the name of their file."""
    found = {}
    for path in sorted(folder.glob("*.part.json")):
        origin = _read(path)
        if origin is not None:
            found[path.name.removesuffix(".part.json")] = origin
    return found


def storage_error(error: OSError, path: Path) -> DownloadError | StorageError:
    """A full disk is a failed download; anything else is a fault of the folder."""
    if error.errno in _FULL:
        return DownloadError(f"no space is left for {path.name}", reason="space")
    return StorageError(f"{path}: {error.strerror or error}", errno=error.errno)


def _read(path: Path) -> Origin | None:
    """What a sidecar holds; None where it is absent or cannot be used."""
    try:
        origin = Origin(**files.read_json(path))
    except (OSError, ValueError, TypeError):
        return None
    texts = (origin.url, origin.etag, origin.modified, origin.sha256 or "")
    whole = origin.total is None or (isinstance(origin.total, int) and origin.total >= 0)
    return origin if whole and all(isinstance(text, str) for text in texts) else None
