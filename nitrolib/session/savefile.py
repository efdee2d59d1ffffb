"""JSON files that are replaced whole and refused when damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from typing import Any

from ..errors import InvalidRequest

MAX_BYTES = 1 << 28


def write(path: str | os.PathLike[str], kind: str, version: int, content: dict[str, Any]) -> None:
    """Write `content` to `path` with its kind, version and SHA-256.

    The file appears whole or not at all: it is written beside `path` and takes its place at the
    end. Raises OSError, and then an earlier file is as it was.
    """
    target = os.path.abspath(os.fspath(path))
    body = _canonical(content)
    document = {"kind": kind, "version": version, "sha256": _digest(body), "content": content}
    data = json.dumps(document, indent=1).encode()
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".nitrolib-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def read(path: str | os.PathLike[str], kind: str, version: int) -> dict[str, Any]:
    """The content of a file that `write` wrote.

    Raises OSError where it cannot be read, and InvalidRequest (field "path") where it is something
    else, of another version, or changed since.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise refused(name, f"it is larger than {MAX_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise refused(name, f"it is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise refused(name, f"it is no {kind}")
    if document.get("version") != version:
        found = document.get("version")
        raise refused(name, f"it is of version {found!r}, and this is version {version}")
    content = document.get("content")
    if not isinstance(content, dict) or document.get("sha256") != _digest(_canonical(content)):
        raise refused(name, "its content does not match its checksum: it is damaged")
    return content


def refused(path: object, reason: str) -> InvalidRequest:
    """The error for a file that cannot be used."""
    return InvalidRequest(
        f"{path} cannot be loaded: {reason}",
        field="path",
        value=path,
        allowed="a file that was saved by this version, unchanged",
    )


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
