"""What was evaluated, and how the next prompt goes on from it: the exact token ids are kept instead
of tokenizing the conversation anew, so that a model's cache of them stays good."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .encode import Part, SpecialTokens, Tokenize, encode_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEADING_SPACE = re.compile(rb"\s*")


class Pieces(SpecialTokens, Protocol):
    """What is asked of a vocabulary."""

    @property
    def pieces(self) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One turn as a model saw it: the prompt as `split` gave it and as ids, and the sampled ids."""

    parts: tuple[Part, ...]
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    def continued(
        self, parts: Sequence[Part], vocabulary: Pieces, tokenize: Tokenize
    ) -> list[int] | None:
        """Ids of the prompt `parts`, which begin with the ids of this turn; None where `parts` is
        no continuation of it.

        `parts` must begin with this turn's parts: the same control tokens at the same places and
        the same text between. Then follows as much of the answer as the new prompt repeats. White
        space at the answer's beginning stays as the model wrote it, whatever the template puts
        there. Everything after is tokenized: a control token starts afresh, and plain text goes on
        without a space in front.
        """
        rest = _after(self.parts, parts)
        if rest is None:
            return None
        text = rest[0] if rest and isinstance(rest[0], str) else ""
        kept, length = _repeated(self.answer_ids, text, vocabulary)
        if length:
            rest = [text[length:], *rest[1:]] if length < len(text) else rest[1:]
        after_text = bool(kept) or isinstance(self.parts[-1], str)
        tail = encode_parts(rest, vocabulary, tokenize, continues=after_text)
        return [*self.prompt_ids, *kept, *tail]


def _after(old: Sequence[Part], new: Sequence[Part]) -> list[Part] | None:
    """What follows `old` in `new`, or None."""
    if not old or len(new) < len(old):
        return None
    *head, last = old
    if list(new[: len(head)]) != head:
        return None
    here, rest = new[len(head)], list(new[len(old) :])
    if isinstance(last, int) or isinstance(here, int):
        return rest if last == here else None
    if not here.startswith(last):
        return None
    more = here[len(last) :]
    return [more, *rest] if more else rest


def _repeated(answer: Sequence[int], text: str, vocabulary: Pieces) -> tuple[tuple[int, ...], int]:
    """The longest beginning of `answer` that `text` repeats, and how many characters of it those
    are; white space in front of both may differ."""
    pieces = _text_pieces(answer, vocabulary)
    made, wanted = b"".join(pieces), text.encode("utf-8", "surrogatepass")
    made_start, wanted_start = _visible(made), _visible(wanted)
    common = _common(made[made_start:], wanted[wanted_start:])
    kept = length = end = 0
    for number, piece in enumerate(pieces, 1):
        end += len(piece)
        shared = end - made_start
        if shared > common:
            break
        cut = wanted_start + shared
        if shared > 0 and (cut == len(wanted) or wanted[cut] & 0xC0 != 0x80):
            kept, length = number, cut
    return tuple(answer[:kept]), len(wanted[:length].decode("utf-8", "surrogatepass"))


def _text_pieces(answer: Sequence[int], vocabulary: Pieces) -> list[bytes]:
    """The pieces of `answer` up to its first token that is no plain text: an end token, or a
    control token that a model made up, which message text may not be."""
    special = set(vocabulary.special.values())
    pieces = []
    for token in answer:
        piece = vocabulary.pieces[token] if 0 <= token < len(vocabulary.pieces) else b""
        if not piece or token in special:
            break
        pieces.append(piece)
    return pieces


def _visible(data: bytes) -> int:
    match = _LEADING_SPACE.match(data)
    return match.end() if match else 0


def _common(left: bytes, right: bytes) -> int:
    """Length of the longest common beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
