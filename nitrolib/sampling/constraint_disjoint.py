"""Whether JSON schemas exclude one another, so that `oneOf` of them is `anyOf`.

Only proofs count: alternatives that may be apart without a proof here are taken to overlap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Disjoint"]

_MAX_STEPS = 100_000
_MAX_DEPTH = 12
_ALL = frozenset({"null", "boolean", "number", "string", "array", "object"})


class Disjoint:
    """Proofs over schemas whose references all lead into *definitions*."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._steps = 0

    def all_apart(self, schemas: list[Any]) -> bool:
        """Whether no two of the schemas have a common instance."""
        return all(
            self.apart(schemas[i], schemas[j], 0)
            for i in range(len(schemas))
            for j in range(i + 1, len(schemas))
        )

    def apart(self, one: Any, other: Any, depth: int) -> bool:
        """Whether the two schemas have no common instance, as far as can be shown."""
        self._steps += 1
        if self._steps > _MAX_STEPS or depth > _MAX_DEPTH:
            return False
        ones, others = list(self._together(one, 0)), list(self._together(other, 0))
        if False in ones or False in others:
            return True
        if not _types(ones) & _types(others) or _values_apart(ones, others):
            return True
        if _ranges_apart(ones, others) or self._properties_apart(ones, others, depth):
            return True
        return self._cases_apart(ones, other, depth) or self._cases_apart(others, one, depth)

    def _together(self, node: Any, depth: int) -> Iterator[Any]:
        """Every schema object that must hold where *node* holds."""
        if depth > _MAX_DEPTH:
            return
        yield node
        if isinstance(node, dict):
            if "$ref" in node:
                yield from self._together(
                    self._definitions[node["$ref"].rpartition("/")[2]], depth + 1
                )
            for item in node.get("allOf", ()):
                yield from self._together(item, depth + 1)

    def _cases_apart(self, ones: list[Any], other: Any, depth: int) -> bool:
        """Whether each case of an anyOf among *ones* is apart from *other*."""
        return any(
            all(self.apart(case, other, depth + 1) for case in node[key])
            for node in ones
            if isinstance(node, dict)
            for key in ("anyOf", "oneOf")
            if key in node
        )

    def _properties_apart(self, ones: list[Any], others: list[Any], depth: int) -> bool:
        """Whether both are objects, and a property that one requires cannot suit both."""
        if _types(ones) & _types(others) != {"object"}:
            return False
        names = {
            name
            for node in (*ones, *others)
            if isinstance(node, dict)
            for name in node.get("required", ())
        }
        return any(
            self.apart(a, b, depth + 1)
            for name in sorted(names)
            for a in _property(ones, name)
            for b in _property(others, name)
        )


def _property(nodes: list[Any], name: str) -> list[Any]:
    """The schemas that the property must satisfy, as far as they are listed."""
    found = []
    for node in nodes:
        if isinstance(node, dict):
            if name in node.get("properties", {}):
                found.append(node["properties"][name])
            elif "patternProperties" not in node and "additionalProperties" in node:
                found.append(node["additionalProperties"])
    return found


def _types(nodes: list[Any]) -> frozenset[str]:
    """The JSON types that are left; integers are numbers."""
    left = _ALL
    for node in nodes:
        if not isinstance(node, dict):
            continue
        if "type" in node:
            names = node["type"] if isinstance(node["type"], list) else [node["type"]]
            left &= {"number" if name == "integer" else name for name in names}
        for values in _own_values(node):
            left &= {type_name(value) for value in values}
    return left


def type_name(value: Any) -> str:
    """The JSON type of a value, integers being numbers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _own_values(node: dict[str, Any]) -> list[list[Any]]:
    found = [node["enum"]] if "enum" in node else []
    return found + ([[node["const"]]] if "const" in node else [])


def _values_apart(ones: list[Any], others: list[Any]) -> bool:
    """Whether both allow listed values only, and none in common."""
    mine = [v for node in ones if isinstance(node, dict) for v in _own_values(node)]
    theirs = [v for node in others if isinstance(node, dict) for v in _own_values(node)]
    return any(
        not {_key(value) for value in a} & {_key(value) for value in b}
        for a in mine
        for b in theirs
    )


def _key(value: Any) -> Any:
    """Equal for equal JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, list):
        return ("array", tuple(_key(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((key, _key(item)) for key, item in value.items()))
    return (type_name(value), value)


def _ranges_apart(ones: list[Any], others: list[Any]) -> bool:
    if _types(ones) & _types(others) != {"number"}:
        return False
    (low, high), (other_low, other_high) = _range(ones), _range(others)
    return high < other_low or other_high < low


def _range(nodes: list[Any]) -> tuple[float, float]:
    low, high = -math.inf, math.inf
    for node in nodes:
        if isinstance(node, dict):
            low = max(low, node.get("minimum", low), node.get("exclusiveMinimum", low))
            high = min(high, node.get("maximum", high), node.get("exclusiveMaximum", high))
    return low, high
