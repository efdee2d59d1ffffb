"""Who may use the server: Host, Origin, API key, and what browsers are told."""

from __future__ import annotations

import pytest
from support.rest_client import CHAT, EMBED, HELLO, LOAD, STATUS, UNLOAD, Rest

ROUTES = [
    ("GET", "/healthz"),
    ("GET", "/openapi.json"),
    ("POST", LOAD),
    ("GET", UNLOAD),
    ("POST", UNLOAD),
    ("GET", STATUS),
    ("POST", STATUS),
    ("POST", CHAT),
    ("POST", "/inferences/server/chat_completion"),
    ("POST", EMBED),
    ("POST", "/inferences/llamacpp/embedding"),
]
LOCAL = [
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:8443",
    "http://127.0.0.1:5173",
    "http://127.9.9.9",
    "http://[::1]:80",
    "HTTP://LOCALHOST:1",
]
FOREIGN = [
    "https://example.org",
    "http://localhost.example.org",
    "http://127.0.0.1.example.org",
    "http://example.org#localhost",
    "http://192.168.1.5:3928",
    "file://localhost",
    "chrome-extension://localhost",
    "null",
    "",
    "http://",
    "http://[::1",
    "localhost",
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_answers_options(method: str, path: str) -> None:
    answer = Rest().request("OPTIONS", path, headers={"Origin": "http://localhost:3000"})
    assert (answer.status, answer.data) == (200, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert answer.headers["Access-Control-Allow-Headers"] == "*"
    methods = answer.headers["Access-Control-Allow-Methods"].split(", ")
    assert {method, "OPTIONS"} <= set(methods)


def test_a_preflight_of_chat_is_the_dialects() -> None:
    answer = Rest(cors_origins=("*",)).request(
        "OPTIONS", CHAT, headers={"Origin": "https://example.org"}
    )
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == "POST, OPTIONS"
    assert answer.headers["Access-Control-Allow-Headers"] == "*"


def test_a_page_that_sends_a_key_may_name_the_header() -> None:
    """For browsers the star does not cover Authorization."""
    headers = {"Origin": "http://localhost", "Access-Control-Request-Headers": "authorization"}
    answer = Rest().request("OPTIONS", CHAT, headers=headers)
    assert answer.headers["Access-Control-Allow-Headers"] == "*, Authorization"


def test_options_of_an_unknown_route_is_404() -> None:
    assert Rest().request("OPTIONS", "/nothing").status == 404


@pytest.mark.parametrize("origin", LOCAL)
def test_loopback_pages_may_use_the_server(origin: str) -> None:
    answer = Rest().post(CHAT, {"messages": HELLO}, headers={"Origin": origin})
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("OPTIONS", CHAT), ("GET", "/nothing")])
def test_a_foreign_page_is_refused_before_any_effect(origin: str, method: str, path: str) -> None:
    rest = Rest()
    body = {"messages": HELLO, "input": "a", "llama_model_path": "b.gguf"}
    answer = rest.request(method, path, json=body, headers={"Origin": origin})
    assert answer.status == 403
    assert answer.json["error"]["type"] == "permission_error"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert rest.engine.requests == rest.engine.embeds == rest.engine.loads == []
    assert rest.engine.model is not None


def test_origins_the_operator_adds_are_allowed_and_others_are_not() -> None:
    rest = Rest(cors_origins=("https://app.example.org",))
    good = rest.get(STATUS, headers={"Origin": "https://app.example.org"})
    assert good.headers["Access-Control-Allow-Origin"] == "https://app.example.org"
    for origin in ("http://app.example.org", "https://app.example.org:8443"):
        assert rest.get(STATUS, headers={"Origin": origin}).status == 403


def test_the_origin_header_is_on_errors_and_streams_too() -> None:
    rest = Rest()
    headers = {"Origin": "http://localhost"}
    answers = [
        rest.post(CHAT, {}, headers=headers),
        rest.get("/nothing", headers=headers),
        rest.get(CHAT, headers=headers),
        rest.post(CHAT, {"messages": HELLO, "stream": True}, headers=headers),
    ]
    assert [answer.status for answer in answers] == [400, 404, 405, 200]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3928", "127.0.0.1:1", "[::1]:3928"])
def test_a_local_server_is_called_by_local_names(host: str) -> None:
    assert Rest().get("/healthz", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org:3928", "192.168.0.1", "["])
def test_a_name_that_was_made_to_resolve_here_is_refused(host: str) -> None:
    rest = Rest()
    answer = rest.get(UNLOAD, headers={"Host": host})
    assert (answer.status, answer.json["error"]["code"]) == (403, "host_not_allowed")
    assert rest.engine.model is not None


def test_names_are_free_on_a_server_for_others_and_for_added_origins() -> None:
    headers = {"Host": "example.org"}
    assert Rest(host="0.0.0.0", api_key="k").get("/healthz", headers=headers).status == 200
    assert Rest(cors_origins=("*",)).get("/healthz", headers=headers).status == 200
    added = Rest(cors_origins=("https://example.org",))
    assert added.get("/healthz", headers=headers).status == 200


@pytest.mark.parametrize(("method", "path"), ROUTES[1:])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic s\u00e9cret", "s\u00e9cret"],
)
def test_without_the_key_nothing_happens(method: str, path: str, authorization: str | None) -> None:
    rest = Rest(api_key="s\u00e9cret")
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = rest.request(method, path, headers=headers, json={"messages": HELLO})
    assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert rest.engine.requests == []
    assert rest.engine.model is not None


@pytest.mark.parametrize("authorization", ["Bearer key-1", "bearer key-1"])
def test_with_the_key_all_is_open(authorization: str) -> None:
    rest = Rest(api_key="key-1")
    headers = {"Authorization": authorization}
    assert rest.post(CHAT, {"messages": HELLO}, headers=headers).status == 200


def test_health_and_preflights_need_no_key() -> None:
    rest = Rest(api_key="key-1")
    assert rest.get("/healthz").status == 200
    assert rest.request("OPTIONS", CHAT).status == 200
