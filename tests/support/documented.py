"""Holds answers against the OpenAPI document of a dialect: path, status and body must be there."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from nitrolib.validation import document, resolve

_BASE = "https://documents.invalid/"


def check_documented(
    name: str, method: str, path: str, status: int, kind: str, data: bytes
) -> None:
    """Fail where the document *name* has no such route, no such status for it, or another body.
    Bodies that are not JSON must be of a documented content type."""
    home, response = _response(name, method.lower(), _template(name, path), str(status))
    content = response.get("content", {})
    media = kind.split(";")[0]
    if not content:
        assert data == b"", (method, path, status, data)
        return
    assert media in content, f"{method} {path} {status} is {media}, documented are {[*content]}"
    if media == "application/json":
        _validator(home, json.dumps(content[media]["schema"])).validate(json.loads(data))


def _template(name: str, path: str) -> str:
    paths = document(name)["paths"]
    if path in paths:
        return path
    fitting = [one for one in paths if re.fullmatch(re.sub(r"\{[^}]*\}", ".+", one), path)]
    assert fitting, f"{name} documents no path {path}"
    return max(fitting, key=len)  # the one that says most: an id may have slashes


def _response(name: str, method: str, template: str, status: str) -> tuple[str, dict[str, Any]]:
    """The response, and the document that its references are relative to."""
    operation = document(name)["paths"][template].get(method)
    assert operation is not None, f"{name} documents no {method} of {template}"
    assert status in operation["responses"], f"{method} {template} is undocumented with {status}"
    response = operation["responses"][status]
    while "$ref" in response:
        name, response = resolve(name, response["$ref"])
    return name, response


@functools.cache
def _validator(home: str, schema: str) -> Draft202012Validator:
    return Draft202012Validator(_absolute(json.loads(schema), home), registry=_registry())


def _absolute(schema: Any, home: str) -> Any:
    """*schema* with its references made absolute."""
    if isinstance(schema, list):
        return [_absolute(one, home) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _absolute(value, home) for key, value in schema.items()}
    reference = found.get("$ref")
    if isinstance(reference, str) and not reference.startswith(_BASE):
        file, _, pointer = reference.partition("#")
        found["$ref"] = f"{_BASE}{file or home + '.json'}#{pointer}"
    return found


@functools.cache
def _registry() -> Registry[Any]:
    from importlib import resources

    folder = resources.files("nitrolib.schemas")
    names = [one.name for one in folder.iterdir() if one.name.endswith(".json")]
    made: list[tuple[str, Resource[Any]]] = [
        (_BASE + name, DRAFT202012.create_resource(document(name.removesuffix(".json"))))
        for name in names
    ]
    return Registry().with_resources(made)
