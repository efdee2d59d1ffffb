"""ToolCallParser: tells calls from text in an answer while it is written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from .call_events import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    Event,
    ParsedAnswer,
    TextDelta,
    new_call_id,
)
from .json_scan import ObjectScanner
from .message import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence

    from .call_syntax import CallSyntax

    Reading = Generator[None, None, bool]  # goes on when there is more text; tells what it found

_NAME = re.compile(r"[a-zA-Z0-9_-]*")
_NAME_CHARS = 64
MAX_NOTES = 16
_SPACE = " \t\n\r"


class _NoCall(Exception):
    """What began as a call is none; the message says why."""


class ToolCallParser:
    """Turns the text of an answer into events, fed in pieces of any size: the joined events of an
    answer are the same however it is cut.

    syntax: how its calls look.
    names: the tools that may be called; anything else called is text.
    many: whether more than one call counts; those after the first are then text.
    constrained: a grammar makes the calls. Then arguments are told while they are written.
        Otherwise a call is told when it has proved to be one, and is text where it does not.
    new_id: makes the ids of calls.

    Never raises on what a model writes: what is no call stays in the text, and `notes` say why.
    White space beside calls belongs to no text.
    """

    def __init__(
        self,
        syntax: CallSyntax,
        names: Collection[str],
        *,
        many: bool = True,
        constrained: bool = False,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self.syntax = syntax
        self.notes: list[str] = []
        self._names = frozenset(names)
        self._most = None if many and syntax.many else 1
        self._constrained = constrained
        self._new_id = new_id
        self._count = 0
        self._events: list[Event] = []
        self._unread = ""
        self._final = False
        self._read: list[str] = []  # what the current attempt has read, to give it back
        self._space = ""  # white space that is text only if text follows
        self._after_call = False
        self._open: int | None = None  # the call that has been told of and goes on
        self._reading = self._answer()
        next(self._reading)

    def feed(self, text: str) -> list[Event]:
        """The events of the next piece of text."""
        if text:
            self._unread += text
            next(self._reading, None)
        return self._told()

    def finish(self) -> list[Event]:
        """The events of the end of the answer: of what was held back."""
        self._final = True
        next(self._reading, None)
        return self._told()

    def _told(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # --- text ----------------------------------------------------------------------------------

    def _answer(self) -> Generator[None, None, None]:
        yield
        if not self.syntax.marker:
            yield from self._bare_block()
        while self.syntax.marker and (yield from self._text_to_marker()):
            yield from self._block()
        while self._unread or not self._final:
            self._tell_text(self._unread)
            self._unread = ""
            if not self._final:
                yield
        if not self._after_call:
            self._tell(self._space)

    def _bare_block(self) -> Generator[None, None, None]:
        """A call without a marker: a JSON object with which the answer begins."""
        while not (stripped := self._unread.lstrip(_SPACE)) and not self._final:
            yield
        if stripped.startswith("{"):
            self._tell_text(self._unread[: len(self._unread) - len(stripped)])
            self._unread = stripped
            yield from self._block()

    def _text_to_marker(self) -> Reading:
        """Tell the text before the next marker; whether there is one."""
        marker = self.syntax.marker
        while True:
            at = self._unread.find(marker)
            if at < 0:
                at = len(self._unread)
                if not self._final:
                    at -= _overlap(self._unread, marker)
            self._tell_text(self._unread[:at])
            self._unread = self._unread[at:]
            if self._unread.startswith(marker):
                return True
            if self._final:
                return False
            yield

    def _tell_text(self, text: str) -> None:
        """Tell text, less white space at its end, which may stand before a call."""
        text = self._space + text
        if self._after_call:
            text = text.lstrip()
        visible = text.rstrip()
        self._space = text[len(visible) :]
        self._tell(visible)

    def _tell(self, text: str) -> None:
        if text:
            self._events.append(TextDelta(text))
            self._after_call = False

    # --- calls ---------------------------------------------------------------------------------

    def _block(self) -> Generator[None, None, None]:
        """Calls, if that is what they are; else the marker is told as text."""
        self._read = []
        try:
            yield from self._must((*self.syntax.begin, *self.syntax.call_begin))
            yield from self._call()
            while (yield from self._goes_on()):
                yield from self._call()
        except _NoCall as error:
            self._give_up(str(error))
        else:
            yield from self._may(self.syntax.end)

    def _goes_on(self) -> Reading:
        """Whether another call of the same block begins."""
        self._read = []
        syntax = self.syntax
        if syntax.separator:
            again = (*syntax.separator, *syntax.call_begin)
        else:
            again = syntax.call_begin if syntax.begin else ()
        return bool(again) and (yield from self._may(again, keep=True))

    def _give_up(self, reason: str) -> None:
        """What has been read of a call is text after all, but for what has been told of it."""
        if self._open is not None:
            self._note(f"call {self._open} broke off: {reason}")
            self._end_call(complete=False)
            self._read = []
            return
        self._note(f"what looked like a call is text: {reason}")
        text = "".join(self._read) + self._unread
        self._read = []
        self._tell_text(text[:1])  # and look for a marker again behind it
        self._unread = text[1:]

    def _note(self, note: str) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(note)

    def _call(self) -> Generator[None, None, None]:
        """One call, from its name to what ends it."""
        if self._most is not None and self._count >= self._most:
            raise _NoCall("one call is allowed, and this is one more")
        yield from self._skip_space()
        if self.syntax.between is None:
            yield from self._object_call()
        else:
            yield from self._named_call(self.syntax.between)
        self._read = []
        yield from self._may(self.syntax.call_end)

    def _object_call(self) -> Generator[None, None, None]:
        """{"name": ..., "arguments": ...}; other members are passed over."""
        syntax = self.syntax
        values: dict[str, list[str]] = {}
        whole: set[str] = set()
        scanner = ObjectScanner()
        while True:
            used, pieces = scanner.feed(self._unread)
            self._take(used)
            for piece in pieces:
                values.setdefault(piece.key, []).append(piece.text)
                if piece.ends:
                    whole.add(piece.key)
                if self._constrained and syntax.name_key in whole:
                    self._stream_arguments(values, piece.key)
            if scanner.done:
                break
            yield from self._on(scanner)
        if self._open is None:
            arguments = _arguments(values, syntax.arguments_key)
            self._start_call(_name(values, syntax.name_key))
            self._tell_arguments(arguments)
        self._end_call(complete=True)

    def _stream_arguments(self, values: dict[str, list[str]], key: str) -> None:
        """Tell what there is of the arguments, once there is some and the call has a name."""
        syntax = self.syntax
        if syntax.arguments_key not in values or key not in (syntax.name_key, syntax.arguments_key):
            return
        text = values[syntax.arguments_key][-1]
        if self._open is None:
            if not (syntax.marker or "".join(self._read).startswith(syntax.trigger)):
                return  # no grammar has begun
            text = _arguments(values, syntax.arguments_key)
            self._start_call(_name(values, syntax.name_key))
        self._tell_arguments(text)

    def _named_call(self, between: Sequence[str]) -> Generator[None, None, None]:
        """The name, the texts between, and the object of the arguments."""
        name = ""
        while True:
            match = _NAME.match(self._unread)
            assert match is not None
            name += match.group()
            self._take(match.end())
            if self._unread or len(name) > _NAME_CHARS:
                break
            yield from self._more("the answer ends inside its name")
        self._check_name(name)
        yield from self._must(between)
        yield from self._skip_space()
        scanner = ObjectScanner()
        arguments: list[str] = []
        while True:
            used, _ = scanner.feed(self._unread)
            text = self._unread[:used]
            self._take(used)
            if self._constrained and text:
                if self._open is None:
                    self._start_call(name)
                self._tell_arguments(text)
            arguments.append(text)
            if scanner.done:
                break
            yield from self._on(scanner)
        if self._open is None:
            self._start_call(name)
            self._tell_arguments("".join(arguments))
        self._end_call(complete=True)

    # --- telling of calls ------------------------------------------------------------------------

    def _check_name(self, name: str) -> None:
        if name not in self._names:
            raise _NoCall(f"{name[:_NAME_CHARS]!r} is no tool that may be called")

    def _start_call(self, name: str) -> None:
        self._check_name(name)
        self._space = ""
        self._after_call = True
        self._open = self._count
        self._count += 1
        self._events.append(CallStarted(self._open, self._new_id(), name))

    def _tell_arguments(self, text: str) -> None:
        assert self._open is not None
        if text:
            self._events.append(ArgumentsDelta(self._open, text))

    def _end_call(self, *, complete: bool) -> None:
        assert self._open is not None
        self._events.append(CallEnded(self._open, complete))
        self._open = None

    # --- reading -------------------------------------------------------------------------------

    def _take(self, count: int) -> None:
        self._read.append(self._unread[:count])
        self._unread = self._unread[count:]

    def _more(self, otherwise: str) -> Generator[None, None, None]:
        """Wait for more text. Raises _NoCall at the end of the answer."""
        if self._final:
            raise _NoCall(otherwise)
        yield

    def _on(self, scanner: ObjectScanner) -> Generator[None, None, None]:
        """Wait for more of an object."""
        if scanner.fault is not None:
            raise _NoCall(f"it is no JSON: {scanner.fault}")
        yield from self._more("the answer ends inside it")

    def _skip_space(self) -> Generator[None, None, None]:
        while True:
            self._take(len(self._unread) - len(self._unread.lstrip(_SPACE)))
            if self._unread or self._final:
                return
            yield

    def _must(self, tokens: Sequence[str]) -> Generator[None, None, None]:
        for token in tokens:
            yield from self._skip_space()
            while len(self._unread) < len(token) and token.startswith(self._unread):
                yield from self._more(f"{token!r} is missing")
            if not self._unread.startswith(token):
                raise _NoCall(f"{token!r} is missing")
            self._take(len(token))

    def _may(self, tokens: Sequence[str], *, keep: bool = False) -> Reading:
        """Read the texts if they are there, or the answer ends inside them; else read nothing.
        With `keep` they can be given back, and an answer that ends inside them has not got them."""
        before = self._read
        self._read = []
        try:
            yield from self._must(tokens)
        except _NoCall:
            rest = self._unread
            self._unread = "".join(self._read) + rest
            self._read = before
            if self._final and not keep and _is_beginning(self._unread, tokens):
                self._unread = ""
            return False
        self._read = [*before, *self._read] if keep else []
        return True


def _name(values: dict[str, list[str]], key: str) -> str:
    try:
        name = json.loads("".join(values[key]))
    except KeyError:
        raise _NoCall(f"it has no {key!r}") from None
    if not isinstance(name, str):
        raise _NoCall(f"its {key!r} is no text")
    return name


def _arguments(values: dict[str, list[str]], key: str) -> str:
    """The object of the arguments; a call without arguments has an empty one."""
    text = "".join(values.get(key, "{}"))
    if not text.startswith("{"):
        raise _NoCall(f"its {key!r} is no object")
    return text


def _is_beginning(text: str, tokens: Sequence[str]) -> bool:
    """Whether `text` is the tokens, cut off somewhere."""
    for token in tokens:
        text = text.lstrip(_SPACE)
        if token.startswith(text):
            return True
        text = text.removeprefix(token)
    return not text


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` with which the marker begins."""
    end = text[-len(marker) :]
    if marker[0] not in end:  # most pieces of most answers
        return 0
    return next(
        size for size in range(len(end), -1, -1) if marker.startswith(end[len(end) - size :])
    )


def joined(events: Sequence[Event], notes: Sequence[str] = ()) -> ParsedAnswer:
    """The answer that events tell of."""
    text: list[str] = []
    calls: list[tuple[CallStarted, list[str]]] = []
    for event in events:
        if isinstance(event, TextDelta):
            text.append(event.text)
        elif isinstance(event, CallStarted):
            calls.append((event, []))
        elif isinstance(event, ArgumentsDelta):
            calls[event.index][1].append(event.text)
    made = tuple(ToolCall(start.id, start.name, "".join(parts)) for start, parts in calls)
    return ParsedAnswer("".join(text), made, tuple(notes))
