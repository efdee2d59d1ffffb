"""What only a whole JSON schema shows: loops, schemas without an end, alternatives that overlap or
multiply. For schemas that a walk has written anew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from .constraint_disjoint import Disjoint
from .constraint_walk import pointer_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .constraint_walk import Schema

__all__ = ["Whole", "parts"]

MAX_ALTERNATIVES = 256
"""Ways in which the alternatives of `anyOf` and `oneOf` at one place combine."""

_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


class Refuse(Protocol):
    """Raises InvalidRequest for a place, saying what is wrong, the value and what is allowed."""

    def __call__(self, at: str, what: str, value: Any, allowed: str) -> NoReturn: ...


class Whole:
    """A schema with its definitions and their pointers in the original."""

    def __init__(
        self,
        schema: Schema,
        definitions: Mapping[str, Schema],
        pointers: Mapping[str, str],
        refuse: Refuse,
    ) -> None:
        self.schema = schema
        self.definitions = definitions
        self.pointers = pointers
        self.refuse = refuse
        self.alternatives: dict[str, int] = {}

    def check(self) -> None:
        """Refuse what cannot be enforced; turn every oneOf into the anyOf that means the same."""
        self.check_loops()
        self.check_ends()
        places = self.places()
        disjoint = Disjoint(self.definitions)
        for at, node in places:
            self.check_alternatives(node, at)
            if "oneOf" in node and not disjoint.all_apart(node["oneOf"]):
                self.refuse(
                    at + "/oneOf",
                    "the alternatives of oneOf may overlap, which is not enforced",
                    node["oneOf"],
                    "alternatives that differ in type, constants or a required property; or anyOf",
                )
        for _, node in places:
            if "oneOf" in node:
                _one_of_to_any_of(node)

    def check_loops(self) -> None:
        """No reference may come back to itself without a property or an item between."""
        edges = {name: set(_refs_in_place(node)) for name, node in self.definitions.items()}
        while leaves := [name for name, targets in edges.items() if not targets & edges.keys()]:
            for name in leaves:
                del edges[name]
        for name in edges:
            self.refuse(self.pointers[name], "a reference to itself", name, "no such loop")

    def check_ends(self) -> None:
        """Every schema that refers to itself must have a finite instance, or an answer that enters
        it never ends."""
        finite: set[str] = set()
        while True:
            found = {name for name, node in self.definitions.items() if _ends(node, finite)}
            if found == finite:
                break
            finite = found
        for name in self.definitions:
            if name not in finite:
                self.refuse(self.pointers[name], "a schema that has no end", name, "a way out")
        if not _ends(self.schema, finite):
            self.refuse(
                "", "no answer can satisfy the schema", self.schema, "a schema with an instance"
            )

    def check_alternatives(self, node: Schema, at: str) -> int:
        """How many alternatives hold at one place, refused where they multiply to too many. Types
        do not count: alternatives of different types do not combine."""
        if not isinstance(node, dict):
            return 1
        factors = [
            sum(self.check_alternatives(item, at) for item in node[key])
            for key in ("anyOf", "oneOf")
            if key in node
        ]
        factors += [self.check_alternatives(item, at) for item in node.get("allOf", ())]
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            if name not in self.alternatives:
                self.alternatives[name] = self.check_alternatives(
                    self.definitions[name], self.pointers[name]
                )
            factors.append(self.alternatives[name])
        combined = math.prod(factors)
        if combined > MAX_ALTERNATIVES and sum(factor > 1 for factor in factors) > 1:
            self.refuse(
                at, "too many combinations", combined, f"at most {MAX_ALTERNATIVES} of them"
            )
        return combined

    def places(self) -> list[tuple[str, dict[str, Any]]]:
        """Every schema object, once, with its pointer in the original."""
        found: list[tuple[str, dict[str, Any]]] = []
        todo: list[tuple[Schema, str]] = [(self.schema, "")]
        seen: set[int] = set()
        while todo:
            node, at = todo.pop()
            if isinstance(node, dict) and id(node) not in seen:
                seen.add(id(node))
                found.append((at, node))
                todo += parts(node, at, self.definitions, self.pointers)
        return found


def _in_place(node: dict[str, Any]) -> list[Schema]:
    return [item for key in ("allOf", "anyOf", "oneOf") for item in node.get(key, ())]


def _refs_in_place(node: Schema) -> list[str]:
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
    return own + [name for item in _in_place(node) for name in _refs_in_place(item)]


def _ends(node: Schema, finite: set[str]) -> bool:
    """Whether an instance is found, given the definitions that have one; keywords other than those
    that nest are taken to be satisfiable."""
    if not isinstance(node, dict):
        return node
    if "$ref" in node and node["$ref"].rpartition("/")[2] not in finite:
        return False
    if not all(_ends(item, finite) for item in node.get("allOf", ())):
        return False
    for key in ("anyOf", "oneOf"):
        if key in node and not any(_ends(item, finite) for item in node[key]):
            return False
    types = node.get("type", _TYPES)
    types = [types] if isinstance(types, str) else types
    if "enum" in node or "const" in node or set(types) - {"object", "array"}:
        return True
    return ("object" in types and _object_ends(node, finite)) or (
        "array" in types and _array_ends(node, finite)
    )


def _object_ends(node: dict[str, Any], finite: set[str]) -> bool:
    listed, other = node.get("properties", {}), node.get("additionalProperties", True)
    if "patternProperties" in node:
        other = True  # some name may match one: taken to be satisfiable
    return all(_ends(listed.get(name, other), finite) for name in node.get("required", ()))


def _array_ends(node: dict[str, Any], finite: set[str]) -> bool:
    first, rest = node.get("prefixItems", []), node.get("items", True)
    least = node.get("minItems", 0)
    return all(_ends(item, finite) for item in first[:least]) and (
        least <= len(first) or _ends(rest, finite)
    )


def parts(
    node: dict[str, Any],
    at: str,
    definitions: Mapping[str, Schema],
    pointers: Mapping[str, str],
) -> Iterator[tuple[Schema, str]]:
    """The schemas inside a schema, what it refers to first, with their pointers."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        yield definitions[name], pointers[name]
    for key in ("allOf", "anyOf", "oneOf", "prefixItems"):
        for index, item in enumerate(node.get(key, ())):
            yield item, f"{at}/{key}/{index}"
    for key in ("properties", "patternProperties"):
        for name, item in node.get(key, {}).items():
            yield item, f"{at}/{key}{pointer_key(name)}"
    for key in ("items", "additionalProperties"):
        if key in node:
            yield node[key], f"{at}/{key}"


def _one_of_to_any_of(node: dict[str, Any]) -> None:
    """In place, the key where it stood: with alternatives apart, both mean the same."""
    items = list(node.items())
    node.clear()
    both = any(key == "anyOf" for key, _ in items)
    for key, value in items:
        if key != "oneOf":
            node[key] = value
        elif not both:
            node["anyOf"] = value
        else:
            node["allOf"] = [*dict(items).get("allOf", ()), {"anyOf": value}]
