"""Registry: the models of one folder, each in a folder of its own with model.json and GGUF files.

Several threads and several processes may use one folder: every change is one rename, so whoever
looks sees the state before it or the one after.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, InvalidRequest, ModelNotFound, StorageError
from . import files, layout
from .entry import ModelEntry
from .facts import FactsCache
from .ids import MAX_PARTS, check_id, is_direct
from .manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Registry"]

MANIFEST = "model.json"
_log = logging.getLogger(__name__)


class Registry:
    """The models in the folder *root*, which need not exist yet.

    A model's id is the path of its folder below *root*. A folder with a GGUF file and no model.json
    is a model too. What cannot be used is left out, logged once, and explained by `problems`.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(os.fspath(root)))
        self._facts = FactsCache()
        self._lock = threading.Lock()
        self._warned: set[tuple[str, str]] = set()

    # ---- looking ---------------------------------------------------------------------------

    def entries(self) -> tuple[ModelEntry, ...]:
        """Every model, by id; those whose file is absent included."""
        return tuple(found for found in self._scan() if isinstance(found, ModelEntry))

    def problems(self) -> dict[str, str]:
        """Why a folder of the registry is no model, by id."""
        return {found[0]: found[1] for found in self._scan() if isinstance(found, tuple)}

    def get(self, id: str) -> ModelEntry:  # noqa: A002 - the word of every dialect
        """The model *id*. Raises ModelNotFound, whose `reason` says why where its folder is there,
        also for what can be no id."""
        try:
            folder = self._folder(check_id(id))
        except InvalidRequest as error:
            raise ModelNotFound(str(id), reason=error.message) from None
        # What a link on the way leads to is not even listed.
        there = is_direct(folder.parent, self.root) and self._holds_model(folder)
        found = self._read(id, folder) if there else None
        if isinstance(found, ModelEntry):
            return found
        if found is None:
            raise ModelNotFound(id, reason="")
        raise ModelNotFound(id, f"model {id!r} cannot be used: {found[1]}", reason=found[1])

    def find(self, name: str) -> ModelEntry | None:
        """The model with this id, or whose file has this path; None if there is none."""
        with contextlib.suppress(ModelNotFound):
            return self.get(name)
        if not os.path.isabs(name) and not name.lower().endswith(".gguf"):
            return None
        try:
            wanted = os.path.realpath(name)
        except (OSError, ValueError):
            return None
        for entry in self.entries():
            if entry.path is not None and os.path.realpath(entry.path) == wanted:
                return entry
        return None

    # ---- changing --------------------------------------------------------------------------

    def add(
        self,
        id: str,  # noqa: A002
        *,
        path: str | os.PathLike[str] | None = None,
        **manifest: Any,
    ) -> ModelEntry:
        """Remember a model: a file at *path*, in place, or one that is to be downloaded
        (`source_url` or `sources`). Other keywords are those of `Manifest.new`.

        The same model once more changes nothing. Raises InvalidRequest for a bad id or field,
        ModelFileError for a file at *path* that is no sound model, Conflict where the id is another
        model's, StorageError where the folder cannot be written.
        """
        check_id(id)
        if path is not None:
            local = Path(os.path.abspath(os.fspath(path)))
            self._facts.get(local)
            manifest |= {"source_url": local.as_uri()}
        made = Manifest.new(id, **manifest)
        if not made.source_url:
            raise InvalidRequest(
                "a model needs a path or a source_url",
                field="source_url",
                value=None,
                allowed="a URL, or the path of a GGUF file",
            )
        with self._lock:
            return self._add(made)

    def update(self, id: str, **changes: Any) -> ModelEntry:  # noqa: A002
        """Change fields of a model's manifest, given as those of `Manifest.new`. Raises
        ModelNotFound, InvalidRequest, StorageError."""
        with self._lock:
            entry = self.get(id)
            document = {**entry.manifest.as_json(), **changes}
            self._write(entry.folder, Manifest.parse(document, id))
        return self.get(id)

    def remove(self, id: str) -> None:  # noqa: A002
        """Forget a model and delete what lies in its folder; a file in place elsewhere stays. A
        folder that holds only a broken model.json can be removed too. Raises ModelNotFound,
        StorageError."""
        try:
            folder = self._folder(check_id(id))
        except InvalidRequest as error:
            raise ModelNotFound(str(id), reason=error.message) from None
        with self._lock:
            if not is_direct(folder.parent, self.root) or not self._holds_model(folder):
                raise ModelNotFound(id, reason="")
            try:
                files.vanish(folder, self.root)
            except FileNotFoundError:
                raise ModelNotFound(id, reason="") from None
            except OSError as error:
                raise _storage(error, f"model {id!r} cannot be removed") from error

    # ---- inside ----------------------------------------------------------------------------

    def _folder(self, id: str) -> Path:  # noqa: A002
        """The folder of an id that was checked."""
        return self.root.joinpath(*id.split("/"))

    def _scan(self) -> Iterator[ModelEntry | tuple[str, str]]:
        """Every model, and (id, reason) for what looks like one and cannot be used."""
        yield from self._scan_below(self.root, ())

    def _scan_below(
        self, folder: Path, parts: tuple[str, ...]
    ) -> Iterator[ModelEntry | tuple[str, str]]:
        for name in _subfolders(folder):
            id = "/".join((*parts, name))  # noqa: A001
            below = folder / name
            try:
                check_id(id)
            except InvalidRequest as error:
                yield self._problem(id, error.message)
                continue
            if self._holds_model(below):
                found = self._read(id, below)
                if found is not None:
                    yield found
            elif not below.is_symlink() and len(parts) + 1 < MAX_PARTS:
                yield from self._scan_below(below, (*parts, name))

    def _holds_model(self, folder: Path) -> bool:
        """Whether a folder, real or linked, is a model's: further folders in it are not looked
        at."""
        names = _names(folder)
        return MANIFEST in names or any(layout.is_gguf(name) for name in names)

    def _read(self, id: str, folder: Path) -> ModelEntry | tuple[str, str] | None:  # noqa: A002
        if not is_direct(folder, self.root):
            return self._problem(id, "its folder is a link, which may lead anywhere")
        try:
            data = _read_manifest(folder)
        except FileNotFoundError:
            return None  # removed a moment ago
        except (OSError, ValueError) as error:
            return self._problem(id, f"{MANIFEST} cannot be read: {error}")
        try:
            manifest = Manifest.parse(data, id)
            found = layout.find(folder, manifest)
        except InvalidRequest as error:
            return self._problem(id, f"{MANIFEST}: {error.message}")
        return ModelEntry(
            id=id,
            folder=folder,
            files=found.files,
            path=found.files[0] if found.files else None,
            manifest=manifest,
            in_place=found.in_place,
            _facts=self._facts,
        )

    def _problem(self, id: str, reason: str) -> tuple[str, str]:  # noqa: A002
        if (id, reason) not in self._warned:
            self._warned.add((id, reason))
            _log.warning("model %r is left out: %s", id, reason)
        return id, reason

    def _add(self, manifest: Manifest) -> ModelEntry:
        id, folder = manifest.id, self._folder(manifest.id)  # noqa: A001
        for above in list(folder.parents)[: id.count("/")]:
            if self._holds_model(above):
                raise Conflict(
                    f"{above.relative_to(self.root).as_posix()!r} is a model, and {id!r} would lie "
                    "in its folder",
                    id=id,
                )
        if not is_direct(folder, self.root):
            raise Conflict(f"{id!r} is taken by a link", id=id)
        known = self._known(manifest, folder)
        if known is not None:
            return known
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._appear(folder, manifest)
        except FileExistsError:
            known = self._known(manifest, folder)
            if known is None:
                raise Conflict(
                    f"{id!r} is taken: there is something else in that folder", id=id
                ) from None
            return known
        except OSError as error:
            raise _storage(error, f"model {id!r} cannot be added") from error
        return self.get(id)

    def _known(self, manifest: Manifest, folder: Path) -> ModelEntry | None:
        """The model that is there already, if it is this one; raises Conflict for another one."""
        if not os.path.lexists(folder):
            return None
        if not self._holds_model(folder):
            if os.listdir(folder) if folder.is_dir() else True:
                raise Conflict(f"{manifest.id!r} is taken by other models", id=manifest.id)
            return None
        try:
            entry = self.get(manifest.id)
        except ModelNotFound as error:
            raise Conflict(f"{manifest.id!r} is taken: {error.message}", id=manifest.id) from error
        if entry.manifest.source_url == manifest.source_url or (
            entry.source_url == manifest.source_url
        ):
            return entry
        raise Conflict(
            f"{manifest.id!r} is taken by a model from {entry.source_url or 'elsewhere'}",
            id=manifest.id,
            source_url=entry.source_url,
        )

    def _appear(self, folder: Path, manifest: Manifest) -> None:
        """Make the folder with its model.json under a hidden name and give it its own."""
        away = files.hidden(self.root)
        os.mkdir(away)
        try:
            self._write(away, manifest)
            for _ in range(10):
                folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    return _rename_folder(away, folder)
                except FileNotFoundError:  # another process removed the last model beside it
                    continue
                except FileExistsError:  # unless another process has removed it since
                    if os.path.lexists(folder):
                        raise
            _rename_folder(away, folder)
        except BaseException:
            shutil.rmtree(away, ignore_errors=True)
            raise

    def _write(self, folder: Path, manifest: Manifest) -> None:
        try:
            files.write_json(folder / MANIFEST, manifest.as_json())
        except OSError as error:
            raise _storage(error, f"model.json of {manifest.id!r} cannot be written") from error


def _read_manifest(folder: Path) -> Any:
    """What model.json holds, {} for a folder that has files alone. Raises FileNotFoundError for a
    folder that is gone, OSError and ValueError. Another process may replace it meanwhile."""
    path = folder / MANIFEST
    while True:
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise ValueError("it is not a plain file")
            return files.read_json(path)
        except FileNotFoundError:  # noqa: PERF203 - it rarely comes to a second time
            names = _names(folder)
            if MANIFEST in names:
                continue
            if any(layout.is_gguf(name) for name in names):
                return {}
            raise


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _rename_folder(source: Path, target: Path) -> None:
    """Raises FileExistsError where something other than an empty folder is in the way."""
    try:
        os.rename(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or os.path.lexists(target):
            raise FileExistsError(error.errno, error.strerror, str(target)) from error
        raise


def _subfolders(folder: Path) -> list[str]:
    """Names of the folders in *folder*, links to folders included; hidden ones are not models."""
    try:
        with os.scandir(folder) as found:
            return sorted(e.name for e in found if not e.name.startswith(".") and _is_folder(e))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _log.warning("%s cannot be read: %s", folder, error.strerror)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _storage(error: OSError, what: str) -> StorageError:
    return StorageError(f"{what}: {error.strerror or error}", errno=error.errno)
