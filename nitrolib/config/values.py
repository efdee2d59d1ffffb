"""Settings that are more than one value written as text: LoRA adapters, shares of GPUs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..backends.base import LoraAdapter

__all__ = ["lora_adapters", "shares"]


def lora_adapters(texts: Iterable[str]) -> tuple[LoraAdapter, ...]:
    """The adapters that "PATH" or "PATH=SCALE" name. A path that ends in = and a number is written
    with a scale of its own."""
    from ..backends.base import LoraAdapter

    found = []
    for text in texts:
        path, sign, scale = text.rpartition("=")
        number = _number(scale) if sign and path else None
        found.append(LoraAdapter(text) if number is None else LoraAdapter(path, number))
    return tuple(found)


def shares(text: str | None) -> tuple[float, ...]:
    """The parts that "3,1" or "0.75,0.25" gives to each GPU; () for None. Raises InvalidRequest."""
    if text is None:
        return ()
    parts = [_number(part) for part in text.split(",")]
    numbers = tuple(part for part in parts if part is not None and part >= 0)
    if len(numbers) < len(parts) or not sum(numbers) > 0:
        raise InvalidRequest(
            f"tensor_split must be numbers separated by commas, such as 3,1, got {text!r}",
            field="tensor_split",
            value=text,
            allowed="numbers of 0 or more, not all 0, separated by commas",
        )
    return numbers


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
