"""Lookup: guesses how a text goes on from what it said before (speculative decoding by prompt
lookup, A. Saxena, 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Lookup"]

_LENGTHS = (3, 2)  # of the ends that are looked for; what follows a longer one comes more often
_LONGEST_PAUSE = 16  # tokens without a guess, after guesses that all came to nothing


class Lookup:
    """The text of one generation: what followed the last time that it ended as it does now.

    Every place is found in one look at a table, whatever the length of the text. A guess that came
    to nothing costs about as much as the token itself, so guesses pause after it, longer each time.
    """

    def __init__(self, most: int) -> None:
        """`most`: tokens of one guess."""
        self._most = most
        self._text: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # the place after the last such tokens
        self._pause = self._paused = 0

    def extend(self, tokens: Iterable[int]) -> None:
        """The text goes on. The tokens before the new one are noted only now, so that the end of
        the text is found where it came before, and not at the end."""
        text, after = self._text, self._after
        for token in tokens:
            end = len(text)
            for length in _LENGTHS:
                if end >= length:
                    after[tuple(text[end - length :])] = end
            text.append(token)
        self._paused = max(self._paused - 1, 0)

    def draft(self, most: int) -> list[int]:
        """The tokens that may come next, at most `most`; [] without an idea."""
        most = min(most, self._most)
        if self._paused or most <= 0:
            return []
        for length in _LENGTHS:
            place = self._after.get(tuple(self._text[-length:]))
            if place is not None:
                return self._text[place : place + most]
        return []

    def judged(self, accepted: int) -> None:
        """So many tokens of the last guess came."""
        self._pause = 0 if accepted else min(2 * self._pause + 1, _LONGEST_PAUSE)
        self._paused = self._pause
