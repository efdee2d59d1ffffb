"""The llama-server dialect over a fake engine; every answer is held against its document."""

from __future__ import annotations

import json
from typing import Any

from .documented import check_documented
from .rest_client import Answer, Rest

COMPLETION = "/completion"


class LlamaServer(Rest):
    def __init__(self, **settings: Any) -> None:
        super().__init__(dialects=("llama-server",), **settings)

    def request(self, method: str, path: str, **options: Any) -> Answer:
        answer = super().request(method, path, **options)
        if answer.status in (404, 405) and answer.json["error"]["code"] == answer.status:
            return answer
        kind = answer.headers.get("Content-Type", "")
        bare = path.split("?")[0]
        check_documented("llama-server", method, bare, answer.status, kind, answer.data)
        return answer

    def complete(self, **fields: Any) -> Answer:
        return self.post(COMPLETION, {"prompt": "Hello", **fields})

    def error(self, **fields: Any) -> dict[str, Any]:
        """The error of a completion that is refused."""
        answer = self.complete(**fields)
        assert answer.status >= 400, answer.data
        found: dict[str, Any] = answer.json["error"]
        assert found["code"] == answer.status
        return found


def events_of(answer: Answer) -> list[Any]:
    """The events of a stream of this dialect: there is no [DONE]."""
    texts = answer.data.decode().split("\n\n")
    assert texts.pop() == ""
    return [json.loads(text.removeprefix("data: ")) for text in texts if text != ":"]
