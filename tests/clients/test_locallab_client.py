"""LocalLab's own client, unmodified, against the dialect: over gunicorn with a real model, and for
what a sound engine does not do, over an engine that fails as it is told."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.fake_engine import FakeEngine
from support.locallab_clients import KINDS, Face
from support.locallab_rest import register
from support.models import chat_model, slow_model
from support.server import Server, free_port, serve

from nitrolib.adapters.rest import create_app
from nitrolib.adapters.rest.limits import Limiter
from nitrolib.adapters.rest.locallab import state
from nitrolib.config import Settings
from nitrolib.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCUMENT = (Path(__file__).parents[2] / "docs" / "rest.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
MODEL, SLOW = "org/demo", "org/slow"
PROMPT = "What is the capital of France?"
TURNS = [{"role": "user", "content": PROMPT}]
GREEDY = {"max_length": 16, "do_sample": False}
AT_ZERO = {"max_length": 16, "temperature": 0.0}
SYSTEM = {
    "cpu_usage", "memory_usage", "gpu_info", "active_model", "uptime", "request_count",
    "cpu", "memory", "gpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A small model and a slow one in the registry, nothing loaded. The Nitro dialect beside it
    tells what the engine does."""
    folder = tmp_path_factory.mktemp("locallab")
    models = folder / "models"
    register(models, MODEL, chat_model(folder), name="The demo")
    register(models, SLOW, slow_model(folder))
    with serve(
        dialects="locallab,nitro", no_model=1, data_dir=folder, locallab_rate=0, n_parallel=2,
        ctx_len=2048,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Face]:
    made: Face = KINDS[request.param](server.url)
    yield made
    made.close()


@pytest.fixture
def loaded(client: Face) -> Face:
    assert client.call("load_model", MODEL) is True
    return client


def post(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    """Status and text of a raw POST, with the headers of no particular client."""
    kind = {"Content-Type": "application/json", "User-Agent": "curl/8.5.0", **headers}
    request = urllib.request.Request(server.url + path, body, kind)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def escaped(text: str) -> str:
    return text.replace("\n", r"\n")


# ---- the acceptance run --------------------------------------------------------------------------


def test_health_tells_whether_the_server_is_there(client: Face) -> None:
    assert client.call("health_check") is True


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_port_is_not_healthy(kind: str) -> None:
    made: Face = KINDS[kind](f"http://127.0.0.1:{free_port()}")
    try:
        assert made.call("health_check") is False
    finally:
        made.close()


def test_without_a_model_every_call_says_so(client: Face) -> None:
    client.call("unload_model")
    with pytest.raises(Exception, match="No model currently loaded"):
        client.call("get_current_model")
    with pytest.raises(Exception, match="No model is currently loaded"):
        client.call("generate", "x")
    assert client.call("unload_model") is False
    assert [one["is_loaded"] for one in client.call("list_models")] == [False, False]


def test_a_model_is_loaded_and_told(loaded: Face) -> None:
    assert loaded.call("load_model", MODEL) is True
    with pytest.raises(Exception, match="nope"):
        loaded.call("load_model", "nope")
    current = loaded.call("get_current_model")
    assert (current["name"], current["id"], current["model_id"]) == ("The demo", MODEL, MODEL)
    rows = {one["id"]: one for one in loaded.call("list_models")}
    assert rows[MODEL]["is_loaded"] is True
    assert rows[SLOW]["is_loaded"] is False
    system = loaded.call("get_system_info")
    assert set(system) == SYSTEM
    assert system["active_model"] == MODEL


def test_greedy_answers_are_equal_and_streamed_alike(server: Server, loaded: Face) -> None:
    text = loaded.call("generate", PROMPT, **GREEDY)
    assert text
    assert loaded.call("generate", PROMPT, **GREEDY) == text
    assert loaded.call("generate", PROMPT, model_id=MODEL, **GREEDY) == text
    with pytest.raises(Exception, match="nope"):
        loaded.call("generate", PROMPT, model_id="nope", **GREEDY)
    status, raw = post(server, "/generate", json.dumps({"prompt": PROMPT, **GREEDY}).encode())
    answer = json.loads(raw)
    usage = answer["usage"]
    assert (status, answer["response"]) == (200, text)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] <= 16
    chunks = [*loaded.stream("stream_generate", PROMPT, **GREEDY)]
    assert len(chunks) >= 2
    for chunk in chunks:
        assert chunk != "data:"
        assert not chunk.startswith(("[DONE]", "\nError"))
    assert "".join(chunks) == escaped(text).rstrip()


def test_chats_are_answered_and_streamed_alike(server: Server, loaded: Face) -> None:
    answer = loaded.call("chat", TURNS, **AT_ZERO)
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert answer["usage"]["total_tokens"] > 0
    text = choice["message"]["content"]
    events = [*loaded.stream("stream_chat", TURNS, **AT_ZERO)]
    assert events
    assert all("error" not in event for event in events)
    assert "".join(event["content"] for event in events) == text.rstrip()
    deltas = [event["choices"][0]["delta"]["content"] for event in events]
    assert "".join(deltas) == text.rstrip()
    body = json.dumps({"messages": TURNS, "stream": True, **AT_ZERO}).encode()
    status, raw = post(server, "/chat", body)
    lines = [line for line in raw.split("\n") if line]
    assert status == 200
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


def test_a_batch_is_answered_as_its_prompts_are(server: Server, loaded: Face) -> None:
    prompts = [PROMPT, "Hello", "What is the capital of Italy?"]
    single = [loaded.call("generate", prompt, **AT_ZERO) for prompt in prompts]
    assert loaded.call("batch_generate", prompts, **AT_ZERO)["responses"] == single
    usage = loaded.call("batch_generate", prompts, **AT_ZERO)["usage"]
    each = []
    for prompt in prompts:
        body = json.dumps({"prompt": prompt, **AT_ZERO}).encode()
        each.append(json.loads(post(server, "/generate", body)[1])["usage"])
    assert usage == {name: sum(one[name] for one in each) for name in usage}


def test_the_prompts_of_a_batch_run_side_by_side(server: Server) -> None:
    body = {"prompts": ["Far away", "Long ago", "Once"], "model_id": SLOW, "max_length": 300}
    with server.send("/generate/batch", body):
        server.wait_until(lambda data: data.get("running") == 2 and data.get("waiting") == 1)
    server.wait_until(lambda data: data["running"] == data["waiting"] == 0)


def test_errors_are_told_with_their_details(server: Server, loaded: Face) -> None:
    with pytest.raises(Exception, match="detail"):
        loaded.call("generate", "x", temperature=9.0)
    for body in (b"{}", b"{", b"[]", b'{"prompt": 5}', b'{"prompt": "x", "top_k": "many"}'):
        status, raw = post(server, "/generate", body)
        assert status == 400
        assert list(json.loads(raw)) == ["detail"]
    long = json.dumps({"prompt": "word " * 5000, "stream": True}).encode()
    status, raw = post(server, "/generate", long)
    assert (status, list(json.loads(raw))) == (413, ["detail"])
    assert post(server, "/nowhere", b"{}") == (404, '{"detail":"Not Found"}\n')


def test_a_stream_that_is_left_frees_the_engine(server: Server, client: Face) -> None:
    assert client.call("load_model", SLOW) is True
    other = KINDS["sync"](server.url)
    stream = client.stream("stream_generate", "Far away", max_length=1000, temperature=0.0)
    try:
        first = [next(stream), next(stream)]
        assert all(first)
        assert other.call("health_check") is True
        assert server.status()["running"] == 1
    finally:
        stream.close()  # type: ignore[attr-defined]
        other.close()
    server.wait_until(lambda data: data["running"] == 0)
    assert client.call("generate", "Far away", max_length=2, temperature=0.0)


def test_unloading_is_told_in_the_words_that_the_client_compares(loaded: Face) -> None:
    assert loaded.call("unload_model") is True
    with pytest.raises(Exception, match="No model currently loaded"):
        loaded.call("get_current_model")


def test_the_example_of_docs_rest_md_runs(server: Server, loaded: Face, tmp_path: Path) -> None:
    (code,) = (one for one in BLOCKS if "locallab_client" in one)
    script = tmp_path / "example.py"
    script.write_text(code.replace("http://localhost:8000", server.url), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert len(run.stdout) > 10
    assert "Error" not in run.stdout


def test_the_shell_loop_of_the_dialect_prints_what_the_client_has(
    server: Server, loaded: Face
) -> None:
    text = "".join(loaded.stream("stream_generate", PROMPT, **GREEDY))
    body = json.dumps({"prompt": PROMPT, "stream": True, **GREEDY})
    shown = _shell(f"""
curl -s -X POST "{server.url}/generate" \\
-H "Content-Type: application/json" \\
-d '{body}' | while read -r line; do
if [[ $line == data:* ]]; then
content=${{line#data: }}
if [[ $content != "[DONE]" ]]; then
echo -n "$content"
fi
fi
done""")
    assert shown == text


def _shell(script: str) -> str:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is not installed")
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return run.stdout


# ---- what a sound engine does not do -------------------------------------------------------------


class Local:
    """An application over a fake engine, served by a thread of this process; `posts` counts."""

    def __init__(self, **settings: Any) -> None:
        self.engine = FakeEngine()
        given = Settings(dialects=("locallab",), **settings)
        self.app = create_app(self.engine, given)  # type: ignore[arg-type]
        self.posts = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        self.posts += environ["REQUEST_METHOD"] == "POST"
        return self.app(environ, start)


@contextlib.contextmanager
def served(app: Local) -> Iterator[str]:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            return None

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        http = make_server(
            "127.0.0.1", port, app, threaded=True, request_handler=Quiet, fd=listening.fileno()
        )
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            http.shutdown()
            thread.join()
            http.server_close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_stream_is_told_once_and_not_asked_for_again(kind: str, tmp_path: Path) -> None:
    app = Local(locallab_rate=0, data_dir=str(tmp_path))
    app.engine.fail = BackendError("a timeout in the engine")
    with served(app) as url:
        made: Face = KINDS[kind](url)
        chunks = [*made.stream("stream_generate", "x")]
        events = [*made.stream("stream_chat", TURNS)]
        made.close()
    assert chunks == ["Hello", " there", "\nError: a time limit in the engine"]
    assert [event.get("content") for event in events] == ["Hello", " there", None]
    assert events[-1] == {"error": "a time limit in the engine"}
    assert app.posts == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_is_told_as_text(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(
        state,
        "Limiter",
        lambda rate, burst: Limiter(rate, burst, clock=lambda: now[0]),
    )
    told = "Rate limit exceeded. Try again in 1 seconds."
    with served(Local(data_dir=str(tmp_path))) as url:
        made: Face = KINDS[kind](url)
        for _ in range(10):
            assert made.call("generate", "x") == "Hello there"
        with pytest.raises(Exception, match=told):
            made.call("generate", "x")
        (error,) = made.stream("stream_generate", "x")
        assert error.startswith("\nError: Streaming failed")
        assert told in error
        assert made.call("health_check") is True
        now[0] += 1
        assert made.call("generate", "x") == "Hello there"
        made.close()
