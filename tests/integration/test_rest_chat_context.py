"""What a full context does to a chat, over gunicorn and the bundled model with a small context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.models import chat_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Tell me a story."}]
N_CTX = 96


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Iterator[Server]:
    model = chat_model(tmp_path_factory.mktemp("model"))
    with serve(model=model, backend=backend, ctx_len=N_CTX, clean_cache_threshold=0) as running:
        yield running


def ask(server: Server, **fields: Any) -> dict[str, Any]:
    body = {"messages": HELLO, "ignore_eos": True, "stop": [], "verbose": True, **fields}
    status, answer = server.post(CHAT, body)
    assert status == 200, answer
    return dict(answer)


def test_an_answer_fills_the_context_and_ends(server: Server) -> None:
    answer = ask(server, max_tokens=-1)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == N_CTX
    assert answer["truncated"] is True


def test_an_answer_goes_on_when_the_context_may_shift(server: Server) -> None:
    answer = ask(server, max_tokens=150, context_policy="shift", n_keep=-1)
    assert answer["usage"]["completion_tokens"] == 150
    assert answer["truncated"] is True
    assert answer["warnings"][0].startswith("the context was full")


def test_old_turns_go_when_the_prompt_is_too_long(server: Server) -> None:
    turns = [
        {"role": role, "content": f"This is message {index} of a long talk."}
        for index in range(5)
        for role in ("user", "assistant")
    ]
    body = {"messages": [*turns, *HELLO], "max_tokens": 4}
    status, answer = server.post(CHAT, body)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    answer = ask(server, **body, context_policy="drop_oldest_turns")
    assert "oldest messages were left out" in answer["warnings"][0]
    assert "message 0" not in answer["prompt"]
    assert "Tell me a story." in answer["prompt"]


def test_the_seed_in_the_settings_repeats_the_answer(server: Server) -> None:
    fields = {"max_tokens": 20, "temperature": 1.5, "cache_prompt": False}
    first = ask(server, **fields)
    again = ask(server, **fields, seed=first["generation_settings"]["seed"])
    assert again["choices"] == first["choices"]
    assert again["tokens_cached"] == 0


def test_the_prompt_shown_is_the_prompt_evaluated(server: Server) -> None:
    status, shown = server.post("/apply-template", {"messages": HELLO})
    assert status == 200
    evaluated = ask(server, max_tokens=1)["prompt"]
    assert evaluated.removeprefix("<s>").strip() == shown["prompt"].strip()
