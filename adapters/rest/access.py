"""Who may use the server: Host and Origin allow-lists, CORS answers, the API key.

A page on another site must not drive, load into or read from a local engine. The Origin header
tells which page a browser sends for; the Host header tells a page that has its own name resolve to
this machine (DNS rebinding) from one that was opened here. Both are checked before anything else.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.exceptions import MethodNotAllowed

from nitrolib.config import is_loopback
from nitrolib.validation import shorten

from .problem import Refused

if TYPE_CHECKING:
    from flask import Flask, Request, Response

    from nitrolib.config import Settings

    from .dialects import Dialect

__all__ = ["Access", "register"]

PUBLIC = frozenset({"/healthz"})  # answered without a key, besides those of the dialects


class Access:
    """The rules of one server, from its settings."""

    def __init__(self, settings: Settings, spoken: tuple[Dialect, ...]) -> None:
        self._public = PUBLIC.union(*(dialect.public for dialect in spoken))
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.cors_origins)
        self._any_origin = "*" in self._origins
        # A name that the operator lets pages come from is a name this server may be called by.
        self._hosts = frozenset(urlsplit(origin).hostname for origin in self._origins)
        self._check_host = settings.is_local and not self._any_origin
        self._key = settings.api_key.encode() if settings.api_key else None

    def check(self, request: Request) -> Response | None:
        """Raise Refused for a request that is not allowed; answer a preflight."""
        self._check_host_of(request)
        self._check_origin_of(request)
        if request.method == "OPTIONS":
            return _preflight(request)
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
            response.headers["Access-Control-Expose-Headers"] = "x-nitro-ignored, Retry-After"
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
        if self._key is None or request.path in self._public:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Encoded first: compare_digest takes text only where it is ASCII.
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._key)
        if scheme.lower() != "bearer" or not right:
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "the API key is missing or wrong",
                "invalid_api_key",
                {"WWW-Authenticate": "Bearer"},
            )


def register(app: Flask, settings: Settings, spoken: tuple[Dialect, ...]) -> None:
    """Put the rules in front of every route of *app*, and the CORS headers on every answer."""
    from flask import request

    access = Access(settings, spoken)
    app.before_request(lambda: access.check(request))
    app.after_request(lambda response: access.mark(request, response))


def _preflight(request: Request) -> Response | None:
    """The answer to OPTIONS on a route that exists; None leaves an unknown one to its 404."""
    from flask import Response

    error = request.routing_exception
    if not isinstance(error, MethodNotAllowed):
        return None
    methods = sorted({*(error.valid_methods or ())} - {"HEAD"})
    wanted = request.headers.get("Access-Control-Request-Headers", "").lower()
    response = Response(status=HTTPStatus.OK)
    response.headers["Allow"] = ", ".join([*methods, "OPTIONS"])
    response.headers["Access-Control-Allow-Methods"] = ", ".join([*methods, "OPTIONS"])
    # For browsers the star means every header but this one.
    response.headers["Access-Control-Allow-Headers"] = (
        "*, Authorization" if "authorization" in wanted else "*"
    )
    return response
