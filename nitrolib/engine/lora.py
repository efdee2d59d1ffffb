"""LoRA: the strengths of the LoRA adapters of a model, for all requests and for one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from ..errors import InvalidRequest, Unsupported
from .status import LoraStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..backends.base import LoraRuntime, Runtime

__all__ = ["Adapters", "check_pairs"]

Pairs = tuple[tuple[int, float], ...]


class Adapters:
    """Every method from any thread. A strength is a number for each adapter, () without any."""

    def __init__(self, runtime: Runtime) -> None:
        self._loaded = (
            cast("LoraRuntime", runtime).adapters if "lora" in runtime.capabilities else ()
        )
        self._scales = tuple(float(one.scale) for one in self._loaded)

    def scales(self, asked: Pairs | None) -> tuple[float, ...]:
        """The strengths of a request: those it asks for, 0 for adapters that it does not name, and
        those of all requests for None. Raises Unsupported where no adapter was loaded and
        InvalidRequest for one that does not exist."""
        if asked is None:
            return self._scales
        if asked and not self._loaded:
            raise Unsupported(
                "no LoRA adapters were loaded with this model",
                field="lora",
                value=asked,
                allowed="None or (), or loading with adapters",
            )
        scales = [0.0] * len(self._loaded)
        for number, scale in asked:
            if number >= len(scales):
                raise InvalidRequest(
                    f"there is no LoRA adapter {number}",
                    field="lora",
                    value=number,
                    allowed=f"0 to {len(scales) - 1}",
                )
            scales[number] = float(scale)
        return tuple(scales)

    def set(self, asked: Iterable[tuple[int, float]]) -> None:
        """The strengths of requests that name none, from the next that is submitted on."""
        self._scales = self.scales(check_pairs(tuple(asked)))

    def status(self) -> tuple[LoraStatus, ...]:
        scales = self._scales
        return tuple(
            LoraStatus(id=number, path=one.path, scale=scale)
            for number, (one, scale) in enumerate(zip(self._loaded, scales, strict=True))
        )


def check_pairs(pairs: object) -> Pairs:
    """Raise InvalidRequest unless it is a tuple of pairs of an adapter's number, each once, and a
    finite strength."""
    fine = isinstance(pairs, tuple) and all(_is_pair(one) for one in pairs)
    if not fine or len({number for number, _ in cast("Pairs", pairs)}) < len(cast("Pairs", pairs)):
        raise InvalidRequest(
            f"lora must be pairs of an adapter's number and a strength, got {pairs!r}"[:300],
            field="lora",
            value=pairs,
            allowed="a tuple of (number, finite strength), each number once",
        )
    return cast("Pairs", pairs)


def _is_pair(one: object) -> bool:
    if not isinstance(one, tuple) or len(one) != 2:
        return False
    number, scale = one
    if any(isinstance(part, bool) for part in one) or not isinstance(number, int) or number < 0:
        return False
    return isinstance(scale, (int, float)) and math.isfinite(scale)
