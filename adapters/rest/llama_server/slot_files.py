"""Slot files: what a slot holds, written to a file and read back into a slot of the same model.

A file holds one line of JSON about itself, then the native state as it is. Native code reads the
state, and trusts it; so a file that was changed, or that another model wrote, never gets there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nitrolib.errors import InvalidRequest, NotFound, StorageError
from nitrolib.models.ids import check_file_name

if TYPE_CHECKING:
    from nitrolib.engine.slot_state import SlotState
    from nitrolib.engine.status import ModelStatus

__all__ = ["SlotFile", "read", "write"]

_KIND, _VERSION = "nitrolib slot", 1
_MAX_HEAD = 1 << 26  # bytes of the line about the file: the tokens are in it


class SlotFile(NamedTuple):
    """A file that was written or read: its size in bytes, and what is in it."""

    size: int
    state: SlotState


def write(folder: str, name: str, state: SlotState, model: ModelStatus) -> SlotFile:
    """Write *state*, of a slot of *model*, to the file *name* in *folder*, which is made if need
    be. The file appears whole or not at all. Raises InvalidRequest for a name that leads
    elsewhere, and StorageError."""
    target = _target(folder, name)
    head = {
        "kind": _KIND,
        "version": _VERSION,
        "model": _fingerprint(model),
        "tokens": list(state.tokens),
        "lora": list(state.lora),
        "size": len(state.state),
    }
    head["sha256"] = _digest(head, state.state)
    line = json.dumps(head, separators=(",", ":")).encode() + b"\n"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, line + state.state)
    except OSError as error:
        raise _storage(error, f"slot file {name!r} cannot be written") from error
    return SlotFile(len(line) + len(state.state), state)


def read(folder: str, name: str, model: ModelStatus) -> SlotFile:
    """The state in the file *name* of *folder*. Raises NotFound, InvalidRequest for a name that
    leads elsewhere and for a file that is damaged or of another model, and StorageError."""
    from nitrolib.engine.slot_state import SlotState

    target = _target(folder, name)
    try:
        with target.open("rb") as file:
            line = file.readline(_MAX_HEAD)
            head = _head(line, name)
            state = file.read(head["size"] + 1)
    except FileNotFoundError:
        raise NotFound("slot file", name) from None
    except OSError as error:
        raise _storage(error, f"slot file {name!r} cannot be read") from error
    told = head.pop("sha256")
    if len(state) != head["size"] or told != _digest(head, state):
        raise _unfit(name, "it is damaged")
    if head["model"] != _fingerprint(model):
        raise _unfit(name, "it was saved from another model, or one loaded in another way")
    return SlotFile(
        len(line) + len(state), SlotState(tuple(head["tokens"]), state, tuple(head["lora"]))
    )


def _target(folder: str, name: str) -> Path:
    return Path(folder) / check_file_name(name)


def _head(line: bytes, name: str) -> dict[str, Any]:
    """The line about a file, of the right form; whether it is true is not known yet."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        raise _unfit(name, "it is no slot file") from None
    fields = {"model": dict, "tokens": list, "lora": list, "size": int, "sha256": str}
    if (
        not isinstance(head, dict)
        or (head.get("kind"), head.get("version")) != (_KIND, _VERSION)
        or not all(isinstance(head.get(field), kind) for field, kind in fields.items())
        or head["size"] < 0
    ):
        raise _unfit(name, "it is no slot file of this version")
    return head


def _fingerprint(model: ModelStatus) -> dict[str, Any]:
    """What must be the same for a state to fit."""
    return {
        "name": model.name,
        "architecture": model.architecture,
        "file_bytes": _size(model.path),
        "backend": model.backend,
        "library": model.library,
        "n_ctx": model.n_ctx,
        "n_vocab": model.n_vocab,
        "n_embd": model.n_embd,
        "lora": [os.path.basename(one.path) for one in model.lora],
    }


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest(head: dict[str, Any], state: bytes) -> str:
    summed = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    summed.update(state)
    return summed.hexdigest()


def _replace(target: Path, data: bytes) -> None:
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=".nitrolib-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def _unfit(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"slot file {name!r} cannot be restored: {why}",
        field="filename",
        value=name,
        allowed="a file that was saved from the loaded model",
    )


def _storage(error: OSError, message: str) -> StorageError:
    facts = {"reason": "space"} if error.errno == errno.ENOSPC else {}
    return StorageError(f"{message}: {error.strerror or 'unknown'}", **facts)
