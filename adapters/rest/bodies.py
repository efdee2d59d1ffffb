"""What clients send, read against the schemas: bodies, queries, and what was ignored of them.

A field that is null is as if it were absent. One that the schema does not know is ignored, and
named in the answer's `x-nitro-ignored` header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from flask import g, request

from nitrolib.errors import InvalidRequest
from nitrolib.validation import schema, shorten

from . import jsonbody

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flask import Flask, Response

__all__ = [
    "HEADER",
    "Body",
    "ignore",
    "ignore_inside",
    "read",
    "read_array",
    "read_query",
    "register",
]

HEADER = "x-nitro-ignored"
_MAX_NAMES = 16  # in the header


class Body(NamedTuple):
    """A body that was read: its fields, and the defaults of those that it leaves out."""

    fields: dict[str, Any]
    defaults: Mapping[str, Any]


def read(document: str, name: str, *, optional: bool = False, any_type: bool = False) -> Body:
    """The body of the current request, checked against the schema *name* of *document*.

    optional: no body at all is {}.
    any_type: a body is JSON whatever its Content-Type says.

    Raises InvalidRequest naming the field, and for what is no JSON object; werkzeug's
    RequestEntityTooLarge for a body over the limit.
    """
    rules = schema(document, name)
    given = jsonbody.read(request, optional=optional, any_type=any_type)
    fields = {key: value for key, value in given.items() if value is not None}
    ignore(*rules.unknown(fields))
    rules.check(fields)
    return Body({key: rules.whole(key, value) for key, value in fields.items()}, rules.defaults)


def read_array(document: str, name: str, field: str) -> list[Any]:
    """The body of the current request, an array, checked as the property *field* of the schema
    *name* of *document*. Raises as `read` does."""
    items = jsonbody.read_array(request)
    schema(document, name).check({field: items})
    return items


def read_query(document: str, name: str) -> Body:
    """The query of the current request, as an object of the schema *name*: numbers and booleans
    are read out of their texts. An empty value is absent; a name given twice is refused, as
    is whatever the schema refuses. What it does not know is not among the fields."""
    rules = schema(document, name)
    fields: dict[str, Any] = {}
    for key, texts in request.args.lists():
        if key in rules.properties and len(texts) > 1:
            raise InvalidRequest(
                f"{shorten(key)} is given {len(texts)} times", field=key[:64], allowed="once"
            )
        if texts[0]:
            fields[key] = _value(rules.fields.get(key, {}), texts[0])
    for key in rules.unknown(fields):
        ignore(key)
        del fields[key]
    rules.check(fields)
    return Body({key: rules.whole(key, value) for key, value in fields.items()}, rules.defaults)


def ignore(*names: str) -> None:
    """Report *names* as ignored in the answer to the current request."""
    if "ignored" not in g:
        g.ignored = []
    g.ignored += names


def ignore_inside(field: str, items: Sequence[Mapping[str, Any]], document: str, name: str) -> None:
    """Report the names in *items*, the objects in the array *field*, that the schema *name* does
    not know; each once."""
    rules = schema(document, name)
    given = ({k: v for k, v in item.items() if v is not None} for item in items)
    names = (name for item in given for name in rules.unknown(item))
    ignore(*(f"{field}/*/{name}" for name in dict.fromkeys(names)))


def register(app: Flask) -> None:
    """Name in every answer of *app* what was ignored of its request."""
    app.after_request(_report)


def _report(response: Response) -> Response:
    names: list[str] = g.get("ignored", [])
    if names:
        response.headers[HEADER] = ", ".join(_shown(names))
    return response


def _shown(names: Sequence[str]) -> Iterable[str]:
    yield from (quote(name[:64], safe="/") for name in names[:_MAX_NAMES])
    if len(names) > _MAX_NAMES:
        yield f"and {len(names) - _MAX_NAMES} more"


def _value(field: Mapping[str, Any], text: str) -> Any:
    """What *text* spells, where the field wants something else than a text; else the text, for the
    schema to refuse."""
    kinds = field.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "integer" in kinds and text.lstrip("-").isdecimal() and len(text) < 20:
        return int(text)
    if "boolean" in kinds and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    return text
