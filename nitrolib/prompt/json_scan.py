"""ObjectScanner: follows the text of one JSON object while it is written, and tells its members."""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

MAX_DEPTH = 128  # of lists and objects in each other; readers recurse
MAX_NUMBER_CHARS = 400  # Python refuses to read whole numbers of some thousand digits

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_CHARS = frozenset("+-.0123456789eE")
_SPACE = frozenset(" \t\n\r")
_HEX = frozenset("0123456789abcdefABCDEF")
_WORDS = {"t": "true", "f": "false", "n": "null"}

_State = Literal["object", "first key", "key", "colon", "value", "first item", "after"]


class _Fault(Exception):
    """The next character cannot follow; the message says why."""


class Piece(NamedTuple):
    """Text of the value of one member of the object; `ends` with its last piece."""

    key: str
    text: str
    ends: bool


class ObjectScanner:
    """Reads strict JSON (RFC 8259), piece by piece, up to the end of one object.

    done: the object is whole. fault: why no object begins with what was read, or None; reading
    stops before the character that cannot follow. Either is told at the same character however
    the text is cut.
    """

    def __init__(self) -> None:
        self.done = False
        self.fault: str | None = None
        self._state: _State = "object"
        self._stack: list[str] = []
        self._keys: set[str] = set()  # of the outer object
        self._next_key = ""  # the last of them
        self._key: str | None = None  # the same while its value is being read
        self._string: list[str] | None = None  # the characters of a string while inside one
        self._escape = 0  # 1 after a backslash, 2 to 5 while the digits of \u are awaited
        self._bare = ""  # a number or a word while inside one
        self._is_key = False

    def feed(self, text: str) -> tuple[int, list[Piece]]:
        """How many characters belong to the object, and the pieces of its members' values among
        them: fewer than there are where the object ends or has a fault."""
        pieces: list[Piece] = []
        at = start = 0  # start: where the text of the current value begins in this text
        while at < len(text) and not self.done and self.fault is None:
            was_inside = self._key is not None
            try:
                at, ended = self._step(text, at)
            except _Fault as fault:
                self.fault = str(fault)
                break
            if self._key is not None and not was_inside:
                start = at - 1
            elif ended:
                assert self._key is not None
                pieces.append(Piece(self._key, text[start:at], True))
                self._key = None
        if self._key is not None and at > start:
            pieces.append(Piece(self._key, text[start:at], False))
        return at, pieces

    def _step(self, text: str, at: int) -> tuple[int, bool]:
        """One step from `at`: the next place, and whether a member's value ended there."""
        if self._string is not None:
            return self._in_string(text, at)
        if self._bare:
            return self._in_bare(text, at)
        char = text[at]
        if char not in _SPACE:
            return at + 1, self._structure(char)
        return at + 1, False

    def _in_string(self, text: str, at: int) -> tuple[int, bool]:
        assert self._string is not None
        if not self._escape and (plain := _PLAIN.match(text, at)):
            if self._is_key:
                self._string.append(plain.group())
            return plain.end(), False
        char = text[at]
        if self._is_key:
            self._string.append(char)
        if self._escape:
            self._escaped(char)
        elif char == "\\":
            self._escape = 1
        elif char == '"':
            return at + 1, self._string_ended()
        else:
            raise _Fault("a control character stands in a string")
        return at + 1, False

    def _escaped(self, char: str) -> None:
        if self._escape == 1:
            if char not in '"\\/bfnrtu':
                raise _Fault(f"a string has the escape \\{char}")
            self._escape = 2 if char == "u" else 0
        else:
            if char not in _HEX:
                raise _Fault("a string has an escape that is no number")
            self._escape = (self._escape + 1) % 6

    def _string_ended(self) -> bool:
        assert self._string is not None
        characters, self._string = self._string, None
        if not self._is_key:
            return self._value_ended()
        self._is_key = False
        self._state = "colon"
        if len(self._stack) == 1:
            self._next_key = json.loads('"' + "".join(characters))
            if self._next_key in self._keys:
                raise _Fault(f"the member {self._next_key[:64]!r} stands twice")
            self._keys.add(self._next_key)
        return False

    def _in_bare(self, text: str, at: int) -> tuple[int, bool]:
        char = text[at]
        word = _WORDS.get(self._bare[0])
        if word is not None:
            if not word.startswith(self._bare + char):
                raise _Fault(f"{(self._bare + char)!r} is no value")
            self._bare += char
            if self._bare == word:
                self._bare = ""
                return at + 1, self._value_ended()
            return at + 1, False
        if char in _NUMBER_CHARS:
            self._bare += char
            if len(self._bare) > MAX_NUMBER_CHARS:
                raise _Fault("a number is too long")
            return at + 1, False
        if not _NUMBER.fullmatch(self._bare):
            raise _Fault(f"{self._bare!r} is no number")
        self._bare = ""
        return at, self._value_ended()  # this character comes after the number

    def _structure(self, char: str) -> bool:
        """A character outside of strings, numbers and words; whether a member's value ended."""
        state = self._state
        if state == "object":
            if char != "{":
                raise _Fault(f"it begins with {char!r}")
            self._open(char)
        elif state in ("first key", "key") and char == '"':
            self._string, self._is_key = [], True
        elif state == "colon" and char == ":":
            self._state = "value"
        elif state == "after" and char == ",":
            self._state = "key" if self._stack[-1] == "{" else "value"
        elif state in ("first key", "first item", "after") and char == self._closing():
            return self._close()
        elif state in ("value", "first item"):
            self._begin_value(char)
        else:
            raise _Fault(f"{char!r} stands where it cannot")
        return False

    def _begin_value(self, char: str) -> None:
        if char in "{[":
            self._open(char)
        elif char == '"':
            self._string = []
        elif char in _WORDS or char in "-0123456789":
            self._bare = char
        else:
            raise _Fault(f"no value begins with {char!r}")
        if self._key is None:
            self._key = self._next_key

    def _open(self, char: str) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise _Fault("it is nested too deep")
        self._stack.append(char)
        self._state = "first key" if char == "{" else "first item"

    def _closing(self) -> str:
        return "}" if self._stack[-1] == "{" else "]"

    def _close(self) -> bool:
        self._stack.pop()
        if not self._stack:
            self.done = True
            return False
        return self._value_ended()

    def _value_ended(self) -> bool:
        self._state = "after"
        return len(self._stack) == 1
