"""Paths of the Nitro routes match case-insensitively: clients write loadModel and loadmodel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PREFIX = "/inferences/"
_EXACT = frozenset({"/apply-template", "/healthz", "/v1/chat/completions", "/v1/embeddings"})


class LowerCasePaths:
    """WSGI middleware: a path of these routes reaches the router in lower case; every other path,
    with names and ids of whatever case in it, stays as it is."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        lowered = environ.get("PATH_INFO", "").lower()
        if lowered in _EXACT or lowered.startswith(_PREFIX):
            environ["PATH_INFO"] = lowered
        return self._app(environ, start_response)
