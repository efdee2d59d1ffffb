"""Validators compiled once from the bundled schemas: a wrong body becomes an `InvalidRequest`.

The schemas are those of the OpenAPI 3.1 documents in `nitrolib.schemas`, which are plain JSON
Schema 2020-12. One document may refer to another's schema by its file name:
`{"$ref": "nitro.json#/components/schemas/Message"}`.
"""

from __future__ import annotations

import functools
import json
import re
import reprlib
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from .errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jsonschema.exceptions import ValidationError

__all__ = ["Schema", "document", "document_text", "resolve", "schema", "shorten"]

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

    document: its name; references in `fields` are relative to it.
    fields: the schemas of its properties, references resolved, those that `$ref` and `allOf` bring
        among them; what stands beside a reference goes before it.
    properties: names the object may have; any other is unknown.
    defaults: those of its properties that have one.
    """

    def __init__(self, document: str, name: str) -> None:
        self.document = document
        fields = _fields(document, _at(document, f"/components/schemas/{name}"))
        self.fields: Mapping[str, dict[str, Any]] = MappingProxyType(fields)
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
def document(name: str) -> dict[str, Any]:
    """A bundled OpenAPI document, parsed: shared by all, and not to be changed."""
    parsed: dict[str, Any] = json.loads(document_text(name))
    return parsed


def resolve(document_name: str, reference: str) -> tuple[str, dict[str, Any]]:
    """What a `$ref` in *document_name* leads to, and the name of the document where that stands.
    Raises KeyError where it leads nowhere."""
    file, _, pointer = reference.partition("#")
    home = file.removesuffix(".json") if file else document_name
    return home, _at(home, pointer)


def _at(document_name: str, pointer: str) -> dict[str, Any]:
    found: Any = document(document_name)
    for part in pointer.split("/")[1:]:
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return cast("dict[str, Any]", found)


def _fields(document_name: str, body: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of a schema and of those it is made of, each with its reference resolved."""
    fields: dict[str, dict[str, Any]] = {}
    if "$ref" in body:
        home, target = resolve(document_name, body["$ref"])
        fields |= _moved(_fields(home, target), home, document_name)
    for part in body.get("allOf", ()):
        fields |= _fields(document_name, part)
    for name, field in body.get("properties", {}).items():
        fields[name] = _resolved(document_name, field)
    return fields


def _resolved(document_name: str, field: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in field:
        return field
    home, target = resolve(document_name, field["$ref"])
    found: dict[str, Any] = _moved(_resolved(home, target), home, document_name)
    return found | field


def _moved(node: Any, home: str, document_name: str) -> Any:
    """*node*, which stands in the document *home*, with references that lead to the same places
    from *document_name*."""
    if home == document_name or not isinstance(node, dict | list):
        return node
    if isinstance(node, list):
        return [_moved(one, home, document_name) for one in node]
    moved = {name: _moved(one, home, document_name) for name, one in node.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = f"{home}.json{reference}"
    return moved


_OTHER_DOCUMENTS = re.compile(r'"\$ref": "([a-z-]+)\.json#')
_BASE = "https://nitrolib.invalid/"  # what file names are relative to; nothing is ever fetched


def _registry(name: str) -> Any:
    """The document *name* and all that it refers to, by their addresses."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    wanted, found = [name], set()
    registry: Any = Registry()
    while wanted:
        one = wanted.pop()
        if one not in found:
            found.add(one)
            resource = DRAFT202012.create_resource(document(one))
            registry = registry.with_resource(f"{_BASE}{one}.json", resource)
            wanted += _OTHER_DOCUMENTS.findall(document_text(one))
    return registry


def _compile(document_name: str, name: str) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    keywords = {"anyOf": _any_of, "items": _items}
    quick: Any = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]
    place = {"$ref": f"{_BASE}{document_name}.json#/components/schemas/{name}"}
    return quick(place, registry=_registry(document_name))


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
    if items.keys() <= {"type", "minimum", "maximum"} and items.get("type") == "integer":
        least, most = items.get("minimum", float("-inf")), items.get("maximum", float("inf"))
        return lambda item: type(item) is int and least <= item <= most
    if items.keys() <= {"type", "minLength", "maxLength"} and items.get("type") == "string":
        shortest, longest = items.get("minLength", 0), items.get("maxLength", float("inf"))
        return lambda item: type(item) is str and shortest <= len(item) <= longest
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
        return " or ".join(one["title"] for one in limit if one.get("type") != "null")
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
