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
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InvalidRequest
from .constraint_walk import Walker
from .constraint_whole import Whole, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .constraint_walk import Schema

__all__ = ["MAX_SCHEMA_BYTES", "WHITESPACE", "Checked", "check_schema", "parse_schema"]

MAX_SCHEMA_BYTES = 131_072
WHITESPACE = r"[ ]|\n[ ]{0,40}|\n\t{0,10}"
"""What may stand, at most once, wherever JSON allows white space: a space, or a line end and an
indentation. It is what models write, compact or indented, and too little to be caught in a loop.
None stands before the first and after the last character of the answer."""


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
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key[:80]!r} stands twice in one object")
            found[key] = value
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
            for child, where in parts(node, at, definitions, self.pointers):
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
    walker = Walker(schema, field)
    result = walker.schema(schema, "", 0)
    if isinstance(result, dict) and not result:
        result = {"type": "object"}
    if isinstance(result, dict) and walker.definitions:
        result["$defs"] = walker.definitions
    Whole(result, walker.definitions, walker.pointers, walker.refuse).check()
    return Checked(result, walker.pointers)
