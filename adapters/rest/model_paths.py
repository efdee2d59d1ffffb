"""Which files of the server's machine a client may name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nitrolib.errors import Forbidden

if TYPE_CHECKING:
    from nitrolib.config import Settings

__all__ = ["ModelPaths"]


class ModelPaths:
    """The rule of one server.

    Where only this machine can reach it, any path will do: whoever asks could read the file anyway.
    Else a path leads into the models folder, or one that the operator allows, as it is written:
    no "..", no link on the way. What is refused is refused alike whether it exists or not.
    """

    def __init__(self, settings: Settings) -> None:
        self._any = settings.is_local
        given = (settings.models_folder, *map(Path, settings.allow_paths))
        self._folders = tuple(os.path.abspath(folder) for folder in given)

    def check(self, path: str) -> str:
        """*path* as it is to be opened: a relative one is looked for in the models folder where
        paths are limited. Raises Forbidden."""
        if self._any:
            return path
        if ".." not in path.replace("\\", "/").split("/"):
            wanted = os.path.abspath(os.path.join(self._folders[0], path))
            if any(_leads_into(wanted, folder) for folder in self._folders):
                return wanted
        raise Forbidden("models by path must lie in the models folder of this server")


def _leads_into(path: str, folder: str) -> bool:
    """Whether the absolute *path* is below *folder*, and no link below that is on the way."""
    try:
        inner = os.path.relpath(path, folder)
        if inner == os.curdir or inner.split(os.sep)[0] == os.pardir or os.path.isabs(inner):
            return False
        below = [path]
        while len(below[-1]) > len(folder):
            below.append(os.path.dirname(below[-1]))
        if any(os.path.islink(step) for step in below[:-1]):
            return False
        # Other kinds of links, such as the junctions of Windows.
        real = os.path.join(os.path.realpath(folder), inner)
        return os.path.normcase(os.path.realpath(path)) == os.path.normcase(real)
    except (OSError, ValueError):  # another drive
        return False
