"""A killed client frees its slot: in prefill, in decode, in the queue; and neighbours go on.

The model is slow, so a slot that is idle soon and holds few tokens was cancelled, not finished.
"""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from support.models import slow_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = "/v1/chat/completions"
SHORT = [{"role": "user", "content": "Hello"}]
LONG = [{"role": "user", "content": "a word " * 900}]
ENDLESS = {"messages": SHORT, "ignore_eos": True, "max_tokens": -1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Iterator[Server]:
    model = slow_model(tmp_path_factory.mktemp("model"))
    # A due cleaning of the cache lets nobody pass until all slots are idle: not wanted here.
    options = {"n_parallel": 2, "cont_batching": 1, "clean_cache_threshold": 0, "backend": backend}
    with serve(model=model, ctx_len=8192, **options) as running:
        yield running


@pytest.fixture(autouse=True)
def all_idle_before_and_after(server: Server) -> Iterator[None]:
    server.wait_until(_all_idle)
    yield
    server.wait_until(_all_idle)


def _all_idle(data: dict[str, Any]) -> bool:
    states = {slot["state"] for slot in data["slots"]}
    return states == {"idle"} and data["running"] == data["waiting"] == 0


def _in_state(state: str) -> Any:
    return lambda data: any(slot["state"] == state for slot in data["slots"])


def _most_cached(server: Server) -> int:
    return max(slot["cached_tokens"] for slot in server.status()["slots"])


def _kill(connection: socket.socket) -> None:
    """As a killed process does: no goodbye, the connection is reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", [_kill, socket.socket.close])
def test_a_client_that_goes_in_prefill_frees_its_slot(
    server: Server, stream: bool, end: Any
) -> None:
    connection = server.send(CHAT, {**ENDLESS, "messages": LONG, "stream": stream})
    server.wait_until(_in_state("prefill"))
    end(connection)
    server.wait_until(_all_idle)
    assert _most_cached(server) < 1800  # of more than 1,800 tokens of prompt


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", [_kill, socket.socket.close])
def test_a_client_that_goes_in_decode_frees_its_slot(
    server: Server, stream: bool, end: Any
) -> None:
    connection = server.send(CHAT, {**ENDLESS, "stream": stream})
    server.wait_until(_in_state("decode"))
    end(connection)
    server.wait_until(_all_idle)
    assert _most_cached(server) < 2000  # of the 4,096 that an answer without end fills


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", [_kill, socket.socket.close])
def test_a_client_of_many_choices_that_goes_frees_slots_and_queue(
    server: Server, stream: bool, end: Any
) -> None:
    connection = server.send(CHAT, {**ENDLESS, "stream": stream, "n": 5})
    server.wait_until(_in_state("decode"))
    assert server.status()["waiting"] >= 3
    end(connection)
    server.wait_until(_all_idle)
    assert _most_cached(server) < 2000


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
def test_a_client_that_goes_in_the_queue_leaves_it(server: Server, path: str, backend: str) -> None:
    if path == "/v1/embeddings" and backend != "ctransformers":
        pytest.skip("embeddings are made beside the slots here, and wait for none")
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(server.send(CHAT, {**ENDLESS, "stream": True}))
        server.wait_until(lambda data: data["running"] == 2)
        waiting = server.send(path, {**ENDLESS, "input": "Hello"})
        server.wait_until(lambda data: data["waiting"] == 1)
        waiting.close()
        server.wait_until(lambda data: data["waiting"] == 0)
        assert server.status()["running"] == 2


def test_two_clients_stream_at_once_and_both_progress(server: Server) -> None:
    """Both answers go on without end, and each is read by turns with the other."""
    with ExitStack() as stack:
        answers = []
        for _ in range(2):
            connection = stack.enter_context(server.send(CHAT, {**ENDLESS, "stream": True}))
            answers.append(stack.enter_context(http.client.HTTPResponse(connection)))
        for answer in answers:
            answer.begin()
        for _ in range(10):
            for answer in answers:
                assert any(b'"content"' in line for line in answer)
        assert server.status()["running"] == 2


def test_health_status_and_unload_are_answered_while_slots_and_queue_are_full(
    tmp_path_factory: pytest.TempPathFactory, backend: str
) -> None:
    model = slow_model(tmp_path_factory.mktemp("model"))
    options = {"ctx_len": 2048, "max_queue": 3, "backend": backend}
    with serve(model=model, **options) as full, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(full.send(CHAT, {**ENDLESS, "stream": True}))
        full.wait_until(lambda data: (data["running"], data["waiting"]) == (1, 3))
        code, answer = full.post(CHAT, ENDLESS)
        assert (code, answer["error"]["code"]) == (503, "overloaded")
        assert full.get("/healthz")[0] == 200
        assert full.status()["waiting"] == 3
        assert full.get("/inferences/llamacpp/unloadmodel")[0] == 200
        body = {"llama_model_path": str(model), "cpu_threads": 1}
        assert full.post("/inferences/llamacpp/loadmodel", body)[0] == 200
        assert json.dumps(full.status()["running"]) == "0"
