"""A prompt as token ids: control-token texts become their tokens, everything else is plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .message import Prompt

Part = int | str  # a control token's id, or plain text


class SpecialTokens(Protocol):
    """What is asked of a vocabulary."""

    @property
    def special(self) -> Mapping[str, int]: ...
    @property
    def bos(self) -> int | None: ...
    @property
    def add_bos(self) -> bool: ...


class Tokenize(Protocol):
    """Ids of plain text, as `Runtime.tokenize` gives them: never BOS, never a control token."""

    def __call__(self, text: str, *, space_prefix: bool = True) -> list[int]: ...


def encode(
    prompt: Prompt,
    vocabulary: SpecialTokens,
    tokenize: Tokenize,
    *,
    continues: bool = False,
) -> list[int]:
    """Token ids of a prompt.

    Texts of control and user-defined tokens are looked for in each special segment alone, longest
    first. All other text is plain; neighbouring plain text is tokenized together, each run with
    the space that SentencePiece puts before a text (as llama.cpp does it after a control token
    too). BOS stands in front where the prompt allows it, the model wants it, and the prompt does
    not begin with it. With `continues` the prompt goes on from plain text before it: a run of
    plain text at its beginning has no space put in front (`add_bos` is then best False).
    """
    return encode_parts(split(prompt, vocabulary), vocabulary, tokenize, continues=continues)


def split(prompt: Prompt, vocabulary: SpecialTokens) -> list[Part]:
    """The prompt as ids of control tokens and runs of plain text, in order and never empty; no two
    runs are neighbours. BOS is in it where `encode` puts it."""
    specials = sorted(filter(None, vocabulary.special), key=len, reverse=True)
    known: dict[str, list[Part]] = {}  # template text repeats with every message
    parts: list[Part] = []
    for segment in prompt.segments:
        if not segment.special:
            _append(parts, segment.text)
            continue
        if segment.text not in known:
            known[segment.text] = _find(segment.text, specials, vocabulary.special)
        for part in known[segment.text]:
            _append(parts, part)
    bos = vocabulary.bos
    if prompt.add_bos and vocabulary.add_bos and bos is not None and parts[:1] != [bos]:
        parts.insert(0, bos)
    return parts


def encode_parts(
    parts: Sequence[Part],
    vocabulary: SpecialTokens,
    tokenize: Tokenize,
    *,
    continues: bool = False,
) -> list[int]:
    """Token ids of what `split` gives. With `continues`, a run of plain text at the beginning goes
    on from plain text before it, so no space is put in front of it."""
    forbidden = {
        token for text, token in vocabulary.special.items() if len(text) > 1 and text.strip()
    }
    ids: list[int] = []
    for number, part in enumerate(parts):
        if isinstance(part, int):
            ids.append(part)
        else:
            space_prefix = number > 0 or not continues
            ids += _plain(part, vocabulary.special, forbidden, tokenize, space_prefix)
    return ids


def _append(parts: list[Part], part: Part) -> None:
    if isinstance(part, int):
        parts.append(part)
    elif parts and isinstance(parts[-1], str):
        parts[-1] += part
    elif part:
        parts.append(part)


def _find(text: str, specials: Sequence[str], ids: Mapping[str, int]) -> list[Part]:
    """Cut `text` at every special text, the longest first over the whole of it."""
    parts: list[Part] = [text]
    for special in specials:
        if special not in text:
            continue
        cut: list[Part] = []
        for part in parts:
            if isinstance(part, int):
                cut.append(part)
                continue
            first, *others = part.split(special)
            cut.append(first)
            for other in others:
                cut += (ids[special], other)
        parts = cut
    return [part for part in parts if part != ""]


def _plain(
    text: str,
    special: Mapping[str, int],
    forbidden: set[int],
    tokenize: Tokenize,
    space_prefix: bool,
) -> list[int]:
    """Ids of plain text. User-defined tokens are ordinary pieces to a tokenizer, and "<|im_start|>"
    is one in some files: where such a token arises, its text is tokenized in two halves, in which
    it cannot arise. White space and single characters are harmless as tokens."""
    ids = tokenize(text, space_prefix=space_prefix)
    arisen = forbidden.intersection(ids)
    if not arisen or len(text) < 2:
        return ids
    halves = _halved(text, [name for name, token in special.items() if token in arisen])
    return [
        token
        for number, half in enumerate(halves)
        for token in _plain(half, special, forbidden, tokenize, space_prefix and number == 0)
    ]


def _halved(text: str, names: Sequence[str]) -> list[str]:
    """`text` cut after the first character of every name in it, or of itself if there is none."""
    for name in sorted(names, key=len):
        first, *others = text.split(name)
        if others:
            starts = [first + name[0], *(name[1:] + other + name[0] for other in others[:-1])]
            return [*starts, name[1:] + others[-1]]
    return [text[0], text[1:]]
