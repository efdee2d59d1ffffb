"""The Jan dialect over a fake engine; every good body is checked against its schema."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

from nitrolib.store import Store
from nitrolib.validation import schema

from .rest_client import Answer, Rest, data_folder

MODEL = "fake.gguf"  # what the fake engine has loaded
HELLO = {"role": "user", "content": "Hello"}
OPENAI = {"OpenAI-Beta": "assistants=v2"}


@functools.cache
def _empty_store() -> Path:
    """A new store in a file, to be copied: making one takes longer than most tests."""
    path = Path(data_folder()) / "empty-store.db"
    Store.open(path).close()
    return path


class Jan(Rest):
    """A served fake engine that keeps its threads in *folder*."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        if not (folder / "nitro.db").exists():
            shutil.copy(_empty_store(), folder / "nitro.db")
        super().__init__(dialects=("jan",), data_dir=str(folder), **settings)

    def call(
        self, method: str, path: str, body: Any = None, name: str | None = None, **options: Any
    ) -> Any:
        """The body of a good answer, valid against the schema *name*."""
        answer = self.send(method, path, body, **options)
        assert answer.status == 200, answer.data
        assert "x-nitro-ignored" not in answer.headers
        if name is not None:
            schema("jan", name).check(answer.json)
        return answer.json

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if body is not None:
            options["json"] = body
        return self.request(method, f"/v1{path}", **options)

    def fails(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> tuple[int, str, str | None]:
        """Status, code and field of a bad answer."""
        answer = self.send(method, path, body, **options)
        error = answer.json["error"]
        return answer.status, error["code"], error["param"]

    def thread(self, **fields: Any) -> str:
        """The id of a new thread."""
        made: str = self.call("POST", "/threads", fields or None, "ThreadObject")["id"]
        return made

    def chat_body(self, **fields: Any) -> Any:
        return {"model": MODEL, "messages": [HELLO], **fields}


def named_events(answer: Answer) -> list[tuple[str, Any]]:
    """The events of a run's stream, without the `done` that must end it."""
    texts = answer.data.decode().split("\n\n")
    assert texts.pop() == ""
    found = []
    for text in texts:
        name, data = text.split("\n")
        found.append((name.removeprefix("event: "), data.removeprefix("data: ")))
    assert found.pop() == ("done", "[DONE]")
    return [(name, json.loads(data)) for name, data in found]
