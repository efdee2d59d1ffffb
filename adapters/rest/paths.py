"""Paths that match in any case: Nitro's clients write loadModel and loadmodel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["LowerCasePaths"]


class LowerCasePaths:
    """WSGI middleware: a path that is one of *paths* in any case, or begins with one that ends in a
    slash, reaches the router in lower case; every other path, with names and ids of whatever case
    in it, stays as it is."""

    def __init__(self, app: Callable[..., Iterable[bytes]], paths: Iterable[str]) -> None:
        self._app = app
        paths = tuple(paths)
        self._exact = frozenset(path for path in paths if not path.endswith("/"))
        self._beginnings = tuple(path for path in paths if path.endswith("/"))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        lowered = environ.get("PATH_INFO", "").lower()
        if lowered in self._exact or lowered.startswith(self._beginnings):
            environ["PATH_INFO"] = lowered
        return self._app(environ, start_response)
