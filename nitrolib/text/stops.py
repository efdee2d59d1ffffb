"""StopMatcher: ends an answer before a stop string, however the text is cut into chunks."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = 0


class StopMatcher:
    """Passes text on until it contains one of *stops*, non-empty strings.

    The stop string that is complete first wins, because that is when a generation can end; of
    several that end at the same character, the longest. So "abcd" and "bc" in "abcd" give "bc", and
    "a" comes out: a rule that the cuts between chunks cannot change. Held back is only text that
    may yet become a stop string: the longest end of the text with which one of them begins.

    The stop strings form one automaton (A. Aho and M. Corasick, 1975), so the work is linear in
    the length of the text, whatever their number; text with no beginning of a stop string is
    skipped by a compiled search.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(dict.fromkeys(stops))
        if "" in self._stops:
            raise InvalidRequest(
                "a stop string must not be empty: it would match at once",
                field="stop",
                value="",
                allowed="strings of at least one character",
            )
        self._matched: str | None = None
        self._state = _ROOT
        self._build()

    @property
    def matched(self) -> str | None:
        """The stop string that was found."""
        return self._matched

    @property
    def held(self) -> str:
        """The text held back: the beginning of a stop string."""
        return self._prefix_of[self._state][: self._depth[self._state]]

    def feed(self, text: str) -> str:
        """The text that can be sent now. After a match nothing comes out any more."""
        if self._matched is not None:
            return ""
        if not self._stops:
            return text
        stop, depth = self._prefix_of[self._state], self._depth[self._state]
        at, end = 0, len(text)
        while at < end:
            if self._state == _ROOT:
                start = self._starts.search(text, at)
                if start is None:
                    break
                at = start.start()
            self._advance(text[at])
            at += 1
            found = self._found[self._state]
            if found:
                self._matched = found
                self._state = _ROOT
                return _head(stop, depth, text, depth + at - len(found))
        return _head(stop, depth, text, depth + end - self._depth[self._state])

    def finish(self) -> str:
        """The text held back, for every end of the answer other than a match; "" after a match."""
        held = self.held
        self._state = _ROOT
        return held

    def _advance(self, character: str) -> None:
        """Follow the text by one character to the longest beginning of a stop it ends with."""
        state = self._state
        while (following := self._edges.get((state, character))) is None and state != _ROOT:
            state = self._shorter[state]
        self._state = _ROOT if following is None else following

    def _build(self) -> None:
        """A state is a beginning of stop strings; the root is the empty one."""
        self._edges: dict[tuple[int, str], int] = {}  # longer by one character
        self._depth = [0]  # its length
        self._prefix_of = [""]  # a stop string that begins with it
        self._found: list[str] = [""]  # the longest stop string it ends with
        for stop in self._stops:
            state = _ROOT
            for depth, character in enumerate(stop, start=1):
                following = self._edges.get((state, character))
                if following is None:
                    following = self._edges[state, character] = len(self._depth)
                    self._depth.append(depth)
                    self._prefix_of.append(stop)
                    self._found.append("")
                state = following
            self._found[state] = stop
        self._link()
        firsts = "".join(map(re.escape, dict.fromkeys(stop[0] for stop in self._stops)))
        self._starts = re.compile(f"[{firsts}]" if firsts else r"(?!)")

    def _link(self) -> None:
        """For every state the longest other state that it ends with, shortest states first."""
        self._shorter = [_ROOT] * len(self._depth)
        following: list[list[tuple[str, int]]] = [[] for _ in self._depth]
        for (state, character), longer in self._edges.items():
            following[state].append((character, longer))
        queue = deque(longer for _, longer in following[_ROOT])
        while queue:
            parent = queue.popleft()
            for character, state in following[parent]:
                queue.append(state)
                self._state = self._shorter[parent]
                self._advance(character)
                self._shorter[state] = self._state
                self._found[state] = self._found[state] or self._found[self._state]
        self._state = _ROOT


def _head(stop: str, depth: int, text: str, length: int) -> str:
    """The first *length* characters of `stop[:depth] + text`, without joining all of it: a long
    stop string would make that quadratic."""
    if length <= depth:
        return stop[:length]
    return stop[:depth] + text[: length - depth]
