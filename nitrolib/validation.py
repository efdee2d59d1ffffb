"""Validators compiled once from the bundled schemas: a wrong body becomes an `InvalidRequest`.

The schemas are those of the OpenAPI 3.1 documents in `nitrolib.schemas`, which are plain JSON
Schema 2020-12.
"""

from __future__ import annotations

import functools
import json
import reprlib
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jsonschema.exceptions import ValidationError

__all__ = ["Schema", "document_text", "schema", "shorten"]

_TYPES = {
    "array": "an array",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a text",
}


class Schema:
    """One schema of a document.

    properties: names the object may have; any other is unknown.
    defaults: those of its properties that have one.
    """

    def __init__(self, document: str, name: str) -> None:
        body = _document(document)["components"]["schemas"][name]
        fields: dict[str, Any] = body.get("properties", {})
        self.properties = frozenset(fields)
        self.defaults: Mapping[str, Any] = MappingProxyType(
            {name: field["default"] for name, field in fields.items() if "default" in field}
        )
        self._whole = frozenset(
            name for name, field in fields.items() if "integer" in field.get("type", ())
        )
        self._validator: Any = _compile(document, name)

    def check(self, instance: object) -> None:
        """Raise InvalidRequest for the first rule *instance* breaks.

        Its `field` is the JSON pointer without the leading slash (so a field of the body is its
        plain name), `pointer` the whole pointer, `rule` the schema keyword that failed, `value`
        what was found there (shortened), `allowed` what may be.
        """
        error = next(self._validator.iter_errors(instance), None)
        if error is not None:
            raise _refusal(error)

    def whole(self, name: str, value: Any) -> Any:
        """*value* of the property *name* as an int if that is its type: JSON writes 5.0 too."""
        return int(value) if isinstance(value, float) and name in self._whole else value

    def unknown(self, names: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of *names* that the schema has no property for, in their order."""
        return tuple(name for name in names if name not in self.properties)


@functools.cache
def schema(document: str, name: str) -> Schema:
    """The schema *name* of *document*, such as ("nitro", "ChatCompletionRequest")."""
    return Schema(document, name)


@functools.cache
def document_text(document: str) -> str:
    """A bundled OpenAPI document as it stands in its file."""
    folder = resources.files("nitrolib.schemas")
    return (folder / f"{document}.json").read_text(encoding="utf-8")


def shorten(value: object) -> str:
    """*value* for an error message, a line at most, however large or deep it is."""
    return _short.repr(value)


_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxstring = _short.maxother = _short.maxlong = 60


@functools.cache
def _document(document: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(document_text(document))
    return parsed


def _compile(document: str, name: str) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    uri = f"urn:nitrolib:{document}"
    registry = Registry().with_resource(uri, DRAFT202012.create_resource(_document(document)))
    keywords = {"anyOf": _any_of, "items": _items}
    quick: Any = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]
    return quick({"$ref": f"{uri}#/components/schemas/{name}"}, registry=registry)


def _any_of(
    validator: Any, branches: Any, instance: object, _schema: object
) -> Iterator[ValidationError]:
    """As the standard keyword, but a branch is left at its first error instead of collecting all
    of them: an array of a million wrong items costs one."""
    from jsonschema.exceptions import ValidationError

    if not any(validator.evolve(schema=branch).is_valid(instance) for branch in branches):
        yield ValidationError("no branch fits")


def _items(
    validator: Any, items: Any, instance: object, _schema: object
) -> Iterator[ValidationError]:
    """As the standard keyword, but items that are plainly right (token ids, texts) are passed over
    without a validator each."""
    if not isinstance(instance, list):
        return
    right = _plainly_right(items)
    for index, item in enumerate(instance):
        if not right(item):
            yield from validator.descend(item, items, path=index)


def _plainly_right(items: Mapping[str, Any]) -> Callable[[Any], bool]:
    """A quick test that only accepts what the schema *items* accepts; it may miss some."""
    if items.keys() <= {"type", "minimum"} and items.get("type") == "integer":
        least = items.get("minimum", float("-inf"))
        return lambda item: type(item) is int and item >= least
    if items.keys() <= {"type", "minLength"} and items.get("type") == "string":
        shortest = items.get("minLength", 0)
        return lambda item: type(item) is str and len(item) >= shortest
    return lambda _item: False


def _refusal(error: ValidationError) -> InvalidRequest:
    path = list(error.absolute_path)
    rule = str(error.validator)
    limit: Any = error.validator_value
    value: Any = error.instance
    allowed = _allowed(error)
    if rule == "required":
        path.append(next(name for name in limit if name not in value))
    elif rule == "anyOf" and "required" in limit[0]:
        path.append(limit[0]["required"][0])
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    field = pointer[1:] or None
    if allowed is None:
        message, value, allowed = f"{field} is required", None, "a value"
    else:
        message = f"{field or 'the body'} must be {allowed}, got {shorten(value)}"
    return InvalidRequest(
        message,
        field=field,
        value=value if isinstance(value, bool | int | float | None) else shorten(value),
        allowed=allowed,
        pointer=pointer,
        rule=rule,
    )


def _allowed(error: ValidationError) -> str | None:
    """What the broken rule allows, in words; None where something is missing altogether."""
    rule = str(error.validator)
    limit: Any = error.validator_value
    around: Any = error.schema
    if rule == "required" or (rule == "anyOf" and "required" in limit[0]):
        return None
    if rule == "type":
        kinds = [limit] if isinstance(limit, str) else [kind for kind in limit if kind != "null"]
        return " or ".join(_TYPES[kind] for kind in kinds)
    if rule in ("minimum", "maximum") and {"minimum", "maximum"} <= around.keys():
        return f"from {around['minimum']} to {around['maximum']}"
    if rule == "enum":
        return "one of " + ", ".join(json.dumps(item) for item in limit if item is not None)
    if rule == "anyOf":
        return " or ".join(branch["title"] for branch in limit)
    if rule == "not":
        return f"anything but {json.dumps(limit.get('const'))}"
    words = _RULES.get(rule, f"valid against the rule {rule}: {{}}")
    return words.format(limit)


_RULES = {
    "const": "{}",
    "exclusiveMaximum": "below {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "maxItems": "an array of at most {} items",
    "maxProperties": "an object of at most {} members",
    "maxLength": "a text of at most {} characters",
    "minimum": "{} or more",
    "minItems": "an array of {} or more items",
    "minLength": "a text of {} or more characters",
    "pattern": "a text that matches {}",
}
