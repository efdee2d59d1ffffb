"""The LocalLab dialect over a fake engine; every answer is held against the dialect's document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .documented import check_documented
from .rest_client import Answer, Rest

if TYPE_CHECKING:
    from pathlib import Path

GENERATE, CHAT, BATCH = "/generate", "/chat", "/generate/batch"
ANYTHING = {
    GENERATE: {"prompt": "Hello"},
    CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    BATCH: {"prompts": ["Hello", "Bye"]},
}
"""The least that each of the routes wants."""

_NO_ROUTE = ("Not Found", "Method Not Allowed")


class LocalLab(Rest):
    """Without a limit of requests unless the settings say otherwise."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("locallab_rate", 0)
        super().__init__(dialects=("locallab",), **settings)

    def request(self, method: str, path: str, **options: Any) -> Answer:
        answer = super().request(method, path, **options)
        if answer.status in (404, 405) and answer.json["detail"] in _NO_ROUTE:
            return answer
        kind = answer.headers.get("Content-Type", "")
        bare = path.split("?")[0]
        check_documented("locallab", method, bare, answer.status, kind, answer.data)
        return answer

    def ask(self, path: str, **fields: Any) -> Answer:
        """POST the least that *path* wants, and *fields*."""
        return self.post(path, {**ANYTHING[path], **fields})

    def detail(self, path: str, **fields: Any) -> tuple[int, str]:
        """Status and text of the error."""
        answer = self.ask(path, **fields)
        return answer.status, answer.json["detail"]


def register(folder: Path, id: str, path: Path | str, **manifest: Any) -> None:  # noqa: A002
    """Put a model into the registry in *folder* that lies at *path*, which need not exist."""
    place = folder.joinpath(*id.split("/"))
    place.mkdir(parents=True)
    document = {"id": id, "object": "model", "source_url": f"file://{path}", **manifest}
    (place / "model.json").write_text(json.dumps(document), encoding="utf-8")
