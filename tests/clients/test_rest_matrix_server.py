"""Every route and every field of every dialect over gunicorn, with the bundled model: a good value,
wrong ones, none, null, and names that mean nothing. The rows are those of `support.rest_matrix`."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from support.file_server import file_server
from support.models import chat_model
from support.rest_matrix import Case, cases
from support.server import Server, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = "demo"  # in the models folder
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass
class World:
    """A server, and what its rows need to be there. Objects are made once for each operation."""

    server: Server
    folder: Path
    files: str
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)

    def send(self, case: Case) -> tuple[int, dict[str, str], str]:
        path = f"{case.path}?{urlencode(case.query)}" if case.query else case.path
        data = None if case.body is None else json.dumps(case.body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        self.connection.request(case.method, path, data, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        return answer.status, {name.lower(): one for name, one in answer.getheaders()}, text

    def made(self, path: str, body: Any) -> str:
        """The id of an object that a POST makes."""
        status, answer = self.server.post(path, body)
        assert status == 200, answer
        found: str = answer["id"]
        return found

    @property
    def model_path(self) -> str:
        return str(self.folder / "models" / MODEL / "model.gguf")


# ---- what the rows of each document need --------------------------------------------------------


def _chat(**fields: Any) -> dict[str, Any]:
    return {"messages": HELLO, "max_tokens": 2, **fields}


def _nitro(world: World) -> dict[str, Any]:
    more = {"stream_options": {"include_usage": True}, "response_format": {"type": "text"}}
    embed = {"input": "hello"}
    return {
        "loadModel": {"llama_model_path": world.model_path, "cpu_threads": 1},
        **dict.fromkeys(("chat", "chatAlias", "applyTemplate"), _chat(**more)),
        **dict.fromkeys(("embed", "embedAlias"), embed),
    }


def _openai(_world: World) -> dict[str, Any]:
    return {
        "openaiChat": _chat(model=MODEL, tools=[], response_format={"type": "text"}),
        "completion": {"model": MODEL, "prompt": "Once upon", "max_tokens": 2},
        "openaiEmbed": {"model": MODEL, "input": "hello"},
        "createResponse": {"model": MODEL, "input": "Hello", "max_output_tokens": 16},
    }


def _jan(world: World) -> dict[str, Any]:
    run = {"assistant_id": "jan", "model": MODEL, "max_tokens": 2}
    return {
        "janAddModel": {"source_url": f"{world.files}/fetched.gguf", "id": "fetched"},
        "janChat": _chat(model=MODEL),
        "janCompletion": {"model": MODEL, "prompt": "Once upon", "max_tokens": 2},
        "janEmbeddings": {"model": MODEL, "input": "hello"},
        "janCreateThreadAndRun": {**run, "thread": {"messages": HELLO}},
        "janCreateRun": run,
        "janStartModel": {"ctx_len": 512, "cpu_threads": 1},
    }


def _locallab(_world: World) -> dict[str, Any]:
    return {
        "generate": {"prompt": "Hello", "max_length": 2},
        "chat": {"messages": HELLO, "max_length": 2},
        "generateBatch": {"prompts": ["Hello", "Good morning"], "max_length": 2},
        "loadModel": {"model_id": MODEL},
    }


def _llama_server(_world: World) -> dict[str, Any]:
    chat = dict.fromkeys(("llamaServerChat", "llamaServerChatAlias"), _chat())
    return {**chat, "llamaServerApplyTemplate": _chat(), "detokenize": {"tokens": [5, 6]}}


BASES: dict[str, Callable[[World], dict[str, Any]]] = {
    "nitro": _nitro,
    "openai": _openai,
    "jan": _jan,
    "locallab": _locallab,
    "llama-server": _llama_server,
    "common": lambda _world: {},
}
# Rows whose good request has another answer: what this model, or this server, does not have.
EXPECTED = {
    "llama-server": dict.fromkeys(
        ("infill", "rerank", "rerankAlias", "rerankAlias2", "rerankAlias3", "slotAction"), 501
    ),
}
# After these the model is not as the next row needs it.
DISTURBING = {"loadModel", "unloadModel", "unloadModelByPost", "janStartModel", "janStopModel"}


def variables(world: World, case: Case) -> dict[str, str]:
    """What the variables of the path of a row stand for: objects of its own."""
    names = {one["name"] for one in case.operation.parameters if one["in"] == "path"}
    found: dict[str, str] = {}
    if "model_id" in names:
        found["model_id"] = _model(world, case)
    if "engine" in names:
        found["engine"] = "llamacpp"
    if "dialect" in names:
        found["dialect"] = "nitro"
    if "id_slot" in names:
        found["id_slot"] = "0"
    if "response_id" in names:
        body = {"model": MODEL, "input": "Hello", "max_output_tokens": 16}
        found["response_id"] = world.made("/v1/responses", body)
    if "assistant_id" in names:
        found["assistant_id"] = world.made("/v1/assistants", {"name": "Poet", "model": MODEL})
    if "thread_id" in names:
        thread = found["thread_id"] = world.made("/v1/threads", {"title": "Cats"})
        files = {"file_ids": ["file-1"]}
        message = {"role": "user", "content": "Hello", **files}
        found["message_id"] = world.made(f"/v1/threads/{thread}/messages", message)
        found["file_id"] = "file-1"
        if "run_id" in names:
            # To the end of the context: it must be under way when it is cancelled.
            run = {"assistant_id": "jan", "model": MODEL, "max_tokens": -1, "ignore_eos": True}
            found["run_id"] = world.made(f"/v1/threads/{thread}/runs", run)
    return found


def _model(world: World, case: Case) -> str:
    """The model of a row: one that may go where the row removes it, or is to be fetched."""
    name = {"janDeleteModel": "doomed", "janDownloadModel": "absent"}.get(case.operation.id, MODEL)
    place = world.folder / "models" / name
    if not place.exists():
        place.mkdir()
        if name == "doomed":
            shutil.copy(world.model_path, place / "model.gguf")
        else:
            source = {"source_url": f"{world.files}/absent.gguf"}
            (place / "model.json").write_text(json.dumps(source))
    return name


def before(world: World, case: Case) -> None:
    """Bring about what a row needs of the model."""
    if case.operation.document == "nitro" and case.operation.id == "loadModel":
        world.server.get("/inferences/llamacpp/unloadmodel")


def after(world: World, case: Case) -> None:
    """Load the model again where a row has changed that."""
    if case.operation.id not in DISTURBING:
        return
    if case.operation.document == "nitro":
        load = {"llama_model_path": world.model_path, "cpu_threads": 1}
        world.server.get("/inferences/llamacpp/unloadmodel")
        assert world.server.post("/inferences/llamacpp/loadmodel", load)[0] == 200
    elif case.operation.document == "locallab":
        assert world.server.post("/models/load", {"model_id": MODEL})[0] == 200


def settings(name: str) -> dict[str, Any]:
    if name == "locallab":
        return {"dialects": "locallab", "locallab_rate": 0}
    return {"dialects": "nitro" if name == "common" else name}


@pytest.mark.parametrize("name", [*BASES])
def test_every_row_of_a_document(name: str, tmp_path: Path) -> None:
    place = tmp_path / "models" / MODEL
    place.mkdir(parents=True)
    shutil.copy(chat_model(tmp_path), place / "model.gguf")
    more = {"download_hosts": "127.0.0.1", "download_private": 1, "ctx_len": 1024}
    with (
        contextlib.ExitStack() as stack,
        file_server() as files,
        serve(model=place / "model.gguf", data_dir=tmp_path, **more, **settings(name)) as running,
    ):
        data = (place / "model.gguf").read_bytes()
        for path in ("/fetched.gguf", "/absent.gguf"):
            files.put(path, data)
        world = World(running, tmp_path, files.url)
        stack.callback(world.connection.close)
        wrong, count, given = [], 0, dict[str, dict[str, str]]()
        for case in cases(name, bases=BASES[name](world), expected=EXPECTED.get(name)):
            if case.operation.id not in given:
                given[case.operation.id] = variables(world, case)
            before(world, case)
            count += 1
            try:
                case.check(*world.send(case.at(given[case.operation.id])))
            except AssertionError as error:
                wrong.append(str(error))
            after(world, case)
        assert not wrong, f"{len(wrong)} of {count} rows:\n" + "\n\n".join(wrong[:20])
        assert "Traceback" not in running.log, running.log
