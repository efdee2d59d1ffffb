"""How many requests a client may send: each key, or each address, for itself."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.rest_client import CHAT, HELLO, STATUS, Rest

from nitrolib.adapters.rest import rate_limit
from nitrolib.adapters.rest.problem import Refused
from nitrolib.adapters.rest.rate_limit import RateLimit, address_of
from nitrolib.config import Settings
from nitrolib.errors import InvalidRequest


def wait_of(limit: RateLimit, client: str) -> int | None:
    """The seconds that a refused request is told to wait; None for one that passes."""
    try:
        limit.take(client)
    except Refused as error:
        return int(error.headers["Retry-After"])
    return None


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    times = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: times[0])
    return times


def test_so_many_pass_in_any_window_and_the_wait_that_is_told_is_enough(now: list[float]) -> None:
    limit = RateLimit("3/minute")
    for _ in range(3):
        assert wait_of(limit, "a") is None
        now[0] += 10
    for expected in (30, 10, 10, 40):  # until the oldest of the three is a minute old
        wait = wait_of(limit, "a")
        assert wait in (expected, expected + 1)
        now[0] += wait - 2
        assert wait_of(limit, "a") == 2
        now[0] += 2
        assert wait_of(limit, "a") is None


def test_every_limit_holds_and_a_refused_request_counts_for_none(now: list[float]) -> None:
    limit = RateLimit("2/second;5/minute")
    passed = 0
    for _ in range(20):
        for _ in range(5):
            passed += wait_of(limit, "a") is None
        now[0] += 1.001
    assert passed == 5
    now[0] += 60
    assert wait_of(limit, "a") is None


def test_clients_do_not_share_a_budget(now: list[float]) -> None:
    limit = RateLimit("1/hour")
    assert wait_of(limit, "a") is None
    assert wait_of(limit, "b") is None
    assert wait_of(limit, "a") in (3600, 3601)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 10)
    limit = RateLimit("1/hour")
    for number in range(100):
        assert wait_of(limit, str(number)) is None
    assert len(limit._storage.events) <= 11


@pytest.mark.parametrize(
    ("remote", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::1"),
        (None, "unknown"),
        ("unix", "unix"),
    ],
)
def test_an_address_is_a_client(remote: str | None, client: str) -> None:
    assert address_of(remote) == client


@pytest.mark.parametrize("text", ["", "60", "60/fortnight", "x/minute", "0/minute", "5/second;;"])
def test_a_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings(rate_limit=text)
    assert caught.value.field == "rate_limit"


@pytest.mark.parametrize(
    "text", ["60/minute", "5/second;60/minute", "10 per 5 minutes", "1/2 hours, 9/day"]
)
def test_a_limit_that_can_be_read_is_read(text: str) -> None:
    RateLimit(str(Settings(rate_limit=text).rate_limit))


# ---- over the routes -----------------------------------------------------------------------------


def chat(rest: Rest, key: str | None = None, address: str = "192.0.2.1") -> Any:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = {"messages": HELLO}
    environ = {"REMOTE_ADDR": address}
    return rest.post(CHAT, body, headers=headers, environ_overrides=environ)


def test_one_more_is_429_with_a_wait_and_no_effect() -> None:
    rest = Rest(rate_limit="2/hour")
    assert [chat(rest).status for _ in range(3)] == [200, 200, 429]
    answer = chat(rest)
    assert answer.json["error"]["code"] == "rate_limit_exceeded"
    assert answer.json["error"]["type"] == "rate_limit_error"
    assert 3590 <= int(answer.headers["Retry-After"]) <= 3601
    assert len(rest.engine.requests) == 2
    assert chat(rest, address="192.0.2.2").status == 200


def test_all_routes_share_the_budget_but_health_and_preflights() -> None:
    rest = Rest(rate_limit="2/hour")
    for _ in range(5):
        assert rest.get("/healthz").status == 200
        assert rest.request("OPTIONS", CHAT).status == 200
    statuses = [rest.get(path).status for path in (STATUS, "/openapi.json", STATUS, "/unknown")]
    assert statuses == [200, 200, 429, 429]


def test_every_key_has_a_budget_wherever_it_is_used() -> None:
    rest = Rest(rate_limit="2/hour", api_key="anna:k1,bob:k2")
    assert [chat(rest, "k1", f"192.0.2.{n}").status for n in range(3)] == [200, 200, 429]
    assert chat(rest, "k2").status == 200


def test_guessing_keys_is_limited_by_address_and_costs_those_who_have_one_nothing() -> None:
    rest = Rest(rate_limit="2/hour", api_key="k")
    assert [chat(rest, "no").status for _ in range(3)] == [401, 401, 429]
    assert chat(rest).status == 429
    assert chat(rest, "k").status == 200


@pytest.mark.parametrize(("proxies", "statuses"), [(0, [200, 429]), (1, [200, 200])])
def test_an_address_is_taken_from_a_proxy_only_where_one_is_trusted(
    proxies: int, statuses: list[int]
) -> None:
    rest = Rest(rate_limit="1/hour", trusted_proxies=proxies)
    found = [
        rest.get(STATUS, headers={"X-Forwarded-For": f"192.0.2.9, 198.51.100.{number}"}).status
        for number in range(2)
    ]
    assert found == statuses


def test_a_client_cannot_choose_its_address_behind_a_trusted_proxy() -> None:
    rest = Rest(rate_limit="1/hour", trusted_proxies=1)
    found = [
        rest.get(STATUS, headers={"X-Forwarded-For": f"192.0.2.{number}, 198.51.100.1"}).status
        for number in range(2)
    ]
    assert found == [200, 429]
