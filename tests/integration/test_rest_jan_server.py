"""The Jan dialect over gunicorn and real models: models in their states, chats, threads, runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from support.models import chat_model, slow_model
from support.server import Server, serve

from nitrolib.validation import schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = {"role": "user", "content": "Hello"}
ENDED = ("completed", "incomplete", "failed", "cancelled", "expired")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("jan")
    with serve(
        model=chat_model(folder), dialects="jan", data_dir=folder / "data", n_parallel=2
    ) as running:
        yield running


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose answers take long."""
    folder = tmp_path_factory.mktemp("slow")
    with serve(
        model=slow_model(folder), dialects="jan,nitro", data_dir=folder / "data", ctx_len=4096
    ) as running:
        yield running


def call(server: Server, method: str, path: str, body: Any = None, name: str | None = None) -> Any:
    status, answer = server.request(method, f"/v1{path}", body)
    assert status == 200, answer
    if name is not None:
        schema("jan", name).check(answer)
    return answer


def current(server: Server) -> str:
    return str(call(server, "GET", "/models", None, "ListModelsResponse")["data"][0]["id"])


def wait(server: Server, thread: str, run: str, *, until: tuple[str, ...] = ENDED) -> Any:
    deadline = time.monotonic() + 60
    while True:
        found = call(server, "GET", f"/threads/{thread}/runs/{run}", None, "RunObject")
        if found["status"] in until:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def test_the_longest_page_query_that_the_document_allows_reaches_its_route(server: Server) -> None:
    """Ids of characters that take twelve bytes each, escaped: they lead to no message."""
    thread = call(server, "POST", "/threads", {}, "ThreadObject")["id"]
    long = quote("\U0001f600" * 128)
    path = f"/v1/threads/{thread}/messages?after={long}&before={long}&run_id={long}"
    status, answer = server.request("GET", path)
    assert (status, answer["error"]["param"]) == (400, "after")


def test_a_request_line_that_is_too_long_is_told(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", f"/v1/threads?after={'x' * 8190}")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (414, "text/html")


def endless(server: Server) -> tuple[str, str]:
    """A thread, and a run of it that would answer for minutes and has begun."""
    thread = call(server, "POST", "/threads", {"messages": [HELLO]})["id"]
    body = {"max_tokens": -1, "ignore_eos": True, "seed": 1}
    run = call(server, "POST", f"/threads/{thread}/runs", body, "RunObject")["id"]
    wait(server, thread, run, until=("in_progress",))
    return thread, run


def test_a_model_goes_through_its_states(server: Server, tmp_path: Path) -> None:
    before = current(server)
    source = chat_model(tmp_path).as_uri()
    made = call(server, "POST", "/models", {"source_url": source, "id": "org/mine"})
    assert made["state"] == "downloaded"

    def state() -> str:
        shown = call(server, "GET", "/models/org/mine", None, "GetModelResponse")
        return str(shown["state"])

    assert state() == "downloaded"
    for _ in range(2):
        call(server, "PUT", "/models/org/mine/start", {"ctx_len": 512}, "StartModelResponse")
        assert (state(), current(server)) == ("running", "org/mine")
    answer = call(server, "POST", "/chat/completions", {"model": "org/mine", "messages": [HELLO]})
    assert answer["model"] == "org/mine"
    for _ in range(2):
        call(server, "PUT", "/models/org/mine/stop", None, "StopModelResponse")
        assert state() == "stopped"
    call(server, "DELETE", "/models/org/mine", None, "DeleteModelResponse")
    assert server.get("/v1/models/org/mine")[0] == 404
    call(server, "POST", "/models", {"source_url": source, "id": before})
    call(server, "PUT", f"/models/{before}/start", {"n_parallel": 2})
    assert current(server) == before


def test_a_model_that_cannot_be_loaded_leaves_the_running_one(
    server: Server, tmp_path: Path
) -> None:
    running = current(server)
    broken = tmp_path / "broken.gguf"
    whole = chat_model(tmp_path).read_bytes()
    broken.write_bytes(whole)
    call(server, "POST", "/models", {"source_url": str(broken), "id": "broken"})
    broken.write_bytes(whole[: len(whole) // 2])
    status, answer = server.request("PUT", "/v1/models/broken/start")
    assert (status, answer["error"]["code"]) == (500, "model_load_failed")
    assert current(server) == running
    call(server, "DELETE", "/models/broken")


def test_a_chat_is_answered_whole_and_streamed_alike(server: Server) -> None:
    body = {"model": current(server), "messages": [HELLO], "seed": 5, "n_probs": 2}
    whole = call(server, "POST", "/chat/completions", body, "ChatCompletionResponseDto")
    with server.send("/v1/chat/completions", {**body, "stream": True}) as connection:
        data = Server.read_to_end(connection)
    lines = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    events = [json.loads(line) for line in lines]
    streamed = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert streamed == whole["choices"][0]["message"]["content"]
    told = [one for event in events for one in event["choices"][0]["logprobs"] or []]
    assert [one["id"] for one in told] == [one["id"] for one in whole["choices"][0]["logprobs"]]


def test_a_run_says_what_the_same_chat_says(server: Server) -> None:
    """A run is a chat of the thread's messages, so one seed gives one text."""
    fixed = {"seed": 7, "max_tokens": 20}
    chat = {"model": current(server), "messages": [HELLO], **fixed}
    whole = call(server, "POST", "/chat/completions", chat)["choices"][0]["message"]["content"]
    thread = call(server, "POST", "/threads", {"messages": [HELLO]}, "ThreadObject")["id"]
    run = call(server, "POST", f"/threads/{thread}/runs", fixed, "RunObject")
    ended = wait(server, thread, run["id"])
    assert ended["status"] in ("completed", "incomplete")
    messages = call(server, "GET", f"/threads/{thread}/messages", None, "ListMessagesResponse")
    assert messages["data"][1]["content"][0]["text"]["value"] == whole


def test_a_run_can_be_cancelled_and_keeps_its_text(slow: Server) -> None:
    thread, run = endless(slow)
    slow.wait_until(lambda data: data["slots"][0]["state"] == "decode")
    begun = slow.status()["slots"][0]["cached_tokens"]
    slow.wait_until(lambda data: data["slots"][0]["cached_tokens"] > begun + 30)  # it has text
    status, refused = slow.post(f"/v1/threads/{thread}/messages", HELLO)
    assert (status, refused["error"]["code"]) == (409, "conflict")
    told = call(slow, "POST", f"/threads/{thread}/runs/{run}/cancel", None, "RunObject")
    assert told["status"] in ("cancelling", "cancelled")
    assert wait(slow, thread, run)["status"] == "cancelled"
    messages = call(slow, "GET", f"/threads/{thread}/messages", None, "ListMessagesResponse")
    assert [one["status"] for one in messages["data"]] == ["completed", "incomplete"]
    assert messages["data"][1]["content"][0]["text"]["value"]
    call(slow, "POST", f"/threads/{thread}/messages", HELLO, "MessageObject")


def test_a_client_that_leaves_a_stream_ends_its_run(slow: Server) -> None:
    thread = call(slow, "POST", "/threads", {"messages": [HELLO]})["id"]
    body = {"max_tokens": -1, "ignore_eos": True, "stream": True}
    connection = slow.send(f"/v1/threads/{thread}/runs", body)
    data = b""
    while b"thread.message.delta" not in data:
        data += connection.recv(65536)
    connection.close()
    run = call(slow, "GET", f"/threads/{thread}/runs", None, "ListRunsResponse")["data"][0]["id"]
    assert wait(slow, thread, run)["status"] == "cancelled"
    messages = call(slow, "GET", f"/threads/{thread}/messages")["data"]
    assert messages[1]["status"] == "incomplete"


def test_a_prompt_that_is_too_long_is_refused_and_nothing_is_kept(slow: Server) -> None:
    long = [{"role": "user", "content": "word " * 3000} for _ in range(4)]
    thread = call(slow, "POST", "/threads", {"messages": long})["id"]
    status, refused = slow.post(f"/v1/threads/{thread}/runs", {})
    assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
    assert call(slow, "GET", f"/threads/{thread}/runs")["data"] == []


def test_threads_outlive_a_killed_server(tmp_path: Path) -> None:
    """A run that was under way when the server was killed is told of as it was left, and can be
    ended; everything that was answered is there."""
    settings: Any = {"dialects": "jan", "data_dir": tmp_path / "data", "ctx_len": 4096}
    with serve(model=slow_model(tmp_path), **settings) as first:
        thread, run = endless(first)
        kept = call(first, "POST", "/threads", {"title": "Kept", "messages": [HELLO]})
        children = _children(first.process.pid)
        for process in (first.process.pid, *children):
            os.kill(process, signal.SIGKILL)
        first.process.wait(60)
    with serve(model=slow_model(tmp_path), **settings) as second:
        assert call(second, "GET", f"/threads/{kept['id']}", None, "ThreadObject") == kept
        left = call(second, "GET", f"/threads/{thread}/runs/{run}", None, "RunObject")
        assert left["status"] == "in_progress"
        ended = call(second, "POST", f"/threads/{thread}/runs/{run}/cancel", None, "RunObject")
        assert ended["status"] == "cancelled"
        call(second, "POST", f"/threads/{thread}/messages", HELLO, "MessageObject")


def _children(parent: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(parent).children(recursive=True)]
