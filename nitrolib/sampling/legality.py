"""What the sampler asks of a constraint: a grammar or schema that the answer must follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Constraint(Protocol):
    """The state of a constraint in one generation.

    End-of-generation tokens are tokens like others here: one is allowed only where the constraint
    may end.
    """

    def allows(self, token: int) -> bool:
        """Whether *token* may come next."""
        ...

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, (n_vocab,), True for allowed."""
        ...

    def accept(self, token: int) -> None:
        """Go on with *token*, which must be allowed."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may follow."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether an end-of-generation token is allowed now."""
        ...
