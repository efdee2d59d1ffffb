"""Who may use the server: Host, Origin, API key, and what browsers are told."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import pytest
from support.rest_client import CHAT, EMBED, HELLO, LOAD, STATUS, UNLOAD, Rest

from nitrolib.adapters.rest.dialects import DIALECTS
from nitrolib.config import DEFAULT_DIALECTS
from nitrolib.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

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


# ---- several keys --------------------------------------------------------------------------------


def test_every_key_opens_and_the_log_tells_whose_it_was_and_never_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_text("anna:s3cret-1\n# old ones\nbob:s3cret-2\n")
    rest = Rest(api_key_file=str(file), api_key="s3cret-3")
    caplog.set_level("DEBUG")
    for key in ("s3cret-1", "s3cret-2", "s3cret-3"):
        assert rest.get(STATUS, headers={"Authorization": f"Bearer {key}"}).status == 200
    assert rest.get(STATUS, headers={"Authorization": "Bearer s3cret-4"}).status == 401
    names = [record.args[0] for record in caplog.records if "access" in record.name]
    assert names == ["anna", "bob", "key-1"]
    assert "s3cret" not in caplog.text


def test_all_keys_are_compared_whichever_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[bytes] = []
    real = hmac.compare_digest

    def noted(given: bytes, key: bytes) -> bool:
        compared.append(key)
        return real(given, key)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    rest = Rest(api_key="a:k1,b:k2,c:k3")
    for key in ("k1", "k3", "none"):
        compared.clear()
        rest.get(STATUS, headers={"Authorization": f"Bearer {key}"})
        assert compared == [b"k1", b"k2", b"k3"]


def test_another_header_for_keys_is_a_matter_of_the_dialect() -> None:
    answer = Rest(api_key="k").get(STATUS, headers={"X-Api-Key": "k"})
    assert answer.status == 401


def test_a_file_of_keys_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        Rest(api_key_file=str(tmp_path / "none"))


# ---- names of the server -------------------------------------------------------------------------


def test_a_server_for_others_is_called_by_the_names_it_is_given() -> None:
    rest = Rest(host="0.0.0.0", api_key="k", allow_hosts=("LLM.example",))
    for host, status in (
        ("llm.example", 200),
        ("llm.example:3928", 200),
        ("127.0.0.1:3928", 200),
        ("other.example", 403),
        ("llm.example.other", 403),
    ):
        assert rest.get("/healthz", headers={"Host": host}).status == status, host
    assert Rest(allow_hosts=("a.example",)).get("/healthz", headers={"Host": "a.example"}).status


# ---- every rule of the URL map -------------------------------------------------------------------


# Each alone, the usual ones, all, and all the other way round: who comes first has a path.
SETS = [*((name,) for name in DIALECTS), DEFAULT_DIALECTS, DIALECTS, DIALECTS[::-1]]


@functools.cache
def every_route(dialects: tuple[str, ...]) -> list[tuple[str, str]]:
    """Method and path of every rule that a server of *dialects* has, variables filled in."""
    routes = set()
    for rule in Rest(dialects=dialects).app.url_map.iter_rules():
        path = re.sub(r"<any\((\w+)[^>]*>", r"\1", rule.rule)
        path = re.sub(r"<[^>]*>", "x", path)
        routes |= {(method, path) for method in (rule.methods or set()) - {"OPTIONS"}}
    return sorted(routes)


@pytest.mark.parametrize("dialects", SETS, ids="+".join)
def test_with_a_key_nothing_but_health_answers_without_it(dialects: tuple[str, ...]) -> None:
    rest = Rest(dialects=dialects, api_key="k")
    open_paths = set()
    for method, path in every_route(dialects):
        got = rest.http.open(path, method=method, json={})
        if got.status_code != 401:
            open_paths.add(path)
        got.close()
    paths = {path for _, path in every_route(dialects)}
    assert open_paths == {"/healthz", "/health", "/v1/health"} & paths
    assert rest.engine.requests == []
    assert rest.get("/unknown").status == 401


@pytest.mark.parametrize("dialects", SETS, ids="+".join)
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://example.org"}, {"Host": "example.org"}], ids=["origin", "host"]
)
def test_foreign_pages_and_names_are_refused_on_every_route_before_any_effect(
    headers: dict[str, str], dialects: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nitrolib.adapters.rest.service import Service
    from nitrolib.models import Downloads, ModelPool, Registry
    from nitrolib.store import Store

    rest = Rest(dialects=dialects)
    touched: list[str] = []
    # All that routes can do to models and storage goes through one of these.
    for kind, names in (
        (ModelPool, ("load", "open", "unload", "lease")),
        (Registry, ("add", "update", "remove")),
        (Downloads, ("start", "cancel")),
        (Store, ("open",)),
        (Service, ("start", "stop", "load")),
    ):
        for name in names:
            monkeypatch.setattr(kind, name, lambda *_, name=name, **__: touched.append(name))
    for method, path in every_route(dialects):
        got = rest.http.open(path, method=method, json={}, headers=headers)
        assert got.status_code == 403, (method, path)
        got.close()
    assert touched == []


@pytest.mark.parametrize("dialects", SETS, ids="+".join)
def test_every_path_answers_a_preflight(dialects: tuple[str, ...]) -> None:
    rest = Rest(dialects=dialects, api_key="k")
    for method, path in every_route(dialects):
        answer = rest.request("OPTIONS", path, headers={"Origin": "http://localhost"})
        assert answer.status == 200, path
        assert method in (*answer.headers["Access-Control-Allow-Methods"].split(", "), "HEAD")
