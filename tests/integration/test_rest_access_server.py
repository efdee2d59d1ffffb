"""A server that other machines could reach, over real sockets: keys, limits, names, paths."""

from __future__ import annotations

import http.client
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.rest_client import CHAT, HELLO, LOAD
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, a models folder with a model and a link out of it, and a model beside it."""
    made = tmp_path_factory.mktemp("remote")
    (made / "keys").write_text("anna:s3cret-anna\nbob:s3cret-bob\n")
    (made / "models" / "tiny").mkdir(parents=True)
    make_llama(made / "models" / "tiny" / "tiny.gguf")
    make_llama(made / "secret.gguf")
    (made / "models" / "link.gguf").symlink_to(made / "secret.gguf")
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    settings = {
        "host": "0.0.0.0",
        "api_key_file": folder / "keys",
        "allow_hosts": "llm.example",
        "rate_limit": "30/hour",
        "models_dir": folder / "models",
        "no_model": 1,
        "ctx_len": 256,
    }
    with serve(**settings) as running:
        yield running


def send(
    server: Server, method: str, path: str, body: Any = None, key: str | None = None, **more: str
) -> tuple[int, Any, Any]:
    """Status, headers and JSON body of one request."""
    headers = {"Host": "llm.example", **more}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(text or b"null")


def test_it_locks_limits_and_stays_in_its_folder(server: Server, folder: Path) -> None:
    """One story, since the budget of a key is shared by all that is done with it."""
    anna, bob = "s3cret-anna", "s3cret-bob"
    assert send(server, "GET", "/healthz")[0] == 200
    assert send(server, "GET", "/v1/models")[0] == 401
    assert send(server, "GET", "/healthz", Host="other.example")[0] == 403

    # paths
    paths = ["../secret.gguf", str(folder / "secret.gguf"), "link.gguf", "/nowhere.gguf"]
    refused = [send(server, "POST", LOAD, {"llama_model_path": path}, anna) for path in paths]
    assert [status for status, _, _ in refused] == [403] * 4
    assert all(body == refused[0][2] for _, _, body in refused)
    path = {"llama_model_path": "tiny/tiny.gguf", "cpu_threads": 1, "ctx_len": 256}
    assert send(server, "POST", LOAD, path, anna)[0] == 200

    # use, and the budget of each key
    chat = {"messages": HELLO, "max_tokens": 1, "model": "tiny"}
    assert send(server, "POST", CHAT, chat, anna)[0] == 200
    statuses = [send(server, "GET", "/openapi.json", key=anna)[0] for _ in range(30)]
    assert statuses == [200] * 24 + [429] * 6
    status, headers, body = send(server, "POST", CHAT, chat, anna)
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(headers["Retry-After"]) <= 3601
    assert send(server, "POST", CHAT, chat, bob)[0] == 200
    assert send(server, "GET", "/healthz")[0] == 200

    # the log
    assert "key anna: POST '/v1/chat/completions'" in server.log
    assert "key bob: " in server.log
    assert "s3cret" not in server.log


@pytest.mark.parametrize(
    ("dialect", "path"), [("openai", "/v1/models"), ("jan", "/v1/models"), ("locallab", "/health")]
)
def test_a_dialect_is_served_alone(folder: Path, dialect: str, path: str) -> None:
    settings = {"dialects": dialect, "models_dir": folder / "models", "no_model": 1}
    with serve(**settings) as running:
        assert running.get(path)[0] == 200
        assert running.request("POST", LOAD, {"llama_model_path": "x"})[0] == 404
        assert running.get("/openapi.json")[1] == running.get(f"/openapi/{dialect}.json")[1]


def test_ids_in_raw_paths_lead_nowhere(folder: Path) -> None:
    """As a client may write them: HTTP libraries tidy such paths up before they send them."""
    before = sorted(folder.rglob("*"))
    settings = {"host": "0.0.0.0", "api_key": "k", "models_dir": folder / "models", "no_model": 1}
    ids = [
        "..%2fsecret.gguf",
        "../secret.gguf",
        "%2e%2e/%2e%2e/secret.gguf",
        f"%2f{str(folder)[1:]}%2fsecret.gguf",
        "link.gguf",
        "tiny%2f..%2f..%2fsecret.gguf",
        "tiny%00%2f..%2fsecret.gguf",
    ]
    with serve(**settings) as running:
        for name in ids:
            for method, path in (
                ("GET", f"/v1/models/{name}"),
                ("DELETE", f"/v1/models/{name}"),
                ("PUT", f"/v1/models/{name}/start"),
                ("GET", f"/v1/threads/{name}"),
                ("GET", f"/v1/threads/x/messages/y/files/{name}"),
            ):
                status, _, body = send(running, method, path, key="k")
                assert (status, "error" in body) == (404, True), (method, path, body)
        assert "Traceback" not in running.log
    assert sorted(folder.rglob("*")) == before
