"""The random numbers of one request: MT19937, the same bits as llama.cpp's for the same seed."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MASK = 0xFFFF_FFFF
_STATE_WORDS = 624
_BELOW_ONE = 1 - 2**-53
RANDOM_SEED = _MASK  # what -1 is modulo 2**32


def resolve_seed(seed: int) -> int:
    """The seed to use, from 0 to 2**32 - 2: *seed* modulo 2**32, or a fresh one from the operating
    system where that is RANDOM_SEED."""
    seed &= _MASK
    while seed == RANDOM_SEED:
        seed = int.from_bytes(os.urandom(4), "little")
    return seed


def _generator(seed: int) -> Callable[[int], int]:
    """The generator's outputs, *n* bits a call: `random.Random.getrandbits`."""
    words = [seed & _MASK]
    for index in range(1, _STATE_WORDS):
        last = words[-1]
        words.append((1_812_433_253 * (last ^ (last >> 30)) + index) & _MASK)
    generator = random.Random()  # noqa: S311 - reproducible, not secret
    generator.setstate((3, (*words, _STATE_WORDS), None))
    return generator.getrandbits


class Uniform:
    """A stream of doubles in [0, 1), fixed by its seed (0 to 2**32 - 1).

    Each is (a + b * 2**32) / 2**64 of two successive outputs a, b of the 32-bit Mersenne Twister,
    seeded as in its reference implementation (init_genrand of M. Matsumoto and T. Nishimura, 2002),
    which is how C++ and numpy's RandomState do it and Python's `random.seed` does not.
    """

    def __init__(self, seed: int) -> None:
        self._bits = _generator(seed)

    def __call__(self) -> float:
        # Python's getrandbits(64) is a + b * 2**32. Rounding to a double may reach 1.
        return min(self._bits(64) * 2.0**-64, _BELOW_ONE)


class Uniform32:
    """A stream of numbers in [0, 1), one output of the same generator each, over 2**32: what
    llama.cpp draws single-precision numbers with."""

    def __init__(self, seed: int) -> None:
        self._bits = _generator(seed)

    def __call__(self) -> float:
        return self._bits(32) * 2.0**-32
