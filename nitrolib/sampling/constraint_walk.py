"""One walk over a JSON schema: each keyword is checked and written anew, or refused with its JSON
pointer. There is a handler for every keyword that is enforced, and for no other."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from ..errors import InvalidRequest
from .constraint_formats import FORMATS
from .constraint_regex import PatternError, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Schema", "Walker", "pointer_key"]

MAX_DEPTH = 40
"""Schemas within schemas, references followed: the library recurses, and a thread of 512 KiB of
stack holds a good deal more than this."""

MAX_SCHEMAS = 2_000
MAX_PROPERTIES = 1_000
MAX_OPTIONAL = 64
"""Optional properties beside `minProperties` or `maxProperties`: such grammars are quadratic."""

MAX_VALUES = 10_000
MAX_COUNT = 1_000_000
MAX_DIGITS = 15
"""Significant digits of a number: more need not survive the library's reading of the schema."""

MAX_NUMBER = 10**MAX_DIGITS - 1
LEAST_NUMBER = 1e-12
MAX_FACTOR = 65_535

_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$comment", "discriminator",
})  # fmt: skip
_CONTAINERS = frozenset({"$defs", "definitions"})
_ROOT_ONLY = frozenset({"$schema", "$id"})
Schema = dict[str, Any] | bool


def pointer_key(key: str | int) -> str:
    """One step of a JSON pointer, escaped (RFC 6901)."""
    return "/" + str(key).replace("~", "~0").replace("/", "~1")


class Walker:
    """One walk over one schema, from `schema(root, "", 0)`. Handlers named after keywords write the
    new one; afterwards `definitions` holds what is referred to, under new names, and `pointers`
    where each stood."""

    def __init__(self, root: Any, field: str) -> None:
        self.root = root
        self.field = field
        self.names: dict[str, str] = {}  # pointer of a reference's target -> name in definitions
        self.pointers: dict[str, str] = {}  # the way back, for messages
        self.definitions: dict[str, Schema] = {}
        self.n_schemas = 0
        self.n_values = 0
        self.factors: set[int] = set()  # all multipleOf
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
                    at + pointer_key(key),
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
            self.value(item, place.here + pointer_key(index), place.depth)
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
                self.value(item, at + pointer_key(index), depth + 1)
        elif isinstance(value, dict):
            for key, item in value.items():
                self.writable(key, at + pointer_key(key))
                self.value(item, at + pointer_key(key), depth + 1)

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
            self.schema(item, place.here + pointer_key(index), place.depth + 1)
            for index, item in enumerate(value)
        ]

    def properties(self, place: _Place, value: Any) -> None:
        place.out["properties"] = {
            name: self.schema(item, place.here + pointer_key(name), place.depth + 1)
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
                self.writable(name, place.here + pointer_key(name))
        return value

    def pattern_properties(self, place: _Place, value: Any) -> None:
        """Names that a looser reader takes for a match and this one does not would escape: so the
        patterns must be exact, or leave no other name."""
        found: dict[str, Schema] = {}
        patterns = self.schema_map(place, value)
        alone = len(patterns) == 1 and place.node.get("additionalProperties") is False
        names = [*_texts(place.node.get("properties")), *_texts(place.node.get("required"))]
        for pattern, item in patterns.items():
            at = place.here + pointer_key(pattern)
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
            self.writable(name, place.here + pointer_key(index))
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
        return self.at + pointer_key(self.key)

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
