"""Hypothesis strategies shared by the property tests: logits, and text that is hard to cut."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Characters of one to four UTF-8 bytes, marks that combine, joiners, flags, and what looks like
# the end of a turn.
TRICKY = (
    "a", "b", " ", "\n", "\t", "\0", "é", "ß", "e\u0301", "ｱ", "漢", "字", "日本語", "한국어", "😀",
    "👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "\ufeff", "\ufffd", "\u2581", "\u00a0", "\u3000", "א", "ع",
    "</s>", "<|im_end|>", "\U0010ffff",
)  # fmt: skip

texts = st.lists(st.one_of(st.sampled_from(TRICKY), st.text(max_size=3)), max_size=24).map("".join)
"""Text with emoji, CJK, combining marks and anything else."""

# Lone continuation bytes, overlong forms, surrogates, truncated characters, bytes never used.
INVALID = (
    b"\x80", b"\xbf\xbf", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf0\x80\x80",
    b"\xf0\x9f", b"\xf0\x9f\x98", b"\xe6\xbc", b"\xc3", b"\xf4\x90\x80\x80",
    b"\xf8\x88", b"\xff", b"\xfe\xff",
)  # fmt: skip

byte_texts = st.lists(
    st.one_of(
        st.sampled_from(INVALID),
        st.sampled_from(TRICKY).map(str.encode),
        st.binary(max_size=4),
    ),
    max_size=16,
).map(b"".join)
"""Bytes of text with invalid sequences in between, and perhaps half a character at the end."""


def cuts(length: int) -> st.SearchStrategy[list[slice]]:
    """Slices that cut a sequence of this length into pieces, some of them empty."""

    def slices(points: list[int]) -> list[slice]:
        edges = [0, *sorted(points), length]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    return st.lists(st.integers(0, length), max_size=min(2 * length, 24)).map(slices)


@st.composite
def cut_texts(draw: st.DrawFn, source: st.SearchStrategy[str] = texts) -> list[str]:
    """Text from *source* in chunks, some of them empty."""
    text = draw(source)
    return [text[part] for part in draw(cuts(len(text)))]


@st.composite
def cut_bytes(draw: st.DrawFn) -> list[bytes]:
    """Bytes of `byte_texts` in pieces: cut anywhere, also inside characters."""
    data = draw(byte_texts)
    return [data[part] for part in draw(cuts(len(data)))]


# Few letters, so that stop strings begin, fail and overlap all the time.
letters = st.text(alphabet="abc", max_size=40)
stop_strings = st.lists(
    st.one_of(
        st.text(alphabet="abc", min_size=1, max_size=5),
        st.sampled_from(["</s>", "<|im_end|>", "\n\n", "😀", "]", "^", "-", "e\u0301"]),
    ),
    max_size=6,
)


@st.composite
def rows(
    draw: st.DrawFn, min_size: int = 1, max_size: int = 1200, bans: bool = True
) -> NDArray[np.float32]:
    """A row of float32 logits, of any shape from flat to sure, often with ties and bans (-inf), at
    least one of them finite."""
    size = draw(
        st.one_of(
            st.integers(min_size, max(min_size, min(40, max_size))),
            st.integers(min_size, max_size),
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 0.01, 0.5, 2.0, 10.0]))
    row = rng.normal(draw(st.sampled_from([-5.0, 0.0, 20.0])), scale, size)
    peak = draw(st.integers(0, min(size, 30)))
    row[rng.permutation(size)[:peak]] += np.linspace(1, 12, peak) if peak else 0
    if draw(st.booleans()):
        row = np.round(row * 2) / 2  # ties
    if bans and draw(st.booleans()):
        row[rng.permutation(size)[: size // draw(st.integers(2, 20))]] = -np.inf
    return row.astype(np.float32)
