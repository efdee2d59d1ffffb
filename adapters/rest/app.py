"""The WSGI application: `create_app()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nitrolib.config import Settings

from . import access, bodies, dialects, errors, openapi
from .paths import LowerCasePaths
from .service import Service

if TYPE_CHECKING:
    from flask import Flask
    from flask.typing import ResponseReturnValue

    from nitrolib.engine import Engine

__all__ = ["create_app"]


def create_app(engine: Engine | None = None, settings: Settings | None = None) -> Flask:
    """A Flask application that serves *engine*.

    engine: one that the caller owns and closes; None makes engines as they are wanted and loads the
        model of the settings (by default the bundled one), to be closed with
        `app.extensions["nitrolib"].close()`. Make the application after a fork, never before: an
        engine runs a thread.
    settings: None reads them from the environment.

    Raises InvalidRequest for wrong settings, and what loading the model raises.
    """
    from flask import Flask

    settings = Settings.from_environment() if settings is None else settings
    spoken = dialects.load(settings.dialects)
    app = Flask("nitrolib.adapters.rest", static_folder=None)
    app.url_map.merge_slashes = False  # `//` would be redirected, in HTML
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes + 1  # see jsonbody.read
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    errors.register(app)
    access.register(app, settings, spoken)
    bodies.register(app)
    dialects.register(app, spoken)
    openapi.register(app, spoken)
    app.add_url_rule(
        access.HEALTH, view_func=_health, methods=("GET",), provide_automatic_options=False
    )
    app.extensions["nitrolib"] = Service.open(engine, settings)
    any_case = [access.HEALTH, *(path for dialect in spoken for path in dialect.any_case)]
    app.wsgi_app = LowerCasePaths(app.wsgi_app, any_case)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        from werkzeug.middleware.proxy_fix import ProxyFix

        # Of what a proxy tells only the client's address is taken: nothing else is needed here.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0
        )
    return app


def _health() -> ResponseReturnValue:
    return {"message": "Nitro is alive!!!"}
