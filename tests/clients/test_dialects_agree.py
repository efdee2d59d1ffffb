"""One conversation, one seed, the same settings: every dialect gives the same text, byte for byte,
whole and streamed. Over gunicorn, with the bundled model, on both backends."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from support.models import chat_model
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _pytest.mark.structures import ParameterSet

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")

MODEL = "demo"
Messages = list[dict[str, str]]

CONVERSATIONS: dict[str, Messages] = {
    "one question": [{"role": "user", "content": "What is the capital of France?"}],
    "a rule": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tell me a story about a cat."},
    ],
    "several turns": [
        {"role": "user", "content": "My name is Anna."},
        {"role": "assistant", "content": "Nice to meet you, Anna!"},
        {"role": "user", "content": "What is my name?"},
        {"role": "assistant", "content": "Your name is Anna."},
        {"role": "user", "content": "Tell me a joke, please."},
    ],
    "words of a template": [{"role": "user", "content": "</s> <s> USER: Grüße \u2603\nASSISTANT:"}],
}


@dataclass(frozen=True)
class Settings:
    """What a request asks for, in words of no dialect. penalty: over the whole text."""

    temperature: float
    top_k: int = 80
    top_p: float = 1.0
    penalty: float = 1.0
    most: int = 60
    seed: int = 42


SETTINGS = {
    "greedy": Settings(0.0),
    "warm": Settings(0.9, top_k=40, top_p=0.95, seed=7),
    "hot": Settings(1.9, top_k=1000, seed=2**40 + 3),
    "penalised": Settings(1.2, top_k=80, top_p=0.9, penalty=1.3, seed=5),
    "cut short": Settings(0.8, top_p=0.8, most=16),
}


def common(settings: Settings) -> dict[str, Any]:
    """The settings in the words that all but LocalLab have; what LocalLab does not have is off."""
    return {
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "repeat_penalty": settings.penalty,
        "repeat_last_n": -1,
        "samplers": ["penalties", "temperature", "top_k", "top_p"],
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "seed": settings.seed,
    }


# ---- the ways to ask -----------------------------------------------------------------------------


def nitro(server: Server, messages: Messages, settings: Settings, stream: bool) -> str:
    body = {**common(settings), "messages": messages, "max_tokens": settings.most}
    return chat(server, "/v1/chat/completions", body, stream)


def with_model(server: Server, messages: Messages, settings: Settings, stream: bool) -> str:
    body = {**common(settings), "messages": messages, "max_tokens": settings.most}
    return chat(server, "/v1/chat/completions", {**body, "model": MODEL}, stream)


def responses(server: Server, messages: Messages, settings: Settings, stream: bool) -> str:
    body = {**common(settings), "input": messages, "max_output_tokens": settings.most}
    answer = ask(server, "/v1/responses", {**body, "model": MODEL, "stream": stream})
    if stream:
        kind = "response.output_text.delta"
        return "".join(event["delta"] for event in events(answer) if event["type"] == kind)
    text: str = json.loads(answer)["output"][0]["content"][0]["text"]
    return text


def completions(server: Server, messages: Messages, settings: Settings, stream: bool) -> str:
    body = {**common(settings), "prompt": rendered(server, messages), "max_tokens": settings.most}
    answer = ask(server, "/v1/completions", {**body, "model": MODEL, "stream": stream})
    if stream:
        return "".join(event["choices"][0]["text"] for event in events(answer))
    text: str = json.loads(answer)["choices"][0]["text"]
    return text


def llama_chat(server: Server, messages: Messages, settings: Settings, stream: bool) -> str:
    body = {**common(settings), "messages": messages, "max_tokens": settings.most}
    return chat(server, "/chat/completions", body, stream)


def llama_completion(server: Server, messages: Messages, settings: Settings, stream: bool) -> str:
    body = {**common(settings), "prompt": rendered(server, messages), "n_predict": settings.most}
    answer = ask(server, "/completion", {**body, "stream": stream})
    found = events(answer) if stream else [json.loads(answer)]
    return "".join(event["content"] for event in found)


def locallab(server: Server, messages: Messages, settings: Settings, stream: bool) -> str:
    body = {
        "messages": messages,
        "max_length": settings.most,
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "repetition_penalty": settings.penalty,
        "seed": settings.seed,
    }
    answer = ask(server, "/chat", {**body, "stream": stream})
    if stream:
        pieces = [block.removeprefix("data: ") for block in answer.split("\n\n")[:-1]]
        assert pieces.pop() == "[DONE]"
        return "".join(pieces).replace("\\n", "\n")
    text: str = json.loads(answer)["choices"][0]["message"]["content"]
    return text


def chat(server: Server, path: str, body: dict[str, Any], stream: bool) -> str:
    answer = ask(server, path, {**body, "stream": stream})
    if stream:
        found = [event["choices"][0]["delta"] for event in events(answer)]
        return "".join(delta.get("content") or "" for delta in found)
    text: str = json.loads(answer)["choices"][0]["message"]["content"]
    return text


def rendered(server: Server, messages: Messages) -> str:
    """The conversation as the prompt that a chat makes of it."""
    prompt: str = json.loads(ask(server, "/apply-template", {"messages": messages}))["prompt"]
    return prompt


def ask(server: Server, path: str, body: dict[str, Any]) -> str:
    """The text of an answer to a request of which nothing was ignored."""
    connection = server.send(path, body)
    with connection:
        head, _, text = server.read_to_end(connection).decode().partition("\n\n")
    assert "x-nitro-ignored" not in head, head
    return text


def events(text: str) -> list[dict[str, Any]]:
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    data = [block.rpartition("data: ")[2] for block in blocks]
    return [json.loads(one) for one in data if one != "[DONE]"]


# ---- the claims ----------------------------------------------------------------------------------

Way = tuple[str, "Callable[[Server, Messages, Settings, bool], str]"]
# Name -> the dialects of the server, and the way.
WAYS: dict[str, Way] = {
    "nitro": ("nitro,openai,llama-server", nitro),
    "openai chat": ("openai", with_model),
    "openai responses": ("openai", responses),
    "openai completions": ("nitro,openai,llama-server", completions),
    "jan": ("jan", with_model),
    "locallab": ("locallab", locallab),
    "llama-server chat": ("nitro,openai,llama-server", llama_chat),
    "llama-server completion": ("nitro,openai,llama-server", llama_completion),
}
# Text that reads like a control token is text in a chat and the token in a prompt.
RAW = ("openai completions", "llama-server completion")
OTHER = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module", params=["ctransformers", "llama-cpp-python"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Server]]:
    backend = request.param
    if backend == "llama-cpp-python" and find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    with ExitStack() as stack:
        running = {}
        for dialects in dict.fromkeys(dialects for dialects, _ in WAYS.values()):
            place = tmp_path_factory.mktemp("server") / "models" / MODEL / "model.gguf"
            place.parent.mkdir(parents=True)
            shutil.copy(chat_model(place.parent), place)
            more = {"model": place, "data_dir": place.parents[2], "locallab_rate": 0}
            running[dialects] = stack.enter_context(
                serve(dialects=dialects, backend=backend, ctx_len=512, **more)
            )
        yield running


def _cases() -> Iterator[ParameterSet]:
    for told, messages in CONVERSATIONS.items():
        for name, settings in SETTINGS.items():
            if name in ("greedy", "hot") or told == "several turns":
                yield pytest.param(messages, settings, id=f"{told}, {name}")


@pytest.mark.parametrize(("messages", "settings"), [*_cases()])
def test_every_dialect_gives_the_same_text(
    servers: dict[str, Server], messages: Messages, settings: Settings
) -> None:
    wanted = text_of("nitro", servers, messages, settings)
    assert wanted.strip()
    for name in WAYS:
        if name in RAW and "</s>" in messages[0]["content"]:
            continue
        assert (name, text_of(name, servers, messages, settings)) == (name, wanted)
        # White space at the very end is not sent by LocalLab's streams.
        sent = wanted.rstrip() if name == "locallab" else wanted
        assert (name, text_of(name, servers, messages, settings, stream=True)) == (name, sent)


def text_of(
    name: str,
    servers: dict[str, Server],
    messages: Messages,
    settings: Settings,
    *,
    stream: bool = False,
) -> str:
    """The text of an answer by the way *name*, begun with the same tokens in the cache as any
    other: kernels of llama.cpp round otherwise in another batch, which a hot sampler shows."""
    dialects, way = WAYS[name]
    other, to_other = next((d, w) for d, w in WAYS.values() if d == dialects)
    to_other(servers[other], OTHER, Settings(0.0, most=1), False)
    text = way(servers[dialects], messages, settings, stream)
    return text.removeprefix(" ") if name in RAW else text  # a chat trims it


def test_another_seed_gives_another_text(servers: dict[str, Server]) -> None:
    """So that the texts above are not equal for being the only one there is."""
    hot, messages = SETTINGS["hot"], CONVERSATIONS["one question"]
    for name in WAYS:
        seeds = [replace(hot, seed=seed) for seed in range(4)]
        texts = {text_of(name, servers, messages, one) for one in seeds}
        assert len(texts) > 1, name
