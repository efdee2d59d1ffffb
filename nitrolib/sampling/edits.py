"""Changing a few logits of a row in place, and putting them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from .candidates import Indices

_FLOAT32_MAX = 3.4028234663852886e38


class Edits:
    """A context manager that remembers what `set` overwrote in *row* (n_vocab,) float32 and
    restores it on leaving, so that a row is changed without copying the vocabulary."""

    def __init__(self, row: NDArray[np.float32]) -> None:
        self._row = row
        self._old: list[tuple[Indices, NDArray[np.float32]]] = []

    def set(self, ids: Indices, values: NDArray[np.float64]) -> None:
        """Write *values* (n,) at *ids* (n,), distinct. What is too large for float32 becomes its
        largest number, what is too small -inf."""
        self._old.append((ids, self._row[ids]))
        with np.errstate(over="ignore"):
            self._row[ids] = np.minimum(values, _FLOAT32_MAX)

    def __enter__(self) -> Edits:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for ids, values in reversed(self._old):
            self._row[ids] = values
