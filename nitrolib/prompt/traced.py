"""TracedStr: a string that knows which of its characters a template wrote.

Chat templates join their own text and message text in one expression, such as
`'<|im_start|>' + m['role'] + '\\n' + m['content'] | trim`. Only what a template wrote may become a
control token, so its literals carry a mark for every character, and every operation that a
template can do on strings keeps the marks with the characters. Any operation that is not known
here gives an ordinary string, which counts as message text: what is forgotten is safe.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from .budget import ITEM_CHARS, spend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MESSAGE = 0
TEMPLATE = 1


class TracedStr(str):
    """A str with one byte in `origin` for each character: TEMPLATE or MESSAGE.

    Equality, hash, `in` and searching are those of str. Methods that give strings give traced ones.
    """

    __slots__ = ("origin",)
    origin: bytes

    def __new__(cls, text: str, origin: bytes) -> TracedStr:
        self = super().__new__(cls, text)
        self.origin = origin
        return self

    # What str(value) gives: without this the marks would be lost in every template output.
    def __str__(self) -> TracedStr:
        return self

    # --- parts -------------------------------------------------------------------------------

    def __getitem__(self, key: SupportsIndex | slice) -> TracedStr:
        origin = self.origin[key] if isinstance(key, slice) else bytes((self.origin[key],))
        return TracedStr(super().__getitem__(key), origin)

    def __iter__(self) -> Iterator[TracedStr]:
        return (
            TracedStr(char, bytes((mark,)))
            for char, mark in zip(super().__iter__(), self.origin, strict=True)
        )

    def _cut(self, start: int, length: int) -> TracedStr:
        return self[start : start + length]

    def lstrip(self, chars: str | None = None, /) -> TracedStr:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None, /) -> TracedStr:
        return self[: len(super().rstrip(chars))]

    def strip(self, chars: str | None = None, /) -> TracedStr:
        return self.rstrip(chars).lstrip(chars)

    def removeprefix(self, prefix: str, /) -> TracedStr:
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> TracedStr:
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self

    def _parts(self, parts: list[str], separator: str | None) -> list[TracedStr]:
        """`parts` of this string, found again with their marks. Between two of them stands the
        separator, or white space, which no part but the first can begin with."""
        spend(ITEM_CHARS * len(parts))
        found, end = [], 0
        for number, part in enumerate(parts):
            if separator is None:
                start = self.find(part, end)
            else:
                start = end + (len(separator) if number else 0)
            end = start + len(part)
            found.append(self[start:end])
        return found

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[TracedStr]:  # type: ignore[override]
        spend(len(self))
        return self._parts(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[TracedStr]:  # type: ignore[override]
        spend(len(self))
        return self._parts(super().rsplit(sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[TracedStr]:  # type: ignore[override]
        spend(len(self))
        whole = self._parts(super().splitlines(True), "")
        if keepends:
            return whole
        bare = super().splitlines()
        return [line[: len(text)] for line, text in zip(whole, bare, strict=True)]

    def partition(self, sep: str, /) -> tuple[TracedStr, TracedStr, TracedStr]:
        before, middle, _ = super().partition(sep)
        return self._three(len(before), len(middle))

    def rpartition(self, sep: str, /) -> tuple[TracedStr, TracedStr, TracedStr]:
        before, middle, _ = super().rpartition(sep)
        return self._three(len(before), len(middle))

    def _three(self, before: int, middle: int) -> tuple[TracedStr, TracedStr, TracedStr]:
        return self[:before], self[before : before + middle], self[before + middle :]

    # --- case --------------------------------------------------------------------------------

    def _recased(self, text: str) -> TracedStr:
        # No case mapping shortens a character, so equal lengths mean one character for each.
        if len(text) == len(self):
            return TracedStr(text, self.origin)
        return written(text) if self.is_written else TracedStr(text, bytes(len(text)))

    def upper(self) -> TracedStr:
        return self._recased(super().upper())

    def lower(self) -> TracedStr:
        return self._recased(super().lower())

    def title(self) -> TracedStr:
        return self._recased(super().title())

    def capitalize(self) -> TracedStr:
        return self._recased(super().capitalize())

    def casefold(self) -> TracedStr:
        return self._recased(super().casefold())

    def swapcase(self) -> TracedStr:
        return self._recased(super().swapcase())

    # --- joining -----------------------------------------------------------------------------

    @overload
    def __add__(self, other: str, /) -> TracedStr: ...
    @overload
    def __add__(self, other: Any, /) -> Any: ...
    def __add__(self, other: Any, /) -> Any:
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any, /) -> Any:
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex, /) -> TracedStr:
        count = max(0, times.__index__())
        spend(len(self) * count)
        return TracedStr(super().__mul__(count), self.origin * count)

    __rmul__ = __mul__

    def join(self, parts: Iterable[str], /) -> TracedStr:
        items = list(parts)
        spend(len(self) * len(items) + sum(map(len, items)))
        return TracedStr(super().join(items), self.origin.join(map(origin_of, items)))

    def replace(self, old: str, new: str, /, count: SupportsIndex = -1) -> TracedStr:
        if old:
            return traced(new).join(self.split(old, count))
        spend((len(self) + 1) * len(new))
        text = super().replace(old, new, count)
        return TracedStr(text, bytes(len(text)))

    # --- marks -------------------------------------------------------------------------------

    @property
    def is_written(self) -> bool:
        """Whether the template wrote every character."""
        return MESSAGE not in self.origin


@lru_cache(maxsize=1024)
def _short(text: str) -> TracedStr:
    return TracedStr(text, bytes((TEMPLATE,)) * len(text))


def written(text: str) -> TracedStr:
    """`text` as the template's own. It is exact text: subclasses of str are copied."""
    text = str.__str__(text)
    return _short(text) if len(text) <= 128 else TracedStr(text, bytes((TEMPLATE,)) * len(text))


def origin_of(text: str) -> bytes:
    """The marks of any string; those of an ordinary one all say MESSAGE."""
    return text.origin if isinstance(text, TracedStr) else bytes(len(text))


def traced(text: str) -> TracedStr:
    """Any string with its marks."""
    return text if isinstance(text, TracedStr) else TracedStr(text, bytes(len(text)))


def joined(parts: Iterable[str]) -> TracedStr:
    """All parts in one string, each character with its mark."""
    return _NOTHING.join(parts)


_NOTHING = TracedStr("", b"")
