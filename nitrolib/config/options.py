"""Option: one row of the table of settings, with its type, range, default, flag and variable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InvalidRequest

__all__ = ["GROUPS", "Group", "Kind", "Option"]

Kind = Literal["text", "integer", "boolean", "list"]
Group = Literal["server", "model", "prompt", "storage"]
GROUPS: tuple[Group, ...] = ("server", "model", "prompt", "storage")
_KIND_WORDS = {
    "text": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
    "list": "a list of texts",
}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the table.

    kind: "text", "integer", "boolean" or "list" (of texts; separated by commas as one string).
    optional: None is allowed, and is the default.
    least, most: range of an integer, both ends included.
    choices: the only texts allowed, of a list the only items.
    empty: an empty text is a value; else an empty environment variable counts as absent.
    secret: never shown, in errors neither.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    group: Group
    metavar: str | None = None
    optional: bool = False
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    empty: bool = False
    secret: bool = False

    @property
    def variable(self) -> str:
        """Its environment variable, such as NITRO_CTX_LEN."""
        return "NITRO_" + self.name.upper()

    @property
    def flag(self) -> str:
        """Its command-line flag, such as --ctx-len. A list has one for each item: --cors-origin."""
        name = self.name.removesuffix("s") if self.kind == "list" else self.name
        return "--" + name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.choices:
            what = "a list of" if self.kind == "list" else "one of"
            return f"{what} {', '.join(self.choices)}"
        if self.least is None:
            return _KIND_WORDS[self.kind]
        if self.most is None:
            return f"a whole number, {self.least} or more"
        return f"a whole number from {self.least} to {self.most}"

    def parse(self, text: str) -> Any:
        """The value that *text* (a variable or an argument) spells; InvalidRequest if none."""
        if self.kind == "integer":
            try:
                return self.check(int(text))
            except ValueError:  # InvalidRequest is one as well
                raise self._refuse(text) from None
        if self.kind == "boolean":
            word = text.strip().lower()
            if word not in _TRUE | _FALSE:
                raise self._refuse(text)
            return word in _TRUE
        if self.kind == "list":
            return self.check([part.strip() for part in text.split(",") if part.strip()])
        return self.check(text)

    def check(self, value: Any) -> Any:
        """*value* as Settings holds it; InvalidRequest if its type or range is wrong."""
        if value is None and self.optional:
            return None
        if self.kind == "list":
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise self._refuse(value)
            items = tuple(value)
            if not all(isinstance(item, str) and _is_item(item) for item in items):
                raise self._refuse(value)
            if self.choices and not set(items) <= set(self.choices):
                raise self._refuse(value)
            return tuple(dict.fromkeys(items))
        if self.kind == "boolean":
            fits = isinstance(value, bool)
        elif self.kind == "integer":
            fits = (
                isinstance(value, int)
                and not isinstance(value, bool)
                and (self.least is None or value >= self.least)
                and (self.most is None or value <= self.most)
            )
        else:
            fits = isinstance(value, str) and _is_clean(value) and bool(value or self.empty)
            fits = fits and (not self.choices or value in self.choices)
        if not fits:
            raise self._refuse(value)
        return value

    def spell(self, value: Any) -> str:
        """*value* as an environment variable holds it: the inverse of `parse`."""
        if self.kind == "boolean":
            return "1" if value else "0"
        return ",".join(value) if self.kind == "list" else str(value)

    def _refuse(self, value: Any) -> InvalidRequest:
        return InvalidRequest(
            f"{self.name} must be {self.allowed}, got {'(hidden)' if self.secret else repr(value)}",
            field=self.name,
            value=None if self.secret else value,
            allowed=self.allowed,
        )


def _is_clean(text: str) -> bool:
    """No NUL: an environment variable cannot hold one, and neither can a path."""
    return "\0" not in text


def _is_item(text: str) -> bool:
    """Survives being joined with commas and split again."""
    return bool(text) and text == text.strip() and "," not in text and _is_clean(text)
