"""Changing a few logits of a row in place, and putting them back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray

    from .candidates import Indices, Logits

_FLOAT32_MAX = 3.4028234663852886e38


class Edits:
    """A context manager that remembers what was overwritten in *row* (n_vocab,) float32 and
    restores it on leaving, so that a row is changed without copying the vocabulary.

    What it overwrites nobody else looks at: NaN and +inf there raise BackendError."""

    def __init__(self, row: NDArray[np.float32]) -> None:
        self._row = row
        self._old: list[tuple[Indices, NDArray[np.float32]]] = []

    def change(
        self,
        ids: Indices,
        effect: Callable[[Logits, NDArray[np.float64]], NDArray[np.float64]],
        numbers: NDArray[np.float64],
    ) -> None:
        """Write `effect(logits, numbers)` at *ids* (n,), distinct. What is too large for float32
        becomes its largest number, what is too small -inf."""
        if not ids.size:
            return
        values = effect(self._take(ids), numbers)
        with np.errstate(over="ignore"):
            self._row[ids] = np.minimum(values, _FLOAT32_MAX)

    def ban(self, ids: Indices) -> None:
        """Write -inf at *ids* (n,), distinct, at least one."""
        self._take(ids)
        self._row[ids] = -math.inf

    def _take(self, ids: Indices) -> NDArray[np.float32]:
        old = self._row[ids]
        top = float(np.maximum.reduce(old))  # NaN if any is
        if not top < math.inf:
            raise not_finite(top)
        self._old.append((ids, old))
        return old

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


def not_finite(logit: float) -> BackendError:
    """The error for a row that holds such a logit, NaN or +inf."""
    return BackendError(f"the model's logits hold {'NaN' if math.isnan(logit) else '+inf'}")
