"""Who may use the server, and how much: Host and Origin allow-lists, CORS answers, API keys.

A page on another site must not drive, load into or read from a local engine. The Origin header
tells which page a browser sends for; the Host header tells a page that has its own name resolve to
this machine (DNS rebinding) from one that was opened here. Both are checked before anything else.
"""

from __future__ import annotations

import hmac
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response, current_app, g

from nitrolib.config import is_loopback
from nitrolib.validation import shorten

from .dialects import answering
from .problem import Refused
from .rate_limit import RateLimit, address_of

if TYPE_CHECKING:
    from flask import Flask, Request

    from nitrolib.config import Settings

    from .dialects import Dialect

__all__ = ["Access", "key_name", "register"]

log = logging.getLogger(__name__)

HEALTH = "/healthz"
PUBLIC = frozenset({HEALTH})  # answered without a key, besides those of the dialects
_DAY_S = 86400


class Access:
    """The rules of one server, from its settings. Raises InvalidRequest for keys that cannot be
    used."""

    def __init__(self, settings: Settings, spoken: tuple[Dialect, ...]) -> None:
        self._public = PUBLIC.union(*(dialect.public for dialect in spoken))
        self._keys = [(key.name, key.key.encode()) for key in settings.api_keys()]
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.cors_origins)
        self._any_origin = "*" in self._origins
        # A name that the operator lets pages come from is a name this server may be called by.
        names = {urlsplit(origin).hostname for origin in self._origins}
        self._hosts = frozenset({*names, *map(str.lower, settings.allow_hosts)})
        self._rate = RateLimit(settings.rate_limit) if settings.rate_limit else None
        self._check_host = bool(settings.allow_hosts) or (
            settings.is_local and not self._any_origin
        )

    def check(self, request: Request) -> Response | None:
        """Raise Refused for a request that is not allowed; answer a preflight."""
        self._check_host_of(request)
        self._check_origin_of(request)
        if request.method == "OPTIONS":
            return _preflight(request)
        if request.path not in self._public:
            self._check_key_of(request)
        return None

    def mark(self, request: Request, response: Response) -> Response:
        """Tell a browser that the page may read this answer."""
        response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if self._any_origin:
            response.headers["Access-Control-Allow-Origin"] = "*"
        elif origin is not None and self._allows(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
        if origin is not None:
            response.headers["Access-Control-Expose-Headers"] = (
                "x-nitro-ignored, x-request-id, Retry-After"
            )
        return response

    def _allows(self, origin: str) -> bool:
        if self._any_origin or origin.rstrip("/").lower() in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            host = parts.hostname
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and host is not None and is_loopback(host)

    def _check_origin_of(self, request: Request) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and not self._allows(origin):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"pages of {shorten(origin)} may not use this server",
                "origin_not_allowed",
            )

    def _check_host_of(self, request: Request) -> None:
        # Without the header there is no browser: those always send it.
        host = request.headers.get("Host")
        if not self._check_host or not host:
            return
        try:
            name = urlsplit("//" + host).hostname
        except ValueError:
            name = None
        if name is None or not (is_loopback(name) or name in self._hosts):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"this server is not called {shorten(host)}",
                "host_not_allowed",
            )

    def _check_key_of(self, request: Request) -> None:
        """Everything needs a key, unknown paths too, but for what is public. A request without the
        right one counts for its address: keys cannot be guessed faster than requests be sent."""
        name = self._whose(_given_key(request)) if self._keys else None
        if self._rate is not None:
            self._rate.take(address_of(request.remote_addr) if name is None else f"key {name}")
        if not self._keys:
            return
        if name is None:
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "the API key is missing or wrong",
                "invalid_api_key",
                {"WWW-Authenticate": "Bearer"},
            )
        g.key_name = name
        # Escaped: a path may spell line breaks.
        log.info("key %s: %s %s", name, request.method, ascii(request.path[:200]))

    def _whose(self, given: bytes) -> str | None:
        """The name of a key; the time it takes does not tell which keys come close."""
        found = None
        for name, key in self._keys:
            if hmac.compare_digest(given, key):
                found = name
        return found


def key_name() -> str | None:
    """Whose key the current request came with; None where it needed none."""
    name: str | None = g.get("key_name")
    return name


def register(app: Flask, settings: Settings, spoken: tuple[Dialect, ...]) -> None:
    """Put the rules in front of every route of *app*, and the CORS headers on every answer."""
    from flask import request

    access = Access(settings, spoken)
    app.before_request(lambda: access.check(request))
    app.after_request(lambda response: access.mark(request, response))


def _given_key(request: Request) -> bytes:
    """The key of a request; b"" is never one. Encoded: compare_digest takes text only where it is
    ASCII."""
    authorization = request.headers.get("Authorization", "")
    other = answering(request, current_app).key_header
    if not authorization and other is not None:
        return request.headers.get(other, "").strip().encode("utf-8", "replace")
    scheme, _, given = authorization.partition(" ")
    return given.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""


def _preflight(request: Request) -> Response | None:
    """The answer to OPTIONS on a path that exists; None leaves an unknown one to its 404."""
    adapter = current_app.create_url_adapter(request)
    methods = sorted({*(adapter.allowed_methods() if adapter else ())} - {"HEAD", "OPTIONS"})
    if not methods:
        return None
    wanted = request.headers.get("Access-Control-Request-Headers", "").lower()
    response = Response(status=HTTPStatus.OK)
    response.headers["Allow"] = ", ".join([*methods, "OPTIONS"])
    response.headers["Access-Control-Allow-Methods"] = ", ".join([*methods, "OPTIONS"])
    # For browsers the star means every header but this one.
    response.headers["Access-Control-Allow-Headers"] = (
        "*, Authorization" if "authorization" in wanted else "*"
    )
    response.headers["Access-Control-Max-Age"] = str(_DAY_S)
    return response
