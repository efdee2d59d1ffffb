"""Model ids and file names that may become paths, and the check that a folder is where its id says.

An id is one to four names joined by "/"; each must be a file name on Linux, macOS and Windows
alike, so that no id means two folders or a folder elsewhere.
"""

from __future__ import annotations

import os
import re
import unicodedata
from typing import TYPE_CHECKING, NoReturn

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_file_name", "check_id", "file_name", "id_from_name", "is_direct"]

MAX_PARTS = 4
MAX_NAME_BYTES = 120  # every system takes 255, and downloads add suffixes
ALLOWED = (
    f"1 to {MAX_PARTS} names joined by '/', each of at most {MAX_NAME_BYTES} bytes, without "
    'leading dot or space, trailing dot or space, control characters or any of \\ : * ? " < > |'
)
_FORBIDDEN = frozenset('\\:*?"<>|/')
# Names that Windows takes for devices, whatever follows the first dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\.|$)", re.I)


def check_id(id: str) -> str:  # noqa: A002 - the word of every dialect
    """*id*, if it can be a model's; raises InvalidRequest (field "id") otherwise."""
    if not isinstance(id, str):
        _refuse("id", id, f"it is {type(id).__name__}, not a text")
    parts = id.split("/")
    if len(parts) > MAX_PARTS:
        _refuse("id", id, f"it has {len(parts)} parts")
    for part in parts:
        if reason := _wrong(part):
            _refuse("id", id, reason)
    return id


def check_file_name(name: str, field: str = "filename") -> str:
    """*name*, if it can be a file in a model's folder; raises InvalidRequest otherwise."""
    if not isinstance(name, str):
        _refuse(field, name, f"it is {type(name).__name__}, not a text")
    if reason := _wrong(name):
        _refuse(field, name, reason)
    return name


def id_from_name(name: str) -> str:
    """An id made of a file's name: without ".gguf" and part numbers, what ids must not hold
    replaced by "-". Raises InvalidRequest where nothing is left."""
    return check_id(re.sub(r"-\d{5}-of-\d{5}$", "", _stem(name)))


def file_name(name: str) -> str:
    """The name of a GGUF file made of what a server calls it, as `id_from_name` makes an id."""
    return check_file_name(f"{_stem(name)}.gguf")


def _stem(name: str) -> str:
    stem = re.sub(r"\.gguf$", "", name, flags=re.I)
    kept = "".join("-" if c in _FORBIDDEN or not c.isprintable() else c for c in stem)
    return kept.strip(". ")


def is_direct(folder: Path, root: Path) -> bool:
    """Whether *folder* lies below *root* as its name says, no link on the way."""
    try:
        real = os.path.normpath(os.path.join(os.path.realpath(root), folder.relative_to(root)))
        return os.path.normcase(os.path.realpath(folder)) == os.path.normcase(real)
    except (OSError, ValueError):  # a loop of links, a NUL, another drive
        return False


def _wrong(name: str) -> str | None:
    """Why *name* cannot be one file's name; None if it can."""
    if not name:
        return "a part of it is empty"
    if name[0] in ". " or name[-1] in ". ":
        return f"{name!r} begins or ends with a dot or a space"
    for char in name:
        if char in _FORBIDDEN or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            return f"it holds {char!a}"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"{name[:20]!r}... is longer than {MAX_NAME_BYTES} bytes"
    if _DEVICES.match(name):
        return f"{name!r} is a device on Windows"
    return None


def _refuse(field: str, value: object, reason: str) -> NoReturn:
    shown = ascii(value)
    shown = shown if len(shown) <= 100 else f"{shown[:97]}..."
    allowed = ALLOWED if field == "id" else ALLOWED.partition("each of ")[2]
    raise InvalidRequest(
        f"{shown} cannot be a model's {field}: {reason}", field=field, value=value, allowed=allowed
    )
