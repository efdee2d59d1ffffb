"""/metrics of the llama-server dialect: what the engines have done and do, for Prometheus."""

from __future__ import annotations

import threading
import time
import weakref
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from flask import Response, current_app

from ..service import service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flask.blueprints import BlueprintSetupState
    from flask.typing import ResponseReturnValue
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from nitrolib.engine import Engine
    from nitrolib.engine.status import EngineCounters

__all__ = ["Totals", "begin", "metrics"]

EXTENSION = "nitrolib.llama-server.metrics"
_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Counters by their names (without the `_total` that is put behind them), and what they count.
_COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Number of prompt tokens evaluated."),
    "prompt_tokens_cached": ("prompt_tokens_cached", "Number of prompt tokens found in the cache."),
    "prompt_seconds": ("prompt_s", "Seconds spent on prompts."),
    "tokens_predicted": ("predicted_tokens", "Number of tokens generated."),
    "tokens_predicted_seconds": ("predicted_s", "Seconds spent on tokens after the first."),
    "n_decode": ("decodes", "Number of evaluations."),
    "spec_decode_num_drafts": ("drafts", "Number of guesses."),
    "spec_decode_num_draft_tokens": ("draft_tokens", "Number of tokens guessed."),
    "spec_decode_num_accepted_tokens": (
        "draft_tokens_accepted",
        "Number of guessed tokens that came.",
    ),
}
_BY_POSITION = "spec_decode_num_accepted_tokens_per_pos"


def begin(setup: BlueprintSetupState) -> None:
    """Give the application metrics of its own: two of them in one process share nothing."""
    setup.app.extensions[EXTENSION] = _Metrics()


def metrics() -> ResponseReturnValue:
    from prometheus_client import generate_latest

    found: _Metrics = current_app.extensions[EXTENSION]
    headers = {"Content-Type": _TYPE, "Process-Start-Time-Unix": str(int(found.started))}
    return Response(generate_latest(found.registry()), headers=headers)


class Totals:
    """Sums over all engines, those that are gone included: a counter must never fall. What an
    engine did between the last look at it and its end is not seen."""

    def __init__(self) -> None:
        from nitrolib.engine.status import EngineCounters

        self._gone = EngineCounters()
        self._seen: dict[int, tuple[weakref.ref[Engine], EngineCounters]] = {}

    def update(self, engines: Iterable[tuple[Engine, EngineCounters]]) -> EngineCounters:
        """The sums, with the counters that *engines* have now."""
        for key, (alive, last) in list(self._seen.items()):
            if alive() is None:
                del self._seen[key]
                self._gone = _sum([self._gone, last])
        self._seen |= {id(one): (weakref.ref(one), counters) for one, counters in engines}
        return _sum([self._gone, *(last for _, last in self._seen.values())])


class _Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        from nitrolib.engine.status import EngineCounters

        self.started = time.time()
        self._lock = threading.Lock()
        self._totals = Totals()
        self._last = EngineCounters()

    def registry(self) -> CollectorRegistry:
        """A registry with the numbers of now: those of the library's own stay out of it."""
        from prometheus_client import CollectorRegistry

        made = CollectorRegistry(auto_describe=False)
        made.register(self)
        return made

    def collect(self) -> Iterator[Metric]:
        """Every metric; the rates are those since the last call."""
        statuses = [(seat.engine, seat.engine.status()) for seat in service().pool.seats()]
        with self._lock:
            now = self._totals.update((engine, status.counters) for engine, status in statuses)
            before, self._last = self._last, now
        yield from _counters(now)
        yield from _gauges(
            {
                "prompt_tokens_seconds": (
                    "Prompt tokens a second since the last scrape.",
                    _rate(before, now, "prompt_tokens", "prompt_s"),
                ),
                "predicted_tokens_seconds": (
                    "Tokens after the first a second since the last scrape.",
                    _rate(before, now, "predicted_steps", "predicted_s"),
                ),
                "requests_processing": (
                    "Number of requests that run.",
                    sum(status.running for _, status in statuses),
                ),
                "requests_deferred": (
                    "Number of requests that wait.",
                    sum(status.waiting for _, status in statuses),
                ),
                "n_busy_slots_per_decode": (
                    "Slots of an evaluation, on average.",
                    now.busy_slots / now.decodes if now.decodes else 0.0,
                ),
                "n_tokens_max": ("Tokens of the longest prompt and answer.", now.tokens_max),
            }
        )


def _counters(now: EngineCounters) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    for name, (field, text) in _COUNTERS.items():
        yield CounterMetricFamily(f"llamacpp:{name}", text, value=getattr(now, field))
    if now.accepted_by_position:
        text = "Number of guessed tokens that came, by their place in the guess."
        family = CounterMetricFamily(f"llamacpp:{_BY_POSITION}", text, labels=["position"])
        for position, count in enumerate(now.accepted_by_position):
            family.add_metric([str(position)], count)
        yield family


def _gauges(values: dict[str, tuple[str, float]]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    for name, (text, value) in values.items():
        yield GaugeMetricFamily(f"llamacpp:{name}", text, value=value)


def _rate(before: EngineCounters, now: EngineCounters, amount: str, seconds: str) -> float:
    spent = getattr(now, seconds) - getattr(before, seconds)
    done = getattr(now, amount) - getattr(before, amount)
    return float(done / spent) if spent > 0 else 0.0


def _sum(parts: list[EngineCounters]) -> EngineCounters:
    from dataclasses import fields

    from nitrolib.engine.status import EngineCounters

    whole: dict[str, Any] = {
        one.name: sum(getattr(part, one.name) for part in parts)
        for one in fields(EngineCounters)
        if one.name not in ("tokens_max", "accepted_by_position")
    }
    whole["tokens_max"] = max(part.tokens_max for part in parts)
    columns = zip_longest(*(part.accepted_by_position for part in parts), fillvalue=0)
    return EngineCounters(**whole, accepted_by_position=tuple(map(sum, columns)))
