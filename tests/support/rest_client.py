"""The REST application over a fake engine, with a test client that checks every body it gets."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

from nitrolib.adapters.rest import create_app
from nitrolib.config import Settings
from nitrolib.validation import schema

from .fake_engine import FakeEngine

LOAD = "/inferences/llamacpp/loadmodel"
UNLOAD = "/inferences/llamacpp/unloadmodel"
STATUS = "/inferences/llamacpp/modelstatus"
CHAT = "/v1/chat/completions"
EMBED = "/v1/embeddings"
HELLO = [{"role": "user", "content": "Hello"}]


@dataclass
class Answer:
    """An answer as a client sees it."""

    status: int
    headers: Any
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def events(self) -> list[Any]:
        """The events of a stream, without the [DONE] that must end it."""
        texts = self.data.decode().split("\n\n")
        assert texts.pop() == ""
        assert all(text.startswith("data: ") for text in texts)
        assert texts.pop() == "data: [DONE]"
        return [json.loads(text.removeprefix("data: ")) for text in texts]


@functools.cache
def data_folder() -> str:
    """A folder for what servers of this process keep, gone at its end."""
    folder = tempfile.mkdtemp(prefix="nitro-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Rest:
    """A served fake engine. Keyword arguments are settings; without others, the Nitro dialect."""

    def __init__(self, *, loaded: bool = True, **settings: Any) -> None:
        settings = {"dialects": ("nitro",), "data_dir": data_folder(), **settings}
        self.document = settings["dialects"][0]
        self.engine = FakeEngine(loaded=loaded)
        self.app = create_app(self.engine, Settings(**settings))  # type: ignore[arg-type]
        self.http = self.app.test_client()

    def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        if isinstance(body, str | bytes):
            options.setdefault("content_type", "application/json")
            options["data"] = body
        elif body is not None:
            options["json"] = body
        return self.request("POST", path, **options)

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> Answer:
        got = self.http.open(path, method=method, **options)
        answer = Answer(got.status_code, got.headers, got.data)
        got.close()  # as a server does when the answer is sent
        if answer.status >= 400:
            schema(self.document, "Error").check(answer.json)
        return answer

    def chat(self, **fields: Any) -> Answer:
        return self.post(CHAT, {"messages": HELLO, **fields})

    def load(self, **fields: Any) -> Answer:
        return self.post(LOAD, {"llama_model_path": "a.gguf", **fields})
