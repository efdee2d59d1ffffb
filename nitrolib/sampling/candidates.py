"""The candidate set that samplers hand to one another."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]


class Candidates(NamedTuple):
    """Tokens that may still be chosen.

    ids: token ids, shape (n,), or None while position and id are the same, that is, while nothing
        was dropped from the vocabulary.
    logits: shape (n,), float32 or float64; perhaps a view of the model's row: never written to.
        An entry at -inf has probability 0 and stays.
    ranked: whether the candidates count as sorted, descending by logit and at ties in array order.
        The arrays need not lie that way: a sort of the vocabulary is dear, and a draw needs none.
    """

    ids: Indices | None
    logits: Logits
    ranked: bool = False

    def keep(self, positions: Indices, *, ranked: bool) -> Candidates:
        """Only the candidates at these positions, in this order."""
        ids = positions if self.ids is None else self.ids[positions]
        return Candidates(ids, self.logits[positions], ranked)

    def id_at(self, position: int) -> int:
        return position if self.ids is None else int(self.ids[position])

    def in_order(self) -> Candidates:
        """The same candidates, the arrays themselves in the order that counts."""
        if not self.ranked:
            return self
        order = np.argsort(-self.logits, kind="stable")
        return self.keep(order, ranked=True)
