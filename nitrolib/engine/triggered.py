"""TriggeredConstraint: a grammar that begins to hold where an answer begins a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ..gguf import Vocabulary
    from ..prompt import Trigger
    from ..sampling import Constraint

__all__ = ["ShownPieces", "Spelling", "TriggeredConstraint"]


class Spelling:
    """Texts as tokens of a vocabulary, whatever the cuts: for a grammar only the bytes count."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.pieces = vocabulary.pieces
        silent = vocabulary.control | vocabulary.eog
        self._ids = {
            bytes(piece): token
            for token, piece in enumerate(vocabulary.pieces)
            if piece and token not in silent
        }
        self._longest = max(map(len, self._ids), default=0)

    def tokens(self, text: bytes) -> list[int] | None:
        """Tokens that say `text`, the longest first; None where that leads to no end."""
        found, at = [], 0
        while at < len(text):
            for end in range(min(len(text), at + self._longest), at, -1):
                token = self._ids.get(text[at:end])
                if token is not None:
                    break
            else:
                return None
            found.append(token)
            at = end
        return found


class TriggeredConstraint:
    """Everything is allowed until the answer holds the trigger; from its first character on the
    grammar that `start` makes holds. Then also what a token says beyond the trigger must obey it: a
    token that completes the trigger and goes on otherwise is refused.

    A control token that is the trigger counts wherever it comes; its text, spelled in other tokens,
    where the grammar begins with that too.
    """

    def __init__(
        self, start: Callable[[], Constraint], trigger: Trigger, spelling: Spelling
    ) -> None:
        self._start = start
        self._spelling = spelling
        self._token = trigger.token
        self._at_start = trigger.at_start
        self._text = trigger.text.encode()
        self._inner: Constraint | None = None
        self._said = b""  # the end of the answer's text, where the trigger may have begun
        self._listens = self._token is None or self._after(self._text) is not None

    @property
    def finished(self) -> bool:
        return self._inner is not None and self._inner.finished

    @property
    def may_end(self) -> bool:
        return self._inner is None or self._inner.may_end

    def allows(self, token: int) -> bool:
        if self._inner is not None:
            return self._inner.allows(token)
        if token == self._token:
            return self._start().allows(token)
        call = self._begun(self._spelling.pieces[token])
        return call is None or self._after(call) is not None

    def accept(self, token: int) -> None:
        if self._inner is not None:
            self._inner.accept(token)
            return
        if token == self._token:
            self._inner = self._start()
            self._inner.accept(token)
            return
        piece = self._spelling.pieces[token]
        call = self._begun(piece)
        if call is not None:
            self._inner = self._after(call)
            assert self._inner is not None, "the token was not allowed"
        elif self._listens:
            self._listen(piece)

    def mask(self) -> NDArray[np.bool_]:
        """(n_vocab,). Before the trigger it takes milliseconds, and is asked for only after a token
        that completed the trigger was refused."""
        if self._inner is not None:
            return self._inner.mask()
        pieces = self._spelling.pieces
        allowed = (
            self._begun(piece) is None or self.allows(token) for token, piece in enumerate(pieces)
        )
        return np.fromiter(allowed, np.bool_, len(pieces))

    def _begun(self, piece: bytes) -> bytes | None:
        """The text from the trigger on, if `piece` completes it."""
        if not self._listens or not piece:
            return None
        said = self._said + piece
        if self._at_start:
            said = said.lstrip()
            return said if said.startswith(self._text) else None
        at = said.find(self._text)
        return said[at:] if at >= 0 else None

    def _listen(self, piece: bytes) -> None:
        said = self._said + piece
        if not self._at_start:
            self._said = said[max(0, len(said) - len(self._text) + 1) :]
            return
        self._said = said.lstrip()
        self._listens = self._text.startswith(self._said)  # else it is too late for a call

    def _after(self, text: bytes) -> Constraint | None:
        """The grammar after `text`; None where it does not begin so."""
        tokens = self._spelling.tokens(text)
        if tokens is None:
            return None
        inner = self._start()
        for token in tokens:
            if not inner.allows(token):
                return None
            inner.accept(token)
        return inner


class ShownPieces(Sequence[bytes]):
    """The bytes of every token, with texts for some control tokens that have none of their own."""

    def __init__(self, pieces: Sequence[bytes], shown: Mapping[int, str]) -> None:
        self._pieces = pieces
        self._shown = {token: text.encode() for token, text in shown.items()}

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, token: Any) -> Any:
        text = self._shown.get(token)
        return self._pieces[token] if text is None else text
