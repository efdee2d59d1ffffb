"""The limiter keeps to its rate and its burst, whatever its clients do."""

from __future__ import annotations

import math
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from nitrolib.adapters.rest.limits import Limiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def hammered(limiter: Limiter, clock: Clock, seconds: int, per_second: int = 20) -> list[float]:
    """When the requests of a client that never stops were accepted, in seconds from the start."""
    start, accepted = clock.now, []
    for step in range(seconds * per_second):
        clock.now = start + step / per_second
        if limiter.take("x") == 0:
            accepted.append(clock.now - start)
    return accepted


def test_ten_at_once_and_the_eleventh_waits_a_second() -> None:
    clock = Clock()
    limiter = Limiter(60, 10, clock=clock)
    assert [limiter.take("x") for _ in range(10)] == [0.0] * 10
    assert limiter.take("x") == 1.0
    assert limiter.take("somebody else") == 0
    clock.now += 1
    assert limiter.take("x") == 0
    assert limiter.take("x") > 0


def test_under_constant_pressure_sixty_pass_in_every_minute() -> None:
    clock = Clock()
    accepted = hammered(Limiter(60, 10, clock=clock), clock, 600)
    assert len(accepted) == 600
    for first, last in zip(accepted, accepted[60:], strict=False):
        assert last - first >= 60 - 1e-6


def test_one_a_second_is_never_refused() -> None:
    clock = Clock()
    limiter = Limiter(60, 10, clock=clock)
    for _ in range(300):
        assert limiter.take("x") == 0
        clock.now += 1


def test_ten_at_once_and_one_a_second_meet_the_minute() -> None:
    clock = Clock()
    limiter = Limiter(60, 10, clock=clock)
    assert sum(limiter.take("x") == 0 for _ in range(10)) == 10
    refused = []
    for second in range(1, 120):
        clock.now += 1
        if limiter.take("x"):
            refused.append(second)
    assert refused == list(range(51, 60))


RATES = st.integers(1, 30)
WAITS = st.lists(st.floats(0, 20), max_size=60)


@settings(max_examples=300, deadline=None)
@given(RATES, st.integers(1, 12), WAITS)
def test_no_window_has_more_than_the_rate_and_no_moment_more_than_the_burst(
    rate: int, burst: int, waits: list[float]
) -> None:
    clock = Clock()
    limiter = Limiter(rate, burst, clock=clock)
    accepted = []
    for wait in waits:
        clock.now += wait
        told = limiter.take("x")
        if told:  # who waits as told is accepted
            clock.now += told
            assert limiter.take("x") < 1e-6
        accepted.append(clock.now)
    for index, last in enumerate(accepted):
        first = accepted[max(0, index - rate)]
        assert index < rate or last - first >= 60 - 1e-6
        same = sum(one == last for one in accepted)
        assert same <= min(rate, burst)


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    limiter = Limiter(60, 2, clock=clock)
    assert limiter.take("x") == limiter.take("x") == 0
    for _ in range(100):
        assert math.isclose(limiter.take("x"), 1.0)


def test_idle_clients_are_forgotten() -> None:
    clock = Clock()
    limiter = Limiter(60, 10, clock=clock)
    for client in range(100):
        limiter.take(str(client))
    clock.now += 60
    limiter.take("x")
    assert len(limiter._clients) == 1


def test_threads_share_one_budget() -> None:
    clock = Clock()
    limiter = Limiter(60, 10, clock=clock)
    passed = []

    def take() -> None:
        passed.extend(limiter.take("x") == 0 for _ in range(20))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 10
