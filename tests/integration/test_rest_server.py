"""The server as operators run it: gunicorn with its settings file, a real port, a real model."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.gguf_maker import make_llama
from support.models import chat_model, slow_model
from support.server import ROOT, Server, serve

from nitrolib.validation import schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOAD = "/inferences/llamacpp/loadmodel"
UNLOAD = "/inferences/llamacpp/unloadmodel"
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
NOT_LOADED = "Model has not been loaded, please load model into nitro"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path, backend: str) -> Iterator[Server]:
    with serve(model=model, backend=backend) as running:
        yield running


@pytest.fixture
def empty(backend: str) -> Iterator[Server]:
    with serve(no_model=1, backend=backend) as running:
        yield running


# ---- the examples, as printed --------------------------------------------------------------------

SINGLE = """\
curl http://localhost:3928/v1/chat/completions \\
-H "Content-Type: application/json" \\
-d '{
"model": "",
"messages": [
{
"role": "user",
"content": "Hello"
},
]
}'"""
DIALOG = """\
curl http://localhost:3928/v1/chat/completions \\
-H "Content-Type: application/json" \\
-d '{
"messages": [
{
"role": "system",
"content": "You are a helpful assistant."
},
{
"role": "user",
"content": "Who won the world series in 2020?"
},
{
"role": "assistant",
"content": "The Los Angeles Dodgers won the World Series in 2020."
},
{
"role": "user",
"content": "Where was it played?"
}
]
}'"""


def run_example(server: Server, command: str) -> Any:
    """The printed command in a shell, with the port of this server; its answer parsed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = command.replace("localhost:3928", f"localhost:{server.port}")
    ran = subprocess.run(
        ["bash", "-c", f"{command} --silent --show-error"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize("command", [SINGLE, DIALOG], ids=["single", "dialog"])
def test_the_printed_chat_examples_get_the_printed_answer(server: Server, command: str) -> None:
    answer = run_example(server, command)
    schema("nitro", "ChatCompletion").check(answer)
    assert set(answer) == {
        "choices", "created", "id", "model", "object", "system_fingerprint", "usage",
    }  # fmt: skip
    assert re.fullmatch("[0-9A-Za-z]{20}", answer["id"])
    assert (answer["model"], answer["system_fingerprint"]) == ("_", "_")
    (choice,) = answer["choices"]
    assert (choice["index"], choice["message"]["role"]) == (0, "assistant")
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_printed_model_examples_get_the_printed_answers(empty: Server, model: Path) -> None:
    base = "curl http://localhost:3928/"
    assert run_example(empty, f"{base}healthz") == {"message": "Nitro is alive!!!"}
    body = {
        "llama_model_path": str(model),
        "ngl": 100,
        "ctx_len": 2048,
        "embedding": True,
        "cont_batching": False,
        "n_parallel": 1,
        "cpu_threads": 1,
        "pre_prompt": "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant follows the given rules no matter what.",
        "user_prompt": "USER:",
        "ai_prompt": "ASSISTANT:",
        "clean_cache_threshold": 5,
    }
    load = f"{base}inferences/llamacpp/loadmodel -H 'Content-Type: application/json' -d "
    loaded = run_example(empty, load + f"'{json.dumps(body)}'")
    assert loaded["message"] == loaded["code"] == "Model loaded successfully"
    status = run_example(empty, f"{base}inferences/llamacpp/modelstatus")
    schema("nitro", "ModelStatus").check(status)
    assert status["model_data"]["model"] == str(model)
    unloaded = run_example(empty, f"{base}inferences/llamacpp/unloadmodel")
    assert unloaded == {"message": "Model unloaded successfully"}


# ---- loading -------------------------------------------------------------------------------------


def test_the_life_of_a_model(empty: Server, model: Path, tmp_path: Path) -> None:
    chat = {"messages": HELLO, "max_tokens": 4}
    code, answer = empty.post(CHAT, chat)
    assert (code, answer["message"]) == (409, NOT_LOADED)
    assert empty.get("/inferences/llamacpp/modelstatus") == (
        200, {"model_loaded": False, "model_data": {}},
    )  # fmt: skip

    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(60))
    for path in (bad, tmp_path / "missing.gguf", tmp_path):
        code, answer = empty.post(LOAD, {"llama_model_path": str(path)})
        assert (code, answer["message"]) == (500, "Failed to load model"), answer
        assert answer["code"] == "No model loaded"
        assert answer["error"]["message"] != "Failed to load model"

    good = {"llama_model_path": str(model), "ctx_len": 1024, "cpu_threads": 1000, "ngl": 0}
    code, answer = empty.post(LOAD, good)
    assert code == 200
    assert [word.split()[0] for word in answer["warnings"]] == ["cpu_threads"]
    assert empty.post(CHAT, chat)[0] == 200

    code, answer = empty.post(LOAD, good)
    assert (code, answer["message"]) == (409, "Model already loaded")
    assert empty.status()["n_ctx"] == 1024

    assert empty.get(UNLOAD) == (200, {"message": "Model unloaded successfully"})
    assert empty.get(UNLOAD) == (200, {"message": "No model loaded"})
    assert empty.post(CHAT, chat)[0] == 409
    assert empty.post(LOAD, good)[0] == 200
    assert empty.post(CHAT, chat)[0] == 200


def test_nitros_own_test_with_a_context_of_fifty_tokens(empty: Server, model: Path) -> None:
    """There the prompt was cut in silence; here the numbers are told, and nothing crashes."""
    small = {"llama_model_path": str(model), "ctx_len": 50, "ngl": 32, "embedding": False}
    assert empty.post("/inferences/llamacpp/loadModel", small)[0] == 200
    messages = [
        {"role": "assistant", "content": "Hello there"},
        {"role": "user", "content": "Write a long and sad story for me"},
    ]
    body = {"messages": messages, "stream": True, "max_tokens": 50, "stop": ["hello"]}
    with empty.send("/inferences/llamacpp/chat_completion", body) as connection:
        answer = empty.read_to_end(connection)
    # How many tokens the prompt has is the vocabulary's to say.
    assert b"[DONE]" in answer or b"context_length_exceeded" in answer
    code, whole = empty.post(CHAT, {**body, "stream": False, "ignore_eos": True})
    if code == 200:
        assert whole["usage"]["total_tokens"] <= 51  # the last one is sampled, and needs no room
        assert whole["choices"][0]["finish_reason"] in ("stop", "length")
    messages[1]["content"] *= 5
    code, answer = empty.post(CHAT, body)
    assert (code, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "50" in answer["message"]
    code, answer = empty.post("/v1/embeddings", {"input": "Hello"})
    assert (code, answer["error"]["code"]) == (409, "embedding_disabled")
    assert empty.get("/inferences/llamacpp/unloadModel")[0] == 200


def test_a_load_that_contradicts_itself_is_400(empty: Server, model: Path) -> None:
    body = {"llama_model_path": str(model), "ctx_len": 2, "n_parallel": 3}
    code, answer = empty.post(LOAD, body)
    assert (code, answer["error"]["param"]) == (400, "ctx_len")


def test_an_over_long_prompt_is_400_with_its_numbers(server: Server) -> None:
    messages = [{"role": "user", "content": "word " * 5000}]
    code, answer = server.post(CHAT, {"messages": messages})
    assert (code, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert answer["error"]["param"] == "messages"


def test_a_stream_and_a_whole_answer_of_one_seed_are_the_same(server: Server) -> None:
    body = {"messages": HELLO, "seed": 7, "max_tokens": 12}
    code, whole = server.post(CHAT, body)
    assert code == 200
    with server.send(CHAT, {**body, "stream": True}) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        *events, done, end = answer.read().decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    choices = [json.loads(event[6:])["choices"][0] for event in events]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_one_connection_serves_many_requests(server: Server) -> None:
    """The watcher leaves a kept connection in order."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/json"}
    for turn in range(6):
        body = {"messages": HELLO, "max_tokens": 2, "stream": turn % 2 == 1}
        connection.request("POST", CHAT, json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert answer.headers.get("Connection") == "keep-alive"
    connection.close()


def test_embeddings_have_length_one_and_real_usage(server: Server) -> None:
    code, answer = server.post("/v1/embeddings", {"input": ["Hello", "Good morning"]})
    assert code == 200
    for entry in answer["data"]:
        assert sum(x * x for x in entry["embedding"]) == pytest.approx(1, abs=1e-5)
    assert answer["usage"]["prompt_tokens"] > 2
    code, answer = server.post("/v1/embeddings", {"input": [10**9]})
    assert (code, answer["error"]["type"]) == (400, "invalid_request_error")


def test_hostile_bodies_leave_the_server_well(server: Server) -> None:
    bodies = [b"", b"{", b"[" * 2_000_000, b'{"a":' * 500_000, b"\xff\xfe", b'{"messages": [' * 70]
    for data in bodies:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", CHAT, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 400
        json.loads(answer.read())
        connection.close()
    assert server.get("/healthz")[0] == 200


def test_a_body_over_the_limit_is_413(model: Path) -> None:
    with serve(no_model=1, max_body_bytes=2048) as small:
        code, answer = small.post(CHAT, {"messages": [{"role": "user", "content": "x" * 4000}]})
        assert (code, answer["error"]["type"]) == (413, "invalid_request_error")
        connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=60)
        chunks = iter([b'{"x": "', *[b"x" * 1000] * 5, b'"}'])
        connection.request(
            "POST", CHAT, chunks, {"Content-Type": "application/json"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413
        connection.close()


# ---- operating -----------------------------------------------------------------------------------


def test_the_settings_file_works_by_path_and_the_key_guards(model: Path) -> None:
    config = str(ROOT / "adapters" / "gunicorn.py")
    with serve(config, model=model, api_key="secret-key", n_parallel=2) as running:
        assert running.get("/healthz")[0] == 200
        assert running.get(UNLOAD)[0] == 401
        headers = {"Authorization": "Bearer secret-key"}
        code, answer = running.request("GET", "/inferences/llamacpp/modelstatus", headers=headers)
        assert (code, answer["model_data"]["n_parallel"]) == (200, 2)
        assert "secret-key" not in running.log


def test_a_model_that_was_asked_for_and_is_broken_stops_the_start(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model")
    with pytest.raises(AssertionError, match="cannot start") as caught, serve(model=bad):
        pass
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_when_told_to_with_a_stream_open(
    tmp_path: Path, how: int, backend: str
) -> None:
    tiny = make_llama(tmp_path / "tiny.gguf", n_ctx_train=2048)
    with serve(model=tiny, backend=backend) as running:
        body = {"messages": HELLO, "stream": True, "ignore_eos": True, "max_tokens": -1}
        with running.send(CHAT, body) as connection:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            running.process.send_signal(how)
            rest = answer.read() if how == signal.SIGTERM else b""
        assert running.process.wait(60) == 0
        if how == signal.SIGTERM:  # running answers are let finish
            assert b"data: [DONE]" in rest
        assert "Traceback" not in running.log


def test_a_stream_on_a_model_that_is_unloaded_ends_with_an_error_event(
    tmp_path: Path, backend: str
) -> None:
    with serve(model=slow_model(tmp_path), ctx_len=8192, backend=backend) as running:
        body = {"messages": HELLO, "stream": True, "ignore_eos": True, "max_tokens": -1}
        with running.send(CHAT, body) as connection:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert running.get(UNLOAD)[0] == 200
            rest = answer.read()
        assert b'"code":"cancelled"' in rest
        assert rest.endswith(b"data: [DONE]\n\n")


def test_many_clients_at_once_all_get_an_answer(server: Server) -> None:
    """More than run and wait: each gets 200, or 503 when the queue is full; nothing else."""
    codes: list[int] = []

    def ask() -> None:
        codes.append(server.post(CHAT, {"messages": HELLO, "max_tokens": 3})[0])

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(codes) == 40
    assert set(codes) <= {200, 503}
    server.wait_until(lambda data: data["running"] == data["waiting"] == 0)
