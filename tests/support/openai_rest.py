"""The OpenAI dialect over a fake engine; every answer is held against the dialect's document."""

from __future__ import annotations

import json
from typing import Any

from nitrolib.validation import schema

from .documented import check_documented
from .rest_client import CHAT, EMBED, HELLO, Answer, Rest

COMPLETE = "/v1/completions"
RESPOND = "/v1/responses"
MODEL = "fake.gguf"  # what the fake engine's model is called
LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": HELLO},
    COMPLETE: {"model": MODEL, "prompt": "Hello"},
    EMBED: {"model": MODEL, "input": "Hello"},
    RESPOND: {"model": MODEL, "input": "Hello"},
}
"""The least that each of the routes wants."""


class OpenAIRest(Rest):
    """The dialect alone, unless the settings say otherwise."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"dialects": ("openai",), **settings})
        self.document = "openai"

    def request(self, method: str, path: str, **options: Any) -> Answer:
        answer = super().request(method, path, **options)
        if answer.status in (404, 405) and answer.json["error"]["code"] in _NO_ROUTE:
            return answer
        kind = answer.headers.get("Content-Type", "")
        bare = path.split("?")[0]
        check_documented("openai", method, bare, answer.status, kind, answer.data)
        assert answer.headers["x-request-id"].startswith("req_")
        return answer

    def ask(self, path: str, **fields: Any) -> Answer:
        """POST the least that *path* wants, and *fields*."""
        return self.post(path, {**LEAST[path], **fields})

    def complete(self, **fields: Any) -> Answer:
        return self.ask(COMPLETE, **fields)

    def respond(self, **fields: Any) -> Answer:
        return self.ask(RESPOND, **fields)


_NO_ROUTE = ("not_found", "method_not_allowed")


def named_events(answer: Answer) -> list[dict[str, Any]]:
    """The events of a streamed response, each under its own name, checked against the document."""
    blocks = answer.data.decode().split("\n\n")
    assert blocks.pop() == ""
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        schema("openai", "ResponseEvent").check(event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events
