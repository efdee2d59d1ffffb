"""`pattern` of a JSON schema, translated so that whatever matches the result matches the original,
read as ECMA-262 and as Python's `re` alike.

The two dialects and that of the library differ in silence (what `.`, `\\s`, `\\W` and `[a[b]`
mean), so nothing is passed on as it came: a pattern is parsed, and written anew with characters by
number. What cannot be translated faithfully is refused: lookarounds, backreferences, word
boundaries, flags, property classes, anchors in the middle.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PatternError", "Translated", "translate"]

MAX_PATTERN = 2_000
MAX_DEPTH = 40
MAX_REPEAT = 1_000

# Sets in the notation of the Rust regex crate, without brackets. An inner set is no larger than
# what both dialects mean, an outer set no smaller: an inner one may be matched, an outer one may
# be left out.
_DIGIT = ("0-9", r"\p{Nd}")
_WORD = ("0-9A-Za-z_", r"\p{Alphabetic}\p{M}\p{N}\p{Pc}\p{Join_Control}")
_SPACE = (
    r"\x{9}\x{A}\x{C}\x{D}\x{20}",
    r"\x{9}-\x{D}\x{1C}-\x{20}\x{85}\x{A0}\x{1680}\x{180E}\x{2000}-\x{200A}\x{2028}\x{2029}"
    r"\x{202F}\x{205F}\x{3000}\x{FEFF}",
)
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
# Characters that JSON text can only hold as \\u escapes, which are not written. The library drops
# such a character from a literal in silence, so it must never see one on its own.
_UNWRITABLE = ((0x0, 0x7), (0xB, 0xB), (0xE, 0x1F), (0x7F, 0x7F))
_NO_UNWRITABLE = r"\x{0}-\x{7}\x{B}\x{E}-\x{1F}\x{7F}"
_DOT = rf"[^\x{{A}}\x{{D}}\x{{2028}}\x{{2029}}{_NO_UNWRITABLE}]"
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
_PLAIN = frozenset("/-\"'`~!@#%&=:;,<> ^$.|?*+()[]{}\\_")


class PatternError(ValueError):
    """A pattern that is wrong or not enforced; the text says what and where."""


class Translated(NamedTuple):
    """The pattern for the library, matching a whole string; whether it means exactly what the
    original means in both dialects (otherwise it may match less)."""

    pattern: str
    exact: bool


def translate(pattern: str) -> Translated:
    """Translate *pattern*, which may match anywhere in a string as JSON schema says; raise
    PatternError where that cannot be done faithfully."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"it has {len(pattern)} characters, at most {MAX_PATTERN} are allowed")
    parser = _Parser(pattern)
    branches = parser.branches(depth=0, top=True)
    if parser.here:
        raise parser.error("an unmatched ')'")
    return Translated(f"^(?:{'|'.join(branches)})$", parser.exact)


class _Parser:
    """A recursive descent over the pattern; each method returns the translation of what it read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.exact = True

    @property
    def here(self) -> str:
        return self.text[self.position : self.position + 1]

    def error(self, what: str) -> PatternError:
        return PatternError(f"{what} at character {self.position + 1} of {self.text[:80]!r}")

    def take(self, literal: str) -> bool:
        if self.text.startswith(literal, self.position):
            self.position += len(literal)
            return True
        return False

    def branches(self, *, depth: int, top: bool) -> list[str]:
        if depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} nested groups")
        found = [self.branch(depth, top)]
        while self.take("|"):
            found.append(self.branch(depth, top))
        return found

    def branch(self, depth: int, top: bool) -> str:
        anchored = top and self.take("^")
        start = "" if anchored or not top else "(?s:.*)"
        parts: list[str] = []
        while self.here and self.here not in "|)":
            if top and self.here == "$" and self.text[self.position + 1 : self.position + 2] in "|":
                self.position += 1
                # Where the string ends: Python lets a newline follow, so this may be narrower.
                return start + "".join(parts)
            parts.append(self.repeated(depth))
        return start + "".join(parts) + ("(?s:.*)" if top else "")

    def repeated(self, depth: int) -> str:
        atom = self.atom(depth)
        bounds = self.bounds()
        if bounds is None:
            return atom
        self.take("?")  # lazy: the same strings match
        if self.here and self.here in "*+?":
            raise self.error("a repetition of a repetition")
        return f"(?:{atom}){bounds}"

    def bounds(self) -> str | None:
        if self.here and self.here in "*+?":
            self.position += 1
            return self.text[self.position - 1]
        if self.here != "{":
            return None
        end = self.text.find("}", self.position)
        least, comma, most = self.text[self.position + 1 : max(end, 0)].partition(",")
        if end < 0 or not _is_number(least) or not (most == "" or _is_number(most)):
            raise self.error("a '{' that is no repetition and not escaped")
        if max(int(least), int(most or 0)) > MAX_REPEAT:
            raise self.error(f"a repetition of more than {MAX_REPEAT}")
        if most and int(most) < int(least):
            raise self.error("a repetition whose bounds are the wrong way round")
        self.position = end + 1
        return f"{{{int(least)}{comma}{most and int(most)}}}"

    def atom(self, depth: int) -> str:
        if self.take("("):
            return self.group(depth)
        if self.take("["):
            return self.char_class()
        if self.take("."):
            self.exact = False
            return _DOT
        if self.here in "^$":
            raise self.error("an anchor in the middle")
        if self.here in "*+?":
            raise self.error("nothing to repeat")
        if self.here == "{":
            raise self.error("a '{' that is not escaped")
        if self.take("\\"):
            return self.escape()
        self.position += 1
        return self.literal(self.text[self.position - 1])

    def group(self, depth: int) -> str:
        if self.take("?") and not self.take(":"):
            if not self.take("<") or self.here in "=!":
                raise self.error("a lookaround, a flag or another group of the form (?...)")
            self.group_name()
        inner = self.branches(depth=depth + 1, top=False)
        if not self.take(")"):
            raise self.error("a group that is not closed")
        return f"(?:{'|'.join(inner)})"

    def group_name(self) -> None:
        end = self.text.find(">", self.position)
        if end < 0 or not self.text[self.position : end].isidentifier():
            raise self.error("a wrong group name")
        self.position = end + 1

    def escape(self) -> str:
        """What follows a backslash outside a class."""
        letter = self.here
        if letter and letter in "dDwWsS":
            self.position += 1
            self.exact = False
            inner, outer = _CLASSES[letter.lower()]
            return f"[{inner}]" if letter.islower() else f"[^{outer}{_NO_UNWRITABLE}]"
        return self.literal(self.escaped_character())

    def literal(self, char: str) -> str:
        if not _writable(ord(char), ord(char)):
            raise self.error("a control character, which is not enforced,")
        return char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):X}}}"

    def escaped_character(self) -> str:
        letter = self.here
        self.position += 1
        if letter in _CONTROLS and not (letter == "0" and self.here.isdigit()):
            return chr(_CONTROLS[letter])
        if letter == "x":
            return chr(self.hexadecimal(2))
        if letter == "u":
            return chr(self.hexadecimal(4))
        if letter and letter in _PLAIN:
            return letter
        self.position -= 1
        raise self.error(f"the escape \\{letter}, which is not enforced,")

    def hexadecimal(self, digits: int) -> int:
        text = self.text[self.position : self.position + digits]
        if len(text) < digits or not all(c in "0123456789abcdefABCDEF" for c in text):
            raise self.error("a wrong hexadecimal escape")
        self.position += digits
        number = int(text, 16)
        if 0xD800 <= number <= 0xDFFF:
            raise self.error("a surrogate, which is not enforced,")
        return number

    def char_class(self) -> str:
        negated = self.take("^")
        parts: list[str] = []
        if self.here == "]":
            raise self.error("an empty class")
        while not self.take("]"):
            if not self.here:
                raise self.error("a class that is not closed")
            parts.append(self.class_item(negated))
        inner = "".join(parts)
        if not inner and not negated:
            raise self.error("a class of control characters, which is not enforced,")
        return f"[^{inner}{_NO_UNWRITABLE}]" if negated else f"[{inner}]"

    def class_item(self, negated: bool) -> str:
        if self.here == "\\" and (letter := self.text[self.position + 1 : self.position + 2]) in (
            *"dwsDWS",
        ):
            if letter.isupper():
                raise self.error(f"\\{letter} inside a class, which is not enforced,")
            self.position += 2
            self.exact = False
            if self.here == "-" and self.text[self.position + 1 : self.position + 2] != "]":
                raise self.error("a range that begins with a class")
            return _CLASSES[letter][1 if negated else 0]
        first = self.class_character()
        ahead = self.text[self.position + 1 : self.position + 2]
        if self.here != "-" or ahead in ("]", ""):
            return _class_range(first, first)
        self.position += 1
        if self.here == "\\" and self.text[self.position + 1 : self.position + 2] in (*"dwsDWS",):
            raise self.error("a range that ends with a class")
        last = self.class_character()
        if last < first:
            raise self.error("a range the wrong way round")
        return _class_range(first, last)

    def class_character(self) -> str:
        if self.take("\\"):
            return self.escaped_character()
        if self.here == "[" or self.text[self.position : self.position + 2] in (
            "--",
            "&&",
            "~~",
            "||",
        ):
            # Python reserves these for set operations and warns.
            raise self.error("a set operation or an unescaped '[' in a class")
        self.position += 1
        return self.text[self.position - 1]


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 9 and text.isascii() and text.isdigit()


def _writable(first: int, last: int) -> list[tuple[int, int]]:
    """The range of characters without those that cannot be written, as ranges."""
    found = []
    for low, high in _UNWRITABLE:
        if first <= high and last >= low:
            if first < low:
                found.append((first, low - 1))
            first = high + 1
    return [*found, (first, last)] if first <= last else found


def _class_range(first: str, last: str) -> str:
    if any(0xD800 <= ord(char) <= 0xDFFF for char in (first, last)):
        raise PatternError("a surrogate, which is not enforced")
    return "".join(
        f"\\x{{{low:X}}}-\\x{{{high:X}}}" for low, high in _writable(ord(first), ord(last))
    )
