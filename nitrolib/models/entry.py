"""ModelEntry: one model that the registry knows, as plain facts; nothing is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ModelFileError, ModelNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from ..gguf import ModelInfo
    from .facts import Facts, FactsCache
    from .manifest import Manifest

__all__ = ["ModelEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model as it was found; a later look gives a new entry.

    folder: where its model.json lies. files: its model files, the one to load first; only those
        that are there. path: the GGUF file to load, None while it is absent.
    in_place: the file lies elsewhere and is only remembered.

    What the file itself tells is read when it is first asked for, about a millisecond, and kept
    for as long as the file stays as it is.
    """

    id: str
    folder: Path
    files: tuple[Path, ...]
    path: Path | None
    manifest: Manifest
    in_place: bool = False
    _facts: FactsCache = field(repr=False, compare=False)

    @property
    def present(self) -> bool:
        """Whether the file to load is there."""
        return self.path is not None

    @property
    def facts(self) -> Facts | None:
        """What the file's header tells; None while it is absent or cannot be read."""
        try:
            return self.examine()
        except (ModelFileError, ModelNotFound):
            return None

    @property
    def info(self) -> ModelInfo | None:
        """Sizes, architecture and template from the header; None as `facts`."""
        facts = self.facts
        return None if facts is None else facts.info

    def examine(self) -> Facts:
        """`facts`, or why there are none: raises ModelNotFound while the file is absent, and
        ModelFileError for one that is no sound model."""
        if self.path is None:
            raise ModelNotFound(self.id, f"the file of model {self.id!r} is not there")
        return self._facts.get(self.path)

    @property
    def name(self) -> str:
        """What model.json calls it, else the file, else the id."""
        if self.manifest.name:
            return self.manifest.name
        info = self.info
        return (info.name if info is not None else None) or self.id

    @property
    def description(self) -> str:
        facts = None if self.manifest.description else self.facts
        return self.manifest.description or (facts.description if facts is not None else "")

    @property
    def source_url(self) -> str:
        """Where it comes from: as model.json says, else the file itself as a file: URL, else ""."""
        if self.manifest.source_url and not self.in_place:
            return self.manifest.source_url
        return self.path.as_uri() if self.path is not None else self.manifest.source_url

    @property
    def assets(self) -> tuple[str, ...]:
        """The files as file: URLs."""
        return tuple(path.as_uri() for path in self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files; 0 while they are absent."""
        return sum(_size(path) for path in self.files)

    @property
    def created(self) -> int:
        """Unix seconds: as model.json says, else the time of the file, or the folder."""
        if self.manifest.created > 1:  # old files hold 0 and 1
            return self.manifest.created
        return _modified(self.path or self.folder)


def _modified(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
