"""Dialect: what one REST dialect is made of, and where each of them is found.

A dialect is a package in this one, called as the dialect is (`nitro`, `llama_server`), with a
`DIALECT`. Whatever answers a request asks `answering()` in whose words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nitrolib.config import DIALECT_PORTS

from .problem import Problem, openai_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from http import HTTPStatus

    from flask import Blueprint, Flask, Request
    from flask.typing import ResponseReturnValue

__all__ = ["DIALECTS", "Dialect", "add_route", "answering", "load"]

DIALECTS = tuple(DIALECT_PORTS)  # their names


def _error_event(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"error": body["error"]} if "error" in body else body


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One REST dialect.

    name: as in `--dialect`; its blueprint is called the same.
    blueprint: its routes, made with `add_route`.
    document: the name of its OpenAPI document in nitrolib.schemas.
    error_body: the JSON body of an error.
    error_event: the event that tells of an error in a stream, made of that body.
    statuses: errors that it answers with another status than others do (`problem.STATUS`).
    public: paths that need no API key.
    key_header: another header than Authorization in which it takes an API key, where it has one.
    any_case: paths that match in any case, and beginnings of paths, which end in a slash.
    """

    name: str
    blueprint: Blueprint
    document: str
    error_body: Callable[[Problem], dict[str, Any]] = openai_body
    error_event: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _error_event
    statuses: Mapping[type[Exception], HTTPStatus] = field(
        default_factory=lambda: MappingProxyType({})
    )
    public: frozenset[str] = frozenset()
    key_header: str | None = None
    any_case: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """Where its clients expect it."""
        return DIALECT_PORTS[self.name]


def load(names: Iterable[str]) -> tuple[Dialect, ...]:
    """The dialects of these names, in their order; their packages are imported now."""
    homes = [f"{__package__}.{name.replace('-', '_')}" for name in names]
    return tuple(import_module(home).DIALECT for home in homes)


def add_route(
    blueprint: Blueprint,
    view: Callable[..., ResponseReturnValue],
    methods: tuple[str, ...],
    *paths: str,
) -> None:
    """Let *view* answer *methods* at all *paths*; OPTIONS is answered for every path elsewhere."""
    for path in paths:
        blueprint.add_url_rule(path, None, view, methods=methods, provide_automatic_options=False)


def register(app: Flask, dialects: tuple[Dialect, ...]) -> None:
    """Give *app* the routes of *dialects*. Where two have a path, the earlier one answers: the
    router takes the rule that was added first."""
    app.extensions["nitrolib.dialects"] = {dialect.name: dialect for dialect in dialects}
    for dialect in dialects:
        app.register_blueprint(dialect.blueprint)


def served(app: Flask) -> tuple[Dialect, ...]:
    """The dialects of *app*, in order."""
    return tuple(app.extensions["nitrolib.dialects"].values())


def answering(request: Request, app: Flask) -> Dialect:
    """The dialect whose route *request* is for: of a wrong method that which has the path, of an
    unknown path the first one served."""
    dialects: dict[str, Dialect] = app.extensions["nitrolib.dialects"]
    name = request.blueprint or _owner(request, app)
    return dialects.get(name or "") or next(iter(dialects.values()))


def _owner(request: Request, app: Flask) -> str | None:
    """The blueprint that has the path of *request* for another method."""
    from werkzeug.exceptions import HTTPException, MethodNotAllowed
    from werkzeug.routing import RequestRedirect

    wrong = request.routing_exception
    if not isinstance(wrong, MethodNotAllowed) or not wrong.valid_methods:
        return None
    adapter = app.create_url_adapter(request)
    assert adapter is not None
    try:
        endpoint, _ = adapter.match(method=sorted(wrong.valid_methods)[0])
    except (HTTPException, RequestRedirect):
        return None
    return str(endpoint).rpartition(".")[0] or None
