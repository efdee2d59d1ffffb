"""Which files are a model's: those in its folder that model.json names or that are there, or one
that lies elsewhere and is only remembered."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from .manifest import Manifest

__all__ = ["Found", "find", "is_gguf", "local_path"]

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """The files that are there, the one to load first; none while a part of it is missing."""

    files: tuple[Path, ...]
    in_place: bool = False


def is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf") and not name.startswith(".")


def find(folder: Path, manifest: Manifest) -> Found:
    """The files of the model in *folder*. Raises InvalidRequest for a name in the manifest that
    leads out of it."""
    present = _plain_files(folder)
    asked = manifest.model_file or next((file.filename for file in manifest.sources), "")
    if asked:
        return _whole(folder, present, asked) or _elsewhere(manifest)
    projector = str(manifest.settings.get("mmproj", ""))
    names = [name for name in present if name != projector and "mmproj" not in name.lower()]
    for name in names:
        found = _whole(folder, present, name)
        if found is not None:
            return found
    return _elsewhere(manifest)


def local_path(source_url: str) -> Path | None:
    """The path that a file: URL or an absolute path means; None for any other source."""
    if "\0" in source_url:
        return None
    if os.path.isabs(source_url):
        return Path(source_url)
    parts = urlsplit(source_url)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        return None
    path = url2pathname(parts.path) if os.name == "nt" else unquote(parts.path)
    return Path(path) if os.path.isabs(path) and "\0" not in path else None


def _whole(folder: Path, present: list[str], name: str) -> Found | None:
    """The model that begins with this file, all of its parts; None while one is missing."""
    if name not in present:
        return None
    part = _PART.search(name)
    if part is None:
        return Found((folder / name,))
    count = int(part[2])
    names = [f"{name[: part.start()]}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
    there = {one.lower(): one for one in present}
    if not 1 <= count <= 10_000 or any(one.lower() not in there for one in names):
        return None
    return Found(tuple(folder / there[one.lower()] for one in names))


def _elsewhere(manifest: Manifest) -> Found:
    path = local_path(manifest.source_url)
    try:
        if path is not None and stat.S_ISREG(os.stat(path).st_mode):
            return Found((path,), in_place=True)
    except OSError:
        pass
    return Found((), in_place=path is not None)


def _plain_files(folder: Path) -> list[str]:
    """Names of the GGUF files in *folder*, sorted. A link would lead elsewhere: such a model is
    registered in place instead."""
    try:
        with os.scandir(folder) as found:
            return sorted(
                e.name for e in found if is_gguf(e.name) and e.is_file(follow_symlinks=False)
            )
    except OSError:
        return []
