"""How long the loop of an engine is outside the native evaluation, measured around that call."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nitrolib import Engine


class NativeClock:
    """Notes when each native decode began and ended, and how many tokens it had."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, float, int]] = []

    def wrap(self, decode: Any) -> Any:
        calls, clock = self._calls, time.perf_counter

        def timed(context: int, batch: Any) -> Any:
            begin = clock()
            code = decode(context, batch)
            calls.append((begin, clock(), batch.n_tokens))
            return code

        return timed

    def report(self, at_least: int) -> dict[str, float]:
        """Medians in microseconds over the steps between two full ones: the loop's own time from
        the end of one native call to the begin of the next, and that of the native call."""
        pairs = [
            (before, call)
            for before, call in zip(self._calls, self._calls[1:], strict=False)
            if before[2] == call[2] == at_least
        ]
        return {
            "outside_us": 1e6 * statistics.median(call[0] - before[1] for before, call in pairs),
            "native_us": 1e6 * statistics.median(call[1] - call[0] for _, call in pairs),
            "steps": len(pairs),
        }

    def longest(self) -> float:
        """Seconds of the longest native call."""
        return max(end - begin for begin, end, _ in self._calls)


@contextlib.contextmanager
def timed_decode(engine: Engine) -> Iterator[NativeClock]:
    """Measure the native decodes of an engine on llama-cpp-python."""
    clock = NativeClock()
    runtime: Any = engine._model.scheduler.runtime  # type: ignore[union-attr]
    native = runtime._native
    own = native.decode
    native.decode = clock.wrap(own)
    try:
        yield clock
    finally:
        native.decode = own
