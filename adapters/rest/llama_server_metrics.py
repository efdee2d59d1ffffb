"""/metrics of the llama-server dialect: what the engines do, for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flask import Response, current_app

from .service import service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.blueprints import BlueprintSetupState
    from flask.typing import ResponseReturnValue
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["begin", "metrics"]

EXTENSION = "nitrolib.llama-server.metrics"
_PREFIX = "llamacpp:"
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def begin(setup: BlueprintSetupState) -> None:
    """Give the application metrics of its own: two of them in one process share nothing."""
    setup.app.extensions[EXTENSION] = _Metrics()


def metrics() -> ResponseReturnValue:
    from prometheus_client import generate_latest

    found: _Metrics = current_app.extensions[EXTENSION]
    headers = {
        "Content-Type": _TYPE,
        "Process-Start-Time-Unix": str(int(found.started)),
    }
    return Response(generate_latest(found.registry()), headers=headers)


class _Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.started = time.time()

    def registry(self) -> CollectorRegistry:
        """A registry with the numbers of now: those of the library's own stay out of it."""
        from prometheus_client import CollectorRegistry

        made = CollectorRegistry(auto_describe=False)
        made.register(self)
        return made

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        statuses = [seat.engine.status() for seat in service().pool.seats()]
        gauges = {
            "requests_processing": ("Number of requests processing.", lambda one: one.running),
            "requests_deferred": ("Number of requests deferred.", lambda one: one.waiting),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=sum(map(value, statuses)))
