"""A JSON schema, checked keyword by keyword and written anew in what the grammar library enforces.

Fail closed: a keyword, format or pattern that would be ignored or treated loosely is refused, with
the JSON pointer of the place. What is enforced is what draft 2020-12 says, with these limits:

- Properties come in the order of the schema; names that are not listed come last, and only the
  last of two equal ones counts for a reader. `additionalProperties` is true where it is absent.
- Exclusive bounds of real numbers are inclusive ones in the 15th digit; above 0 is 1e-12 or more.
- `oneOf` is accepted where its alternatives cannot overlap, by type, by constants or by a property.
- Strings are written without \\u escapes; white space is bounded (see WHITESPACE).
- A schema with nothing but annotations at the root means any object, as llama.cpp has it.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from ..errors import InvalidRequest
from .constraint_disjoint import Disjoint
from .constraint_formats import FORMATS
from .constraint_regex import PatternError, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["MAX_SCHEMA_BYTES", "WHITESPACE", "Checked", "check_schema", "parse_schema"]

MAX_SCHEMA_BYTES = 131_072
MAX_DEPTH = 40
"""Schemas within schemas, references followed: the library recurses, and a thread of 512 KiB of
stack holds a good deal more than this."""

MAX_SCHEMAS = 2_000
MAX_PROPERTIES = 1_000
MAX_OPTIONAL = 64
"""Optional properties beside `minProperties` or `maxProperties`: such grammars are quadratic."""

MAX_VALUES = 10_000
MAX_ALTERNATIVES = 256
"""Ways in which the alternatives of `anyOf` and `oneOf` at one place combine."""

MAX_COUNT = 1_000_000
MAX_DIGITS = 15
"""Significant digits of a number: more need not survive the library's reading of the schema."""

MAX_NUMBER = 10**MAX_DIGITS - 1
LEAST_NUMBER = 1e-12
MAX_FACTOR = 65_535

WHITESPACE = r"[ ]|\n[ ]{0,40}|\n\t{0,10}"
"""What may stand, at most once, wherever JSON allows white space: a space, or a line end and an
indentation. It is what models write, compact or indented, and too little to be caught in a loop.
None stands before the first and after the last character of the answer."""

_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$comment", "discriminator",
})  # fmt: skip
_CONTAINERS = frozenset({"$defs", "definitions"})
_ROOT_ONLY = frozenset({"$schema", "$id"})
Schema = dict[str, Any] | bool


def parse_schema(text: str, field: str = "json_schema") -> Any:
    """The value of a schema's JSON text; InvalidRequest for text that is too large, is no JSON, or
    says a key twice."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(
            f"{field} is longer than {MAX_SCHEMA_BYTES} bytes",
            field=field,
            value=f"{len(text)} characters",
            allowed=f"at most {MAX_SCHEMA_BYTES} bytes of UTF-8",
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            double = next(key for key in found if keys.count(key) > 1)
            raise ValueError(f"the key {double[:80]!r} stands twice in one object")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # JSONDecodeError says line and column
        reason = str(error)
    raise InvalidRequest(
        f"{field} is not JSON that can be used: {reason}",
        field=field,
        value=text[:200],
        allowed="the JSON text of a schema",
    )


@dataclass(frozen=True)
class Checked:
    """A schema as the grammar library shall have it, and where its definitions come from:
    name under `$defs` -> JSON pointer into the original."""

    schema: Schema
    pointers: Mapping[str, str]

    def lark(self) -> str:
        """The right side of a Lark rule for JSON text that the schema accepts."""
        if isinstance(self.schema, bool):
            schema: dict[str, Any] = {} if self.schema else {"enum": []}
        else:
            schema = dict(self.schema)
        schema["x-guidance"] = {
            "whitespace_pattern": WHITESPACE,
            # Without u, so that no name can be written in two ways and pass for another one.
            "json_allowed_escapes": 'nrbtf\\"',
        }
        return f"%json {json.dumps(schema)}"

    def locate(self, fails: Callable[[Checked], bool], seconds: float = 0.5) -> str:
        """The pointer of the innermost schema that *fails* on its own, as far as that is found in
        so many seconds."""
        assert isinstance(self.schema, dict)
        deadline = time.monotonic() + seconds
        definitions = self.schema.get("$defs", {})
        node, at = self.schema, ""
        seen: set[str] = set()
        while True:
            for child, where in _parts(node, at, definitions, self.pointers):
                if where in seen or not isinstance(child, dict):
                    continue
                seen.add(where)
                if time.monotonic() > deadline:
                    return at
                if fails(Checked({**child, "$defs": definitions}, self.pointers)):
                    node, at = child, where
                    break
            else:
                return at


def check_schema(schema: Any, field: str = "json_schema") -> Checked:
    """The same schema for the grammar library: references under `$defs`, patterns and formats
    translated. Raises InvalidRequest with the facts `field`, `pointer` (a JSON pointer into
    *schema*), `value` and `allowed` for what is wrong, not enforced, or too large."""
    walker = _Walker(schema, field)
    result = walker.schema(schema, "", 0)
    if isinstance(result, dict) and not result:
        result = {"type": "object"}
    if isinstance(result, dict) and walker.definitions:
        result["$defs"] = walker.definitions
    walker.check_whole(result)
    return Checked(result, walker.pointers)


def _pointer_key(key: str | int) -> str:
    """One step of a JSON pointer, escaped (RFC 6901)."""
    return "/" + str(key).replace("~", "~0").replace("/", "~1")


class _Walker:
    """One walk over one schema. Handlers named after keywords write into the new schema."""

    def __init__(self, root: Any, field: str) -> None:
        self.root = root
        self.field = field
        self.names: dict[str, str] = {}  # pointer of a reference's target -> name in definitions
        self.pointers: dict[str, str] = {}  # the way back, for messages
        self.definitions: dict[str, Schema] = {}
        self.n_schemas = 0
        self.n_values = 0
        self.factors: set[int] = set()  # all multipleOf
        self.alternatives: dict[str, int] = {}
        self.handlers: dict[str, Callable[[_Place, Any], None]] = {
            "type": self.type,
            "enum": self.enum,
            "const": self.const,
            "minimum": self.bound,
            "maximum": self.bound,
            "exclusiveMinimum": self.bound,
            "exclusiveMaximum": self.bound,
            "multipleOf": self.multiple_of,
            "pattern": self.pattern,
            "format": self.format,
            "items": self.one_schema,
            "additionalProperties": self.one_schema,
            "prefixItems": self.schemas,
            "allOf": self.schemas,
            "anyOf": self.schemas,
            "oneOf": self.schemas,
            "properties": self.properties,
            "patternProperties": self.pattern_properties,
            "required": self.required,
            "uniqueItems": self.unique_items,
            "$ref": self.reference,
            **dict.fromkeys(
                (
                    "minLength",
                    "maxLength",
                    "minItems",
                    "maxItems",
                    "minProperties",
                    "maxProperties",
                ),
                self.count,
            ),
        }

    def refuse(self, at: str, what: str, value: Any, allowed: str) -> NoReturn:
        where = f"at {at}" if at else "at the root"
        shown = repr(value)
        raise InvalidRequest(
            f"{self.field}: {what} ({where})",
            field=self.field,
            value=value if len(shown) <= 200 else shown[:200] + "...",
            allowed=allowed,
            pointer=at,
        )

    def schema(self, node: Any, at: str, depth: int) -> Schema:
        self.n_schemas += 1
        if self.n_schemas > MAX_SCHEMAS:
            self.refuse(at, "too many schemas", self.n_schemas, f"at most {MAX_SCHEMAS}")
        if depth > MAX_DEPTH:
            self.refuse(at, "nested too deeply", depth, f"at most {MAX_DEPTH} levels")
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            self.refuse(at, "a schema must be an object or a boolean", node, "an object or boolean")
        place = _Place(node, at, depth)
        for key, value in node.items():
            if key in _ANNOTATIONS or key in _CONTAINERS or (key in _ROOT_ONLY and not at):
                continue
            handler = self.handlers.get(key)
            if handler is None:
                self.refuse(
                    at + _pointer_key(key),
                    f"the keyword {key[:80]!r} is not enforced",
                    value,
                    "the keywords " + ", ".join(sorted(self.handlers)),
                )
            place.key = key
            handler(place, value)
        self.check_place(place)
        return place.finished()

    # -- keywords ---------------------------------------------------------------------------

    def type(self, place: _Place, value: Any) -> None:
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
            self.refuse(place.here, "no such type", value, f"one or more of {', '.join(_TYPES)}")
        place.out["type"] = value if isinstance(value, str) else list(dict.fromkeys(names))

    def enum(self, place: _Place, value: Any) -> None:
        if not isinstance(value, list) or not value:
            self.refuse(place.here, "enum must be a list", value, "a list of at least one value")
        for index, item in enumerate(value):
            self.value(item, place.here + _pointer_key(index), place.depth)
        place.out["enum"] = value

    def const(self, place: _Place, value: Any) -> None:
        self.value(value, place.here, place.depth)
        place.out["const"] = value

    def value(self, value: Any, at: str, depth: int) -> None:
        """Refuse a constant that the grammar would write as another value, or could not write."""
        self.n_values += 1
        if self.n_values > MAX_VALUES:
            self.refuse(at, "too many constants", self.n_values, f"at most {MAX_VALUES}")
        if depth > MAX_DEPTH:
            self.refuse(at, "nested too deeply", depth, f"at most {MAX_DEPTH} levels")
        if isinstance(value, str):
            self.writable(value, at)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self.number(value, at)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.value(item, at + _pointer_key(index), depth + 1)
        elif isinstance(value, dict):
            for key, item in value.items():
                self.writable(key, at + _pointer_key(key))
                self.value(item, at + _pointer_key(key), depth + 1)

    def writable(self, text: str, at: str) -> None:
        if any((c < " " and c not in "\b\t\n\f\r") or c == "\x7f" for c in text) or any(
            "\ud800" <= c <= "\udfff" for c in text
        ):
            self.refuse(at, "control characters and surrogates are not enforced", text, "text")

    def number(self, value: Any, at: str) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(at, "not a number", value, "a number")
        number = Decimal(repr(value)).normalize()
        if value and not (
            LEAST_NUMBER <= abs(value) <= MAX_NUMBER and len(number.as_tuple().digits) <= MAX_DIGITS
        ):
            self.refuse(
                at,
                "a number that is not enforced exactly",
                value if abs(value) < 1e300 else "a very large number",
                f"0, or {LEAST_NUMBER:g} to {MAX_NUMBER} either side of it with at most "
                f"{MAX_DIGITS} digits",
            )
        return number

    def bound(self, place: _Place, value: Any) -> None:
        number = self.number(value, place.here)
        key = place.key
        integers = place.node.get("type") in ("integer", ["integer"])
        if key.startswith("exclusive") and not integers:
            # A text just inside the bound may round to the bound when it is read; a number a little
            # further inside, taken as an inclusive bound, cannot.
            step = Decimal(1).scaleb(number.adjusted() + 1 - MAX_DIGITS)
            step = step if number else Decimal(repr(LEAST_NUMBER))
            number = number + step if key == "exclusiveMinimum" else number - step
            key = "minimum" if key == "exclusiveMinimum" else "maximum"
        plain = int(number) if number == number.to_integral_value() else float(number)
        pick = max if key in ("minimum", "exclusiveMinimum") else min
        place.out[key] = pick(plain, place.out.get(key, plain))

    def multiple_of(self, place: _Place, value: Any) -> None:
        number = self.number(value, place.here)
        if number != number.to_integral_value() or not 1 <= number <= MAX_FACTOR:
            self.refuse(
                place.here,
                "only whole numbers are enforced as multipleOf",
                value,
                f"a whole number from 1 to {MAX_FACTOR}",
            )
        self.factors.add(int(number))
        if math.prod(self.factors) * max(self.factors) >= 2**32:
            self.refuse(place.here, "multipleOf of too many large numbers", value, "smaller ones")
        place.out["multipleOf"] = int(number)

    def count(self, place: _Place, value: Any) -> None:
        whole = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not whole or value != value // 1 or not 0 <= value <= MAX_COUNT:
            self.refuse(
                place.here, f"{place.key} is wrong", value, f"a whole number from 0 to {MAX_COUNT}"
            )
        place.out[place.key] = int(value)

    def pattern(self, place: _Place, value: Any) -> None:
        place.out["pattern"] = self.translated(value, place.here)[0]

    def translated(self, value: Any, at: str) -> tuple[str, bool]:
        if not isinstance(value, str):
            self.refuse(at, "a pattern must be a string", value, "a regular expression")
        try:
            return translate(value)
        except PatternError as error:
            self.refuse(
                at,
                f"a pattern that is not enforced: {error}",
                value,
                "ECMA-262 without lookarounds, backreferences, flags and inner anchors",
            )

    def format(self, place: _Place, value: Any) -> None:
        if not isinstance(value, str) or value not in FORMATS:
            self.refuse(
                place.here,
                "a format that is not enforced",
                value,
                "one of " + ", ".join(sorted(FORMATS)),
            )
        place.also += [{"pattern": f"^(?:{pattern})$"} for pattern in FORMATS[value]]

    def one_schema(self, place: _Place, value: Any) -> None:
        if place.key == "items" and isinstance(value, list):
            self.refuse(place.here, "items as a list is not enforced", value, "prefixItems")
        place.out[place.key] = self.schema(value, place.here, place.depth + 1)

    def schemas(self, place: _Place, value: Any) -> None:
        if not isinstance(value, list) or not value:
            self.refuse(place.here, f"{place.key} must be a list", value, "a list of schemas")
        place.out[place.key] = [
            self.schema(item, place.here + _pointer_key(index), place.depth + 1)
            for index, item in enumerate(value)
        ]

    def properties(self, place: _Place, value: Any) -> None:
        place.out["properties"] = {
            name: self.schema(item, place.here + _pointer_key(name), place.depth + 1)
            for name, item in self.schema_map(place, value).items()
        }

    def schema_map(self, place: _Place, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict) or len(value) > MAX_PROPERTIES:
            self.refuse(
                place.here,
                f"{place.key} must be an object of at most {MAX_PROPERTIES} schemas",
                value,
                "an object of schemas",
            )
        for name in value:
            if place.key == "properties":
                self.writable(name, place.here + _pointer_key(name))
        return value

    def pattern_properties(self, place: _Place, value: Any) -> None:
        """Names that a looser reader takes for a match and this one does not would escape: so the
        patterns must be exact, or leave no other name."""
        found: dict[str, Schema] = {}
        patterns = self.schema_map(place, value)
        alone = len(patterns) == 1 and place.node.get("additionalProperties") is False
        names = [*_texts(place.node.get("properties")), *_texts(place.node.get("required"))]
        for pattern, item in patterns.items():
            at = place.here + _pointer_key(pattern)
            new, exact = self.translated(pattern, at)
            if not exact and not (alone and all(name.isascii() and name.isprintable()
                                                for name in names)):  # fmt: skip
                self.refuse(
                    at,
                    "a pattern of names that readers may understand differently",
                    pattern,
                    "classes such as [0-9] for \\d and [^\\n] for '.', or this pattern alone with "
                    "additionalProperties false",
                )
            found[new] = self.schema(item, at, place.depth + 1)
        place.out["patternProperties"] = found

    def required(self, place: _Place, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self.refuse(place.here, "required must be a list of names", value, "a list of strings")
        if len(value) > MAX_PROPERTIES:
            self.refuse(place.here, "too many names", len(value), f"at most {MAX_PROPERTIES}")
        for index, name in enumerate(value):
            self.writable(name, place.here + _pointer_key(index))
        place.out["required"] = list(dict.fromkeys(value))

    def unique_items(self, place: _Place, value: Any) -> None:
        if value is not False:
            self.refuse(place.here, "uniqueItems is not enforced", value, "false")

    def reference(self, place: _Place, value: Any) -> None:
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            self.refuse(place.here, "only references inside the schema", value, "#/...")
        target = unquote(value[1:])
        if target not in self.names:
            name = f"r{len(self.names)}"
            self.names[target] = name
            self.pointers[name] = target
            node = self.resolve(target, place)
            self.definitions[name] = False  # until it is written: the place in the order
            self.definitions[name] = self.schema(node, target, place.depth + 1)
        place.out["$ref"] = f"#/$defs/{self.names[target]}"

    def resolve(self, target: str, place: _Place) -> Any:
        node = self.root
        for step in target.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                self.refuse(place.here, "a reference to nothing", "#" + target, "a place that is")
        return node

    # -- places and the whole ---------------------------------------------------------------

    def check_place(self, place: _Place) -> None:
        node = place.out
        least, most = node.get("minProperties", 0), node.get("maxProperties")
        if least == 0 and most is None:
            return
        required = len(node.get("required", ()))
        optional = len(set(node.get("properties", ())) - set(node.get("required", ())))
        if optional > MAX_OPTIONAL:
            self.refuse(
                place.at,
                "minProperties and maxProperties beside so many optional properties",
                optional,
                f"at most {MAX_OPTIONAL}",
            )
        if least - required > 1:
            # Names that are not listed may repeat, and equal ones count once.
            self.refuse(
                place.at + "/minProperties",
                "minProperties is enforced up to one more than the required names",
                least,
                f"at most {required + 1}",
            )

    def check_whole(self, result: Schema) -> None:
        self.check_loops()
        self.check_ends(result)
        places = _places(result, self.pointers, self.definitions)
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

    def check_ends(self, result: Schema) -> None:
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
        if not _ends(result, finite):
            self.refuse("", "no answer can satisfy the schema", result, "a schema with an instance")

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


class _Place:
    """A schema object that is being written anew: the original, its pointer, what is written, and
    schemas that hold beside it."""

    def __init__(self, node: dict[str, Any], at: str, depth: int) -> None:
        self.node = node
        self.at = at
        self.depth = depth
        self.key = ""
        self.out: dict[str, Any] = {}
        self.also: list[Schema] = []

    @property
    def here(self) -> str:
        """The pointer of the keyword in hand."""
        return self.at + _pointer_key(self.key)

    def finished(self) -> dict[str, Any]:
        if self.also and "pattern" not in self.out:
            first = self.also.pop(0)
            assert isinstance(first, dict)
            self.out["pattern"] = first["pattern"]
        if self.also:
            self.out["allOf"] = [*self.out.get("allOf", ()), *self.also]
        return self.out


def _texts(value: Any) -> list[str]:
    return (
        [item for item in value if isinstance(item, str)] if isinstance(value, (dict, list)) else []
    )


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


def _parts(
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
            yield item, f"{at}/{key}{_pointer_key(name)}"
    for key in ("items", "additionalProperties"):
        if key in node:
            yield node[key], f"{at}/{key}"


def _places(
    result: Schema, pointers: Mapping[str, str], definitions: Mapping[str, Schema]
) -> list[tuple[str, dict[str, Any]]]:
    """Every schema object, once, with its pointer in the original."""
    found: list[tuple[str, dict[str, Any]]] = []
    todo: list[tuple[Schema, str]] = [(result, "")]
    seen: set[int] = set()
    while todo:
        node, at = todo.pop()
        if isinstance(node, dict) and id(node) not in seen:
            seen.add(id(node))
            found.append((at, node))
            todo += _parts(node, at, definitions, pointers)
    return found


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
