"""Threads and assistants that Jan left on disk, read into a store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, InvalidRequest
from .ids import is_id
from .records import text_part

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from .messages import Fields
    from .records import Json
    from .store import Store

__all__ = ["Imported", "import_jan"]

_MILLISECONDS = 10**11  # larger times are not in seconds: as seconds they are the year 5138
_MAX_BYTES = 1 << 28  # of one file


@dataclass(frozen=True, slots=True)
class Imported:
    """What `import_jan` found: counts, and `skipped`, a sentence for each thing it left out."""

    threads: int
    messages: int
    assistants: int
    skipped: tuple[str, ...]


def import_jan(store: Store, folder: str | os.PathLike[str]) -> Imported:
    """Read the folder of data that Jan kept (`threads/*/thread.json` with `messages.jsonl`,
    `assistants/*/assistant.json`) into *store*.

    A thread is read whole or not at all, and one whose id is there already is left as it is, so
    that reading the same folder again adds nothing. Times in milliseconds become seconds, messages
    are ordered by their times, and a line that was half written is left out. Raises StorageError.
    """
    return _Import(store, Path(folder)).run()


class _Import:
    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._skipped: list[str] = []
        self._messages = 0

    def run(self) -> Imported:
        assistants = sum(map(self._assistant, self._files("assistants", "assistant.json")))
        threads = sum(map(self._thread, self._files("threads", "thread.json")))
        return Imported(threads, self._messages, assistants, tuple(self._skipped))

    def _files(self, kind: str, name: str) -> Iterator[Path]:
        try:
            folders = sorted((self._folder / kind).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from (folder / name for folder in folders if (folder / name).is_file())

    def _assistant(self, path: Path) -> bool:
        return self._made(path, lambda data: self._make_assistant(path.parent.name, data))

    def _thread(self, path: Path) -> bool:
        return self._made(path, lambda data: self._make_thread(path.parent, data))

    def _made(self, path: Path, make: Any) -> bool:
        """Whether *make* made something of the object in a file; else it is told why not."""
        try:
            data = json.loads(_text(path))
            if not isinstance(data, dict):
                raise InvalidRequest("it holds no JSON object")
            with self._store.transaction():
                made = make(data)
        except (OSError, ValueError, RecursionError, Conflict) as error:
            self._skip(path, str(error))
            return False
        self._messages += made
        return True

    def _make_assistant(self, name: str, data: Json) -> int:
        self._store.assistants.create(
            id=name,
            created_at=_seconds(data.get("created_at")),
            name=_str(data.get("name")) or name,
            description=_str(data.get("description")) or None,
            avatar=_str(data.get("avatar")),
            models=_objects(data.get("models")) or [{"model_id": "*"}],
            instructions=_str(data.get("instructions")),
            events={"in": [], "out": []},
            metadata=_object(data.get("metadata")),
        )
        return 0

    def _make_thread(self, folder: Path, data: Json) -> int:
        """Make a thread and its messages; returns how many these are."""
        thread = self._store.threads.create(
            id=folder.name,
            created_at=_seconds(data.get("created") or data.get("created_at")),
            title=_str(data.get("title") or data.get("summary")),
            assistants=_objects(data.get("assistants")) or [{"assistant_id": "jan"}],
            metadata=_object(data.get("metadata")),
        )
        messages = list(self._read_messages(folder / "messages.jsonl"))
        messages.sort(key=lambda one: _seconds(one.get("created_at")) or 0)
        self._store.messages.create_many(thread.id, [_message(one) for one in messages])
        return len(messages)

    def _read_messages(self, path: Path) -> Iterator[Json]:
        if not path.is_file():
            return
        for number, line in enumerate(_text(path).split("\n"), 1):
            if not line.strip():
                continue
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                self._skip(path, f"line {number} is not whole")
                continue
            if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
                self._skip(path, f"line {number} is no message of a user or an assistant")
                continue
            yield message

    def _skip(self, path: Path, why: str) -> None:
        self._skipped.append(f"{path.relative_to(self._folder).as_posix()}: {why}")


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InvalidRequest(f"it is larger than {_MAX_BYTES} bytes")
    return data.decode("utf-8-sig", "replace")


def _message(data: Json) -> Fields:
    given, status = _str(data.get("id")), data.get("status", "ready")
    files = [file for file in data.get("file_ids") or () if isinstance(file, str)]
    return {
        "id": given if is_id(given) else None,
        "created_at": _seconds(data.get("created_at")),
        "role": data["role"],
        "content": _content(data.get("content")),
        "file_ids": list(dict.fromkeys(filter(is_id, files))),
        "assistant_id": _str(data.get("assistant_id")) or None,
        "status": "completed" if status in ("ready", "completed") else "incomplete",
        "completed_at": _seconds(data.get("completed_at")),
        "metadata": _object(data.get("metadata")),
    }


def _seconds(value: Any) -> int | None:
    """A time in seconds, also of one in milliseconds; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        return None
    return int(value / 1000 if value > _MILLISECONDS else value)


def _content(value: Any) -> list[Json]:
    if isinstance(value, str):
        return [text_part(value)]
    return _objects(value)


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
