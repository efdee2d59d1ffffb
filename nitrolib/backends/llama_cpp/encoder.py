"""A model that only encodes texts, such as BERT: it makes embeddings or scores, and no tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ...errors import InvalidRequest, Unsupported
from .model import ModelRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..base import Feed
    from .model import Loaded


class EncoderRuntime(ModelRuntime):
    """A `Runtime` without "generate": its sequences stay empty, and the embedder does its work."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded)
        self.n_batch = loaded.n_ctx

    def decode(self, feeds: Sequence[Feed]) -> None:
        """Raises Unsupported, but for no feeds."""
        self._check_open()
        if feeds:
            self._refuse()

    def length(self, seq: int) -> int:
        """Always 0."""
        self._check_seq(seq)
        return 0

    def keep(self, seq: int, n: int) -> int:
        """There is nothing to keep."""
        self._check_seq(seq)
        if n:
            self._refuse()
        return 0

    def logits(self, seq: int) -> NDArray[np.float32]:
        """Raises Unsupported."""
        self._check_seq(seq)
        self._refuse()

    def embed(self, seq: int) -> NDArray[np.float32]:
        """Raises Unsupported."""
        self._check_seq(seq)
        self._refuse()

    def _check_seq(self, seq: int) -> None:
        self._check_open()
        if not 0 <= seq < self.n_seq:
            raise InvalidRequest(
                f"there is no sequence {seq}",
                field="seq",
                value=seq,
                allowed=f"0 to {self.n_seq - 1}",
            )

    def _refuse(self) -> NoReturn:
        raise Unsupported(
            f"a model of the architecture {self.info.architecture!r} generates no text",
            field="model",
            value=self.info.path,
            allowed=", ".join(sorted(self.capabilities)) or "nothing: it has no embedder either",
        )
