"""Cuts very long texts where the library's tokenizers would overflow the stack or take minutes.

Byte-level BPE splits a text by regular expressions first, and C++'s std::regex calls itself for
every character of a match: about 300 bytes of stack each, so 26,000 letters in a row end a process,
and 3,000 one whose threads have 1 MiB. And a vocabulary that keeps runs of white space whole finds
the place of each run by walking over all before it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 1024
"""Characters that a match of any of the library's expressions may have. Where a longer one could
be, the text is cut, if possible between a word and what follows it, where every expression splits
anyway; the ids of such a text may differ from uncut ones at the cuts, and spell the same."""

_RUNS = 256  # runs of white space in a piece

# What a match can be made of: no white space, nothing else, or (one expression) words and spaces.
_STRETCHES = (re.compile(r"\S+"), re.compile(r"\s+"), re.compile(r"(?:(?![\d_])[\w ])+"))
_NO_WORDS = re.compile(r"[^\w ]|[\d_]")
_SPACE, _NO_SPACE = re.compile(r"\s"), re.compile(r"\S")
_BLOCK = LONGEST // 2
_SEAMS = re.compile(r" (?=\w)|(?<=\w)(?=[^\w\s])")
_SPACE_RUN = re.compile(r"\s*\n\s*|\s{2,}")


def pieces_of_bpe(text: str) -> list[str]:
    """`text` in pieces that hold no stretch longer than LONGEST; itself where it has none."""
    if len(text) <= LONGEST or not _has_long_stretch(text):
        return [text]
    cuts: set[int] = set()
    for kind in _STRETCHES:
        for stretch in kind.finditer(text):
            cuts.update(_cuts(text, stretch.start(), stretch.end()))
    return _cut(text, cuts)


def pieces_of_runs(text: str) -> list[str]:
    """`text` in pieces of few runs of white space, cut before such a run, which stands alone."""
    if len(text) <= LONGEST:
        return [text]
    cuts: set[int] = set()
    for number, run in enumerate(_SPACE_RUN.finditer(text), 1):
        if not number % _RUNS:
            cuts.add(run.start())
        cuts.update(_cuts(text, run.start(), run.end()))
    return _cut(text, cuts)


def _has_long_stretch(text: str) -> bool:
    """Whether there may be one: then it covers a whole block of those looked at here."""
    for start in range(0, len(text) - _BLOCK + 1, _BLOCK):
        block = text[start : start + _BLOCK]
        if not (_SPACE.search(block) and _NO_SPACE.search(block) and _NO_WORDS.search(block)):
            return True
    return False


def _cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Places in a stretch that leave no more than LONGEST characters between them."""
    while end - start > LONGEST:
        seams = [seam.start() for seam in _SEAMS.finditer(text, start + 1, start + LONGEST)]
        start = seams[-1] if seams else start + LONGEST
        yield start


def _cut(text: str, cuts: set[int]) -> list[str]:
    places = sorted({0, *cuts, len(text)})
    return [text[start:end] for start, end in pairwise(places)]
