"""Small files that appear whole or not at all, and folders that vanish at once."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HIDDEN", "hidden", "read_json", "vanish", "write_json"]

MAX_BYTES = 1 << 20
HIDDEN = ".nitro-"  # prefix of what is under way; no id begins with a dot


def hidden(folder: Path) -> Path:
    """A name in *folder* that nothing has, for what is under way."""
    return folder / f"{HIDDEN}{secrets.token_hex(8)}"


def write_json(path: Path, value: Any) -> None:
    """Write *value* to *path*: beside it first, then in its place. Raises OSError, and then an
    earlier file is as it was."""
    data = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    beside = hidden(path.parent)
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def read_json(path: Path) -> Any:
    """The value in *path*. Raises OSError, and ValueError for what is no JSON of at most 1 MiB."""
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    try:
        return json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def vanish(folder: Path, root: Path) -> None:
    """Remove *folder*, which lies below *root*, with all that is in it: it is gone at once, and
    what takes time happens under a hidden name. Links in it are removed, never followed. Raises
    OSError while it is still there."""
    if folder.is_symlink():
        folder.unlink()
    else:
        away = hidden(root)
        os.rename(folder, away)
        shutil.rmtree(away, ignore_errors=True)
    parent = folder.parent
    with contextlib.suppress(OSError):  # other models may lie in it
        while parent != root:
            parent.rmdir()
            parent = parent.parent


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
