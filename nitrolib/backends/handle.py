"""Native objects and memory as Python holds them: freed once, and never while something looks."""

from __future__ import annotations

import ctypes
import functools
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class Handle:
    """A native object that is freed once, when it is closed and nothing uses it any more.

    What it depends on (`parent`) is kept until then. Holding a Handle is what makes its address
    safe to use: a view of logits holds one, and so does a call that is under way.
    """

    def __init__(
        self, address: int, free: Callable[[int], None], parent: object, given: Callable[[], None]
    ) -> None:
        self.address = address
        self._finalizer = weakref.finalize(self, _free, address, free, parent, given)
        # The end of the process frees memory faster, and native code may not run that late.
        self._finalizer.atexit = False

    def close(self) -> None:
        """Free it now: for whoever knows that nothing uses it."""
        self._finalizer()

    def abandon(self) -> None:
        """Never free it: in the child of a fork CUDA memory cannot be touched."""
        self._finalizer.detach()


def _free(
    address: int, free: Callable[[int], None], _parent: object, given: Callable[[], None]
) -> None:
    free(address)
    given()


@functools.cache
def _float_array(count: int) -> Any:
    """A ctypes array type whose instances can carry their owner."""
    return type("NativeFloats", (ctypes.c_float * count,), {})


def float_view(address: int, count: int, owner: Handle | None) -> NDArray[np.float32]:
    """A float32 view of native memory that keeps its owner alive."""
    content = _float_array(count).from_address(address)
    content.owner = owner
    return np.frombuffer(content, np.float32)
