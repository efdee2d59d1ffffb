"""The OpenAPI documents that a server shows: one for each of its dialects, and all of them merged.

The bundled documents refer to each other by file name. What is shown stands alone: what it refers
to is taken in, under names of its own.
"""

from __future__ import annotations

import copy
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from nitrolib.validation import document

from .problem import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flask import Flask
    from flask.typing import ResponseReturnValue

    from .dialects import Dialect

__all__ = ["COMMON", "merged", "register"]

COMMON = "common"  # the document of the routes that every server has
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})

Place = tuple[str, str, str]  # document, section of its components, name


def merged(names: Sequence[str]) -> dict[str, Any]:
    """The documents *names*, and the common one, as one that refers to nothing else. Where two have
    a method of a path, the earlier one's stands."""
    return _Merger([*names, COMMON]).document()


class _Merger:
    """Gathers paths and components; a name that two documents have is written `document.name` for
    the later one."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(dict.fromkeys(names))
        self._called: dict[Place, str] = {}
        self._taken: set[tuple[str, str]] = set()  # section and name
        self._components: dict[str, dict[str, Any]] = {}
        self._operations: set[str] = set()
        self._paths: dict[str, dict[str, Any]] = {}

    def document(self) -> dict[str, Any]:
        for name in self._names:
            for path, item in document(name)["paths"].items():
                self._add_path(name, path, item)
            for section, components in document(name)["components"].items():
                for one in components:
                    self._take_in((name, section, one))
        first = document(self._names[0])
        info = first["info"] if len(self._names) == 2 else _info(self._names)
        return {
            "openapi": first["openapi"],
            "info": info,
            "jsonSchemaDialect": first["jsonSchemaDialect"],
            "servers": [{"url": "/"}],
            "security": self._security(),
            "tags": self._tags(),
            "paths": self._paths,
            "components": {name: self._components[name] for name in sorted(self._components)},
        }

    def _add_path(self, name: str, path: str, item: dict[str, Any]) -> None:
        shared = item.get("parameters", [])
        known = self._same_path(path)
        target = self._paths.setdefault(known, {})
        renamed = dict(zip(_variables(path), _variables(known), strict=True))
        for method, operation in item.items():
            if method not in _METHODS or method in target:
                continue
            made = self._rewritten(name, operation)
            parameters = [*self._rewritten(name, shared), *made.pop("parameters", [])]
            for parameter in parameters:
                if parameter.get("in") == "path":
                    parameter["name"] = renamed.get(parameter["name"], parameter["name"])
            if parameters:
                made = {**made, "parameters": parameters}
            if "operationId" in made:
                made["operationId"] = self._operation_id(name, made["operationId"])
            target[method] = made

    def _same_path(self, path: str) -> str:
        """The path that is there already and differs in names of variables at most, or *path*."""
        shape = _shape(path)
        return next((known for known in self._paths if _shape(known) == shape), path)

    def _operation_id(self, name: str, wanted: str) -> str:
        if wanted in self._operations:
            wanted = f"{name.replace('-', '_')}_{wanted}"
        self._operations.add(wanted)
        return wanted

    def _take_in(self, place: Place) -> str:
        """What the component *place* is called here; it is taken in when it is met first."""
        if place in self._called:
            return self._called[place]
        name, section, one = place
        called = one if (section, one) not in self._taken else f"{name}.{one}"
        body = document(name)["components"][section][one]
        if section == "securitySchemes" and self._components.get(section, {}).get(one) == body:
            called = one
        self._called[place] = called
        self._taken.add((section, called))
        self._components.setdefault(section, {})[called] = None  # in the order of first meeting
        self._components[section][called] = self._rewritten(name, body)
        return called

    def _rewritten(self, name: str, node: Any) -> Any:
        """A copy of *node*, which stands in the document *name*, with its references made those of
        the merged document."""
        if isinstance(node, list):
            return [self._rewritten(name, one) for one in node]
        if not isinstance(node, dict):
            return node
        made = {}
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                made[key] = self._reference(name, value)
            elif key in ("example", "examples", "default", "enum", "const"):
                made[key] = copy.deepcopy(value)
            else:
                made[key] = self._rewritten(name, value)
        return made

    def _reference(self, name: str, reference: str) -> str:
        file, _, pointer = reference.partition("#")
        _, _, section, one, *rest = pointer.split("/")
        called = self._take_in((file.removesuffix(".json") or name, section, one))
        return "/".join(["#/components", section, called, *rest])

    def _security(self) -> list[dict[str, Any]]:
        ways: list[dict[str, Any]] = []
        for name in self._names:
            for way in document(name).get("security", []):
                made = {self._take_in((name, "securitySchemes", one)): way[one] for one in way}
                if made not in ways:
                    ways.append(made)
        return ways

    def _tags(self) -> list[dict[str, Any]]:
        tags = {tag["name"]: tag for name in self._names for tag in document(name).get("tags", [])}
        return [*tags.values()]


def register(app: Flask, spoken: tuple[Dialect, ...]) -> None:
    """Give *app* the routes of its documents, `/openapi.json` and one for each dialect, and the
    reference pages made from them."""
    from flask import Response

    from .reference import page

    documents = {dialect.name: dialect.document for dialect in spoken}
    texts: dict[tuple[str, str | None], str] = {}  # made when they are first asked for

    def made(form: str, dialect: str | None) -> str:
        if dialect is not None and dialect not in documents:
            message = f"this server does not speak {dialect[:64]!r}"
            raise Refused(HTTPStatus.NOT_FOUND, message, "not_found")
        if (form, dialect) not in texts:
            wanted = documents.values() if dialect is None else [documents[dialect]]
            whole = merged([*wanted])
            texts[form, dialect] = (
                json.dumps(whole, ensure_ascii=False)
                if form == "json"
                else page(whole, [*documents], dialect)
            )
        return texts[form, dialect]

    def openapi(dialect: str | None = None) -> ResponseReturnValue:
        return Response(made("json", dialect), mimetype="application/json")

    def docs(dialect: str | None = None) -> ResponseReturnValue:
        answer = Response(made("html", dialect), mimetype="text/html")
        # The page needs nothing but itself.
        answer.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return answer

    for path, view in (
        ("/openapi.json", openapi),
        ("/openapi/<dialect>.json", openapi),
        ("/docs", docs),
        ("/docs/<dialect>", docs),
    ):
        app.add_url_rule(path, view_func=view, methods=("GET",), provide_automatic_options=False)


def _info(names: Iterable[str]) -> dict[str, Any]:
    spoken = [document(name)["info"] for name in names if name != COMMON]
    common = document(COMMON)["info"]
    told = "\n\n".join(f"{info['title']}: {info.get('description', '')}" for info in spoken)
    return {**common, "description": f"{common['description']}\n\n{told}"}


def _variables(path: str) -> list[str]:
    return re.findall(r"\{([^}]*)\}", path)


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def operations(whole: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of every operation of a document."""
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            if method in _METHODS:
                yield path, method, operation
