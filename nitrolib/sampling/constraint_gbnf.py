"""GBNF, the grammar notation of llama.cpp, translated to the notation of the grammar library.

The library cuts its input into lexemes, the longest first, and GBNF knows no such thing: so every
lexeme written here is one character, and what the grammar says is exactly what is accepted.
Syntax errors name the line. Beyond llama.cpp, left recursion is allowed; tokens in grammars
(`<[17]>`) are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_GRAMMAR_BYTES", "translate_gbnf"]

MAX_GRAMMAR_BYTES = 131_072
MAX_RULES = 1_000
MAX_CHARACTERS = 20_000
MAX_ELEMENTS = 1_000
"""Names, groups and repetitions: where all may begin alike, a mask takes the square of them."""

MAX_DEPTH = 25
MAX_REPEAT = 2_000
MAX_STACKED = 2
"""Repetitions of one element, one upon the other, such as `x*?`."""

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


class _Chars(NamedTuple):
    """One character: a class in the regex notation of the library."""

    regex: str


class _Name(NamedTuple):
    name: str
    line: int


class _Repeat(NamedTuple):
    node: _Node
    least: int
    most: int | None


class _Choice(NamedTuple):
    """Alternatives, each a sequence."""

    branches: tuple[tuple[_Node, ...], ...]


_Node = _Chars | _Name | _Repeat | _Choice


def translate_gbnf(text: str, field: str = "grammar") -> str:
    """The grammar *text* with root rule `root` as Lark rules with root rule `start`.

    Raises InvalidRequest with the facts `field` and `line` (1 is the first) for a grammar that does
    not parse, names a rule that is not there, has no `root`, or can never end.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_GRAMMAR_BYTES:
        raise InvalidRequest(
            f"{field} is longer than {MAX_GRAMMAR_BYTES} bytes",
            field=field,
            value=f"{len(text)} characters",
            allowed=f"at most {MAX_GRAMMAR_BYTES} bytes of UTF-8",
        )
    parser = _Parser(text, field)
    rules = parser.rules()
    if "root" not in rules:
        parser.refuse("there is no rule named root", 1)
    finite = _finite(rules)
    for name, (line, body) in rules.items():
        for reference in _names(body):
            if reference.name not in rules:
                parser.refuse(f"no rule is named {reference.name}", reference.line)
        if name not in finite:
            parser.refuse(f"the rule {name} never ends", line)
    return _Writer({name: body for name, (_, body) in rules.items()}).text()


class _Parser:
    """Recursive descent, as llama.cpp does it: a rule ends with its line, but for parentheses and
    what follows `|`."""

    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.field = field
        self.position = 0
        self.n_characters = 0
        self.n_elements = 0

    def refuse(self, what: str, line: int | None = None) -> NoReturn:
        if line is None:
            line = self.line
        lines = self.text.split("\n")
        shown = lines[line - 1].strip()[:200] if line <= len(lines) else ""
        raise InvalidRequest(
            f"{self.field}: {what} (line {line})",
            field=self.field,
            value=shown,
            allowed="GBNF with a rule named root",
            line=line,
        )

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.position) + 1

    @property
    def here(self) -> str:
        return self.text[self.position : self.position + 1]

    def take(self, literal: str) -> bool:
        if self.text.startswith(literal, self.position):
            self.position += len(literal)
            return True
        return False

    def space(self, *, newlines: bool) -> None:
        while self.here and (self.here in " \t" or (newlines and self.here in "\r\n")):
            self.position += 1
        if self.here == "#":
            end = self.text.find("\n", self.position)
            self.position = len(self.text) if end < 0 else end
            self.space(newlines=newlines)

    def rules(self) -> dict[str, tuple[int, _Choice]]:
        found: dict[str, tuple[int, _Choice]] = {}
        self.space(newlines=True)
        while self.here:
            line = self.line
            name = self.name()
            self.space(newlines=False)
            if not self.take("::="):
                self.refuse(f"::= is missing after {name}")
            self.space(newlines=True)
            body = self.choice(nested=False, depth=0)
            if self.here and self.here not in "\r\n":
                self.refuse(f"{self.here!r} is not expected")
            if name in found:
                self.refuse(f"a second rule named {name}", line)
            found[name] = line, body
            if len(found) > MAX_RULES:
                self.refuse(f"more than {MAX_RULES} rules", line)
            self.space(newlines=True)
        return found

    def name(self) -> str:
        start = self.position
        while self.here and self.here.isascii() and (self.here.isalnum() or self.here in "-_"):
            self.position += 1
        if start == self.position:
            self.refuse("a rule name is missing")
        return self.text[start : self.position]

    def choice(self, *, nested: bool, depth: int) -> _Choice:
        if depth > MAX_DEPTH:
            self.refuse(f"more than {MAX_DEPTH} nested groups")
        branches = [self.sequence(nested, depth)]
        while self.take("|"):
            self.space(newlines=True)
            branches.append(self.sequence(nested, depth))
        return _Choice(tuple(branches))

    def sequence(self, nested: bool, depth: int) -> tuple[_Node, ...]:
        found: list[_Node] = []
        while True:
            start = len(found)
            if self.take('"'):
                found += self.literal()
                # A repetition after a literal repeats all of it.
                if len(found) != start + 1:
                    found[start:] = [_Choice((tuple(found[start:]),))]
            elif self.take("["):
                found.append(self.char_class())
            elif self.take("."):
                found.append(_Chars(r"[\x{0}-\x{10FFFF}]"))
            elif self.take("("):
                self.space(newlines=True)
                found.append(self.choice(nested=True, depth=depth + 1))
                if not self.take(")"):
                    self.refuse("a ) is missing")
            elif self.here and (self.here.isalnum() or self.here in "-_"):
                line = self.line
                found.append(_Name(self.name(), line))
            elif self.here and self.here in "*+?{":
                self.refuse(f"{self.here} has nothing to repeat")
            elif self.here and self.here in "<!":
                self.refuse("tokens in a grammar are not supported")
            else:
                return tuple(found)
            self.count(found[-1] if len(found) > start else None)
            self.space(newlines=nested)
            stacked = 0
            while self.here and self.here in "*+?{":
                stacked += 1
                if stacked > MAX_STACKED:
                    self.refuse(f"more than {MAX_STACKED} repetitions of one element")
                found[-1] = self.repeat(found[-1])
                self.space(newlines=nested)

    def count(self, node: _Node | None) -> None:
        """Refuse one element too many: a character, or anything else."""
        if isinstance(node, _Chars):
            self.n_characters += 1
        else:
            self.n_elements += 1
        if self.n_elements > MAX_ELEMENTS:
            self.refuse(f"more than {MAX_ELEMENTS} names, groups and repetitions")
        if self.n_characters > MAX_CHARACTERS:
            self.refuse(f"more than {MAX_CHARACTERS} characters")

    def repeat(self, node: _Node) -> _Node:
        self.count(None)
        if not self.take("{"):
            self.position += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[
                self.text[self.position - 1]
            ]
            return _Repeat(node, least, most)
        self.space(newlines=True)
        low = high = self.number()
        self.space(newlines=True)
        if self.take(","):
            self.space(newlines=True)
            high = self.number() if self.here.isdecimal() else None
            self.space(newlines=True)
        if not self.take("}"):
            self.refuse("a } is missing")
        if high is not None and low is not None and high < low:
            self.refuse("a repetition whose bounds are the wrong way round")
        return _Repeat(node, low or 0, high)

    def number(self) -> int | None:
        start = self.position
        while self.here.isascii() and self.here.isdecimal():
            self.position += 1
        digits = self.text[start : self.position]
        if not digits:
            self.refuse("a number is missing")
        if len(digits) > 9 or int(digits) > MAX_REPEAT:
            self.refuse(f"a repetition of more than {MAX_REPEAT}")
        return int(digits)

    def literal(self) -> list[_Node]:
        found: list[_Node] = []
        while not self.take('"'):
            self.n_characters += 1
            found.append(_Chars(f"[{_number(self.character())}]"))
        return found

    def char_class(self) -> _Chars:
        negated = self.take("^")
        parts: list[str] = []
        while not self.take("]"):
            first = self.character()
            if self.here == "-" and self.text[self.position + 1 : self.position + 2] != "]":
                self.position += 1
                last = self.character()
                if last < first:
                    self.refuse("a range the wrong way round")
                parts.append(f"{_number(first)}-{_number(last)}")
            else:
                parts.append(_number(first))
        if not parts and not negated:
            self.refuse("an empty class")
        return _Chars(f"[{'^' if negated else ''}{''.join(parts)}]" if parts else "(?s:.)")

    def character(self) -> int:
        char = self.here
        if not char:
            self.refuse("the grammar ends inside a literal or class")
        self.position += 1
        code = ord(char) if char != "\\" else self.escape()
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            self.refuse(f"U+{code:X} is no character")
        return code

    def escape(self) -> int:
        letter = self.here
        self.position += 1
        if letter and letter in _ESCAPES:
            return ord(_ESCAPES[letter])
        if letter not in _HEX_DIGITS:
            self.position -= 1
            self.refuse(f"no such escape: \\{letter}")
        digits = self.text[self.position : self.position + _HEX_DIGITS[letter]]
        if len(digits) < _HEX_DIGITS[letter] or any(
            c not in "0123456789abcdefABCDEF" for c in digits
        ):
            self.refuse(f"\\{letter} needs {_HEX_DIGITS[letter]} hexadecimal digits")
        self.position += len(digits)
        return int(digits, 16)


def _number(code: int) -> str:
    return f"\\x{{{code:X}}}"


def _names(node: _Node) -> list[_Name]:
    if isinstance(node, _Name):
        return [node]
    if isinstance(node, _Repeat):
        return _names(node.node)
    if isinstance(node, _Choice):
        return [name for branch in node.branches for item in branch for name in _names(item)]
    return []


def _finite(rules: dict[str, tuple[int, _Choice]]) -> set[str]:
    """Rules that derive some finite text; unknown names, left to be reported, count as such.

    What is known to end is carried upwards through counters, so that the time is linear: a
    sequence ends when all its elements do, a choice when one of its sequences does.
    """
    finite: set[str] = set()
    waiting: dict[str, list[Callable[[], None]]] = {}  # by rule: what to do once it ends

    def watch(node: _Node, then: Callable[[], None]) -> None:
        """Call *then* once when *node* is known to end."""
        if isinstance(node, _Name) and node.name in rules:
            waiting.setdefault(node.name, []).append(then)
        elif isinstance(node, _Repeat) and node.least > 0:
            watch(node.node, then)
        elif isinstance(node, _Choice):
            once = _Countdown(1, then)
            for branch in node.branches:
                left = _Countdown(len(branch), once.step)
                for item in branch:
                    watch(item, left.step)
        else:
            ready.append(then)

    ready: list[Callable[[], None]] = []
    for name, (_, body) in rules.items():
        watch(body, lambda name=name: finite.add(name))  # type: ignore[misc]
    done: set[str] = set()
    while ready or finite - done:
        while ready:
            ready.pop()()
        for name in finite - done:
            done.add(name)
            ready += waiting.pop(name, [])
    return finite


class _Countdown:
    """Calls *then* at the step that brings *count* to 0, at once if it is 0."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._count = count
        self._then = then
        if count == 0:
            then()

    def step(self) -> None:
        self._count -= 1
        if self._count == 0:
            self._then()


class _Writer:
    """Writes rules that root reaches; equal classes share a terminal."""

    def __init__(self, rules: dict[str, _Choice]) -> None:
        self._rules = rules
        self._names: dict[str, str] = {"root": "start"}
        self._terminals: dict[str, str] = {}

    def text(self) -> str:
        lines: list[str] = []
        written: set[str] = set()
        while todo := [name for name in self._names if name not in written]:
            for name in todo:
                written.add(name)
                new = self._names[name]
                lines.append(f"{new}: {self._branches(self._rules[name])}")
        lines += [f"{name}: /{regex}/" for regex, name in self._terminals.items()]
        return "\n".join(lines) + "\n"

    def _branches(self, choice: _Choice) -> str:
        return " | ".join(
            " ".join(self._node(item) for item in branch) or '""' for branch in choice.branches
        )

    def _node(self, node: _Node) -> str:
        if isinstance(node, _Name):
            return self._names.setdefault(node.name, f"r{len(self._names)}")
        if isinstance(node, _Chars):
            return self._terminals.setdefault(node.regex, f"T{len(self._terminals)}")
        if isinstance(node, _Choice):
            return f"({self._branches(node)})"
        inner = self._node(node.node)
        if isinstance(node.node, _Repeat):
            inner = f"({inner})"
        least, most = node.least, node.most
        if most is None and least < 2:
            return inner + "*+"[least]
        if (least, most) == (0, 1):
            return inner + "?"
        return f"{inner}{{{least},{'' if most is None else most}}}"
