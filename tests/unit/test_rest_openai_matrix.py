"""Every route and field of the OpenAI dialect over a fake engine."""

from __future__ import annotations

from typing import Any

import pytest
from support.openai_rest import LEAST, MODEL, RESPOND, OpenAIRest
from support.rest_client import CHAT, EMBED, HELLO
from support.rest_matrix import Case, cases

ITEMS: list[Any] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "noon"},
]
BASES = {
    "openaiChat": {
        "model": MODEL,
        "messages": HELLO,
        "stream_options": {"include_usage": True},
        "response_format": {"type": "text"},
    },
    "completion": {
        "model": MODEL,
        "prompt": "Hello",
        "stream_options": {"include_usage": True},
        "response_format": {"type": "text"},
    },
    "openaiEmbed": LEAST[EMBED],
    "createResponse": {
        "model": MODEL,
        "input": ITEMS,
        "tools": [{"type": "function", "name": "clock"}],
        "text": {"format": {"type": "text"}},
        "stream_options": {"include_obfuscation": False},
    },
}
ROWS = [
    *cases(
        "openai",
        bases=BASES,
        variables={"openaiModel": {"model_id": MODEL}},
        expected={"cancelResponse": 400},
    )
]


@pytest.fixture(scope="module")
def rest() -> OpenAIRest:
    return OpenAIRest()


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
def test_a_row_of_the_openai_dialect(rest: OpenAIRest, case: Case) -> None:
    path = case.path
    if "unknown" in path:  # the id of a response
        path = path.replace("unknown", rest.respond().json["id"])
    body = {} if case.body is None else {"json": case.body}
    answer = rest.request(case.method, path, query_string=case.query, **body)
    case.check(answer.status, answer.headers, answer.data.decode())


def test_every_route_has_rows() -> None:
    tried = {case.operation.path for case in ROWS}
    assert {CHAT, EMBED, RESPOND} <= tried
    assert len(ROWS) > 400
