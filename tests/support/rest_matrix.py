"""Every route and every field of the REST documents, as requests to send and what must come back.

    for case in cases("nitro", bases=BASES):
        answer = send(case.method, case.path, case.query, case.body)
        case.check(answer.status, answer.headers, answer.text)

Nothing is listed by hand: routes, fields, types, ranges and statuses are those of the documents, so
that what a document has cannot be forgotten here.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from nitrolib.errors import InvalidRequest
from nitrolib.validation import Schema, document, resolve, schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["UNKNOWN", "Case", "Operation", "cases", "operations"]

Kind = Literal[
    "expected", "value", "wrong type", "out of range", "missing", "null", "unknown", "no body"
]
UNKNOWN = "no_such_field"
_METHODS = ("get", "put", "post", "delete", "patch")
# One of every type, and of every type something odd; those that a schema accepts are no mistakes.
_OTHERS: tuple[Any, ...] = ({"odd": [{}]}, [[["odd"]]], True, 7.25, "\x00odd", -(10**12), 10**12)


@dataclass(frozen=True)
class Operation:
    """One method of one path of a document."""

    document: str
    path: str
    method: str
    spec: Mapping[str, Any]
    parameters: tuple[Mapping[str, Any], ...]

    @property
    def id(self) -> str:
        found: str = self.spec["operationId"]
        return found

    @cached_property
    def statuses(self) -> frozenset[int]:
        """Those that are documented."""
        return frozenset(int(status) for status in self.spec["responses"])

    @cached_property
    def _request(self) -> tuple[str, Mapping[str, Any] | None]:
        if "requestBody" not in self.spec:
            return self.document, None
        return _followed(self.document, self.spec["requestBody"])

    @property
    def request(self) -> Mapping[str, Any] | None:
        """What is documented of the body; None where there is none."""
        return self._request[1]

    @cached_property
    def rules(self) -> Schema | None:
        """The schema of the body, where that is an object with a name."""
        content = {} if self.request is None else self.request["content"]
        place = content.get("application/json", {}).get("schema", {}).get("$ref")
        if place is None:
            return None
        home, _, name = place.rpartition("/")
        file = home.partition("#")[0].removesuffix(".json")
        return schema(file or self._request[0], name)

    def example(self) -> Any:
        """A body that the document shows, else the least that its schema wants."""
        assert self.request is not None
        content = self.request["content"]["application/json"]
        shown = [content["example"]] if "example" in content else []
        shown += [one["value"] for one in content.get("examples", {}).values()]
        if shown:
            return copy.deepcopy(shown[0])
        if self.rules is None:
            return _value(content["schema"], self._request[0])
        required = _required(self._request[0], content["schema"])
        return {name: _value(self.rules.fields[name], self.rules.document) for name in required}

    def place(self, variables: Mapping[str, str]) -> str:
        """The path with its variables filled in: those given, else the first of an enumeration,
        else a name that means nothing."""
        given = {one["name"]: one for one in self.parameters if one["in"] == "path"}

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            if name in variables:
                return quote(variables[name], safe="/")
            first = given[name].get("schema", {}).get("enum", ["unknown"])[0]
            return str(first)

        return re.sub(r"\{([^}]*)\}", fill, self.path)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request.

    kind: what is tried, on `field` where it is about one: in slashes, places in arrays as numbers.
    statuses: that may come back. named: a text that the body of an error must hold.
    ignored: the name that the header x-nitro-ignored must have.
    """

    operation: Operation
    kind: Kind
    path: str
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    field: str | None = None
    statuses: frozenset[int]
    named: str | None = None
    ignored: str | None = None

    @property
    def method(self) -> str:
        return self.operation.method.upper()

    @property
    def id(self) -> str:
        name = f"{self.operation.document} {self.operation.id}: {self.kind}"
        return name if self.field is None else f"{name} {self.field}"

    def at(self, variables: Mapping[str, str]) -> Case:
        """The same request at the path with these variables."""
        return replace(self, path=self.operation.place(variables))

    def check(self, status: int, headers: Mapping[str, str], text: str) -> None:
        """Fail where an answer is not what the case allows."""
        shown = f"{self.id}\n{json.dumps(self.body)[:500]}\n{status} {text[:500]}"
        assert status in self.operation.statuses, f"undocumented status: {shown}"
        assert status in self.statuses, f"not one of {sorted(self.statuses)}: {shown}"
        if status in (400, 413, 422) and self.named is not None:
            assert self.named in text, f"{self.named!r} is not named: {shown}"
        if self.ignored is not None and status < 400:
            names = headers.get("x-nitro-ignored", "").split(", ")
            assert self.ignored in names, f"{self.ignored!r} is not reported: {shown}"


def operations(name: str) -> tuple[Operation, ...]:
    """Every operation of the document *name*, preflights apart."""
    found = []
    for path, item in document(name)["paths"].items():
        for method in _METHODS:
            if method in item:
                spec = item[method]
                given = [*item.get("parameters", []), *spec.get("parameters", [])]
                parameters = tuple(_followed(name, one)[1] for one in given)
                found.append(Operation(name, path, method, spec, parameters))
    return tuple(found)


def cases(
    name: str,
    *,
    bases: Mapping[str, Any] | None = None,
    variables: Mapping[str, Mapping[str, str]] | None = None,
    expected: Mapping[str, int] | None = None,
) -> Iterator[Case]:
    """Every case of the document *name*.

    bases: bodies that are answered well, by operationId; else those that the document shows.
    variables: of paths, by operationId.
    expected: the status of a good request, by operationId, where it is not one of 200 to 299.
    """
    for operation in operations(name):
        path = operation.place((variables or {}).get(operation.id, {}))
        good = frozenset(one for one in operation.statuses if one < 300)
        good = good or operation.statuses  # of what is not offered, or has nothing to do
        if expected and operation.id in expected:
            good = frozenset({expected[operation.id]})
        base = None
        if operation.request is not None:
            base = (bases or {}).get(operation.id)
            base = operation.example() if base is None else base
        query = {
            one["name"]: _query_value(operation.document, one)
            for one in operation.parameters
            if one["in"] == "query" and one.get("required")
        }
        first = Case(
            operation=operation, kind="expected", path=path, body=base, query=query, statuses=good
        )
        yield first
        yield from _query_cases(first)
        if operation.rules is not None:
            yield from _body_cases(first)
        elif operation.request is not None:
            odd = frozenset({400, 415, 422})
            yield replace(first, kind="wrong type", body={"odd": 1}, statuses=odd)


# ---- bodies --------------------------------------------------------------------------------------


def _body_cases(first: Case) -> Iterator[Case]:
    operation, rules = first.operation, first.operation.rules
    assert rules is not None
    assert isinstance(first.body, dict)
    rules.check(first.body)
    unknown = {**first.body, UNKNOWN: 1}
    yield replace(first, kind="unknown", field=UNKNOWN, body=unknown, ignored=UNKNOWN)
    if operation.request is not None and operation.request.get("required"):
        yield replace(first, kind="no body", body=None, statuses=frozenset({400, 415, 422}))
    for place, body in _fields(rules.document, rules.fields, first.body, ()):
        yield from _field_cases(first, place, body)


def _fields(
    home: str, fields: Mapping[str, Any], body: Any, at: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """The place and schema of every field, those inside objects and arrays of objects too where the
    body has such an object."""
    for name, one in fields.items():
        spot = (*at, name)
        yield spot, one
        yield from _inner(home, one, _get(body, spot), body, spot)


def _inner(
    home: str, one: Mapping[str, Any], value: Any, body: Any, spot: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    home, one = _followed(home, one)
    if isinstance(value, dict) and one.get("properties"):
        yield from _fields(home, _resolved_fields(home, one), body, spot)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "items" in one:
        home, item = _followed(home, one["items"])
        yield from _fields(home, _resolved_fields(home, item), body, (*spot, 0))
    for way in (*one.get("anyOf", ()), *one.get("oneOf", ())):
        yield from _inner(home, way, value, body, spot)


def _resolved_fields(home: str, one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(_followed(home, own)[1]) | dict(own)
            for name, own in one.get("properties", {}).items()}  # fmt: skip


def _field_cases(first: Case, place: tuple[Any, ...], one: Mapping[str, Any]) -> Iterator[Case]:
    name = "/".join(map(str, place))
    at = replace(first, field=name)
    # What is not offered at all may say so before it looks at fields.
    statuses = frozenset({400, 413, 422}) | first.statuses & {501}
    refused: dict[str, Any] = {"statuses": statuses, "named": str(place[-1])}
    # A good value may be one that this server, or its model, cannot honour: then it says so.
    may = first.statuses | {400, 404, 409, 501} & first.operation.statuses
    own = _get(first.body, place)
    for value in (*_told_values(one), *([] if own is None else [own]), *_made_values(one)):
        body = _with(first.body, place, value)
        if _mistake(first, body) is None:
            yield replace(at, kind="value", body=body, statuses=may, named=str(place[-1]))
            break
    for kind, body in _bad_bodies(first, place, one):
        yield replace(at, kind=kind, body=body, **refused)
    for kind, body in (
        ("missing", _without(first.body, place)),
        ("null", _with(first.body, place, None)),
    ):
        mistake = _mistake(first, body)
        if mistake is not None:  # where one of several will do it may name another
            named = (mistake.field or "").rpartition("/")[2]
            yield replace(at, kind=kind, body=body, **{**refused, "named": named})
        elif body != first.body:
            # What is absent may have been what another field needs.
            yield replace(at, kind=kind, body=body, statuses=may)


def _bad_bodies(
    first: Case, place: tuple[Any, ...], one: Mapping[str, Any]
) -> Iterator[tuple[Kind, Any]]:
    """Bodies in which this field is what its schema refuses: one of another type, then one over
    every limit."""
    for value in _OTHERS:
        body = _with(first.body, place, value)
        if _is_about(_mistake(first, body), place):
            yield "wrong type", body
            break
    for value in _over_limits(one):
        body = _with(first.body, place, value)
        if _is_about(_mistake(first, body), place):
            yield "out of range", body


def _mistake(first: Case, body: Any) -> InvalidRequest | None:
    """What the schema says of *body*, null at its top being absent."""
    rules = first.operation.rules
    assert rules is not None
    try:
        rules.check({name: value for name, value in body.items() if value is not None})
    except InvalidRequest as error:
        return error
    return None


def _is_about(error: InvalidRequest | None, place: tuple[Any, ...]) -> bool:
    parts = tuple(map(str, place))
    return error is not None and tuple((error.field or "").split("/"))[: len(parts)] == parts


def _told_values(one: Mapping[str, Any]) -> Iterator[Any]:
    """Values that a schema itself gives."""
    yield from one.get("examples", ())
    if "example" in one:
        yield one["example"]
    yield from (value for value in one.get("enum", ()) if value is not None)
    if "const" in one:
        yield one["const"]
    if one.get("default") is not None:
        yield one["default"]


def _made_values(one: Mapping[str, Any]) -> Iterator[Any]:
    yield _value(one, "")
    yield from (1, 0, 2, "text", True, ["text"], [1], {}, [])


def _over_limits(one: Mapping[str, Any]) -> Iterator[Any]:
    kinds = _kinds(one)
    if "minimum" in one:
        yield one["minimum"] - 1
    if "maximum" in one:
        yield one["maximum"] + 1
    if "exclusiveMinimum" in one:
        yield one["exclusiveMinimum"]
    if "exclusiveMaximum" in one:
        yield one["exclusiveMaximum"]
    if one.get("maxLength", 1 << 20) < 1 << 20 and "string" in kinds:
        yield "x" * (one["maxLength"] + 1)
    if one.get("minLength") and "string" in kinds:
        yield ""
    if one.get("maxItems", 1 << 14) < 1 << 14 and "array" in kinds:
        yield [_value(one.get("items", {}), "")] * (one["maxItems"] + 1)
    if one.get("minItems") and "array" in kinds:
        yield []
    if "enum" in one:
        yield "none-of-these"


# ---- queries -------------------------------------------------------------------------------------


def _query_cases(first: Case) -> Iterator[Case]:
    for one in first.operation.parameters:
        if one["in"] != "query":
            continue
        name = one["name"]
        rule = _followed(first.operation.document, one.get("schema", {}))[1]
        at = replace(first, field=f"?{name}")
        refused = {"statuses": frozenset({400, 422}), "named": name}
        may = first.statuses | {400, 404} & first.operation.statuses
        text = _query_value(first.operation.document, one)
        yield replace(at, kind="value", query={**first.query, name: text}, statuses=may)
        if one.get("required"):
            rest = {key: value for key, value in first.query.items() if key != name}
            yield replace(at, kind="missing", query=rest, **refused)
        if _kinds(rule) & {"integer", "number", "boolean"} or "enum" in rule:
            yield replace(at, kind="wrong type", query={**first.query, name: "odd"}, **refused)
        for value in _over_limits({k: rule[k] for k in ("minimum", "maximum") if k in rule}):
            over = {**first.query, name: str(value)}
            yield replace(at, kind="out of range", query=over, **refused)


def _query_value(home: str, one: Mapping[str, Any]) -> str:
    """A text that a parameter of a query may be."""
    rule = _followed(home, one.get("schema", {}))[1]
    values = (*_told_values(rule), *_made_values(rule))
    value = next((v for v in values if isinstance(v, str | int)), "x")
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- schemas and values --------------------------------------------------------------------------


def _followed(home: str, node: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What *node* refers to, and the document where that stands."""
    while "$ref" in node:
        home, node = resolve(home, node["$ref"])
    return home, node


def _required(home: str, node: Mapping[str, Any]) -> list[str]:
    home, node = _followed(home, node)
    found = [*node.get("required", ())]
    for part in node.get("allOf", ()):
        found += _required(home, part)
    if node.get("anyOf"):
        found += node["anyOf"][0].get("required", ())
    return found


def _kinds(one: Mapping[str, Any]) -> frozenset[str]:
    kinds = one.get("type", ())
    return frozenset([kinds] if isinstance(kinds, str) else kinds)


def _value(one: Mapping[str, Any], home: str) -> Any:
    """The least that a schema allows."""
    if home:
        home, one = _followed(home, one)
    if "enum" in one:
        return one["enum"][0]
    if "const" in one:
        return one["const"]
    for way in (*one.get("anyOf", ()), *one.get("oneOf", ())):
        return _value(way, home)
    kinds = _kinds(one) - {"null"}
    if "string" in kinds:
        return "x" * max(one.get("minLength", 1), 1)
    if "integer" in kinds or "number" in kinds:
        return max(one.get("minimum", 1), min(1, one.get("maximum", 1)))
    if "boolean" in kinds:
        return True
    if "array" in kinds:
        return [_value(one.get("items", {}), home)] * max(one.get("minItems", 1), 1)
    if "object" in kinds:
        fields = one.get("properties", {})
        return {name: _value(fields[name], home) for name in one.get("required", ())}
    return "x"


def _get(body: Any, place: tuple[Any, ...]) -> Any:
    for part in place:
        if isinstance(body, dict):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
        else:
            return None
    return body


def _with(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(body)
    inner = _get(made, place[:-1])
    inner[place[-1]] = value
    return made


def _without(body: Any, place: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(body)
    inner = _get(made, place[:-1])
    if isinstance(inner, dict):
        inner.pop(place[-1], None)
    return made
