"""Every route and field of the Nitro dialect over a fake engine; and the matrix itself."""

from __future__ import annotations

from typing import Any

import pytest
from support.fake_engine import model_status
from support.rest_client import HELLO, Rest
from support.rest_matrix import UNKNOWN, Case, cases, operations

from nitrolib.adapters.rest.dialects import DIALECTS, load
from nitrolib.adapters.rest.openapi import COMMON
from nitrolib.validation import document, schema

MODEL = {"llama_model_path": "a.gguf"}
CHAT: dict[str, Any] = {
    "messages": HELLO,
    "stream_options": {"include_usage": True},
    "response_format": {"type": "text"},
}
BASES = {
    "loadModel": MODEL,
    "chat": CHAT,
    "chatAlias": CHAT,
    "applyTemplate": CHAT,
    "embed": {"input": "hello"},
    "embedAlias": {"input": "hello"},
}
NITRO = [*cases("nitro", bases=BASES)]


@pytest.fixture(scope="module")
def rest() -> Rest:
    return Rest()


@pytest.mark.parametrize("case", NITRO, ids=lambda case: case.id)
def test_a_row_of_the_nitro_dialect(rest: Rest, case: Case) -> None:
    rest.engine.model = None if case.operation.id == "loadModel" else model_status()
    body = {} if case.body is None else {"json": case.body}
    answer = rest.request(case.method, case.path, query_string=case.query, **body)
    case.check(answer.status, answer.headers, answer.data.decode())


# ---- the matrix ----------------------------------------------------------------------------------


def test_every_operation_of_a_document_has_its_rows() -> None:
    for dialect in load(DIALECTS):
        told = {
            (path, method)
            for path, item in document(dialect.document)["paths"].items()
            for method in item
            if method not in ("options", "parameters")
        }
        found = {(one.path, one.method) for one in operations(dialect.document)}
        assert found == told, dialect.name
    assert {one.path for one in operations(COMMON)} == set(document(COMMON)["paths"])


def test_every_field_of_a_chat_is_tried_in_every_way() -> None:
    tried: dict[str, set[str]] = {}
    for case in NITRO:
        if case.operation.id == "chat" and case.field is not None:
            tried.setdefault(case.field, set()).add(case.kind)
    for name in schema("nitro", "ChatCompletionRequest").properties:
        assert {"value", "null"} <= tried[name], name
    typed = {name for name, kinds in tried.items() if "wrong type" in kinds}
    assert len(typed) > 60
    assert {"messages/0/role", "response_format/type", "stream_options/include_usage"} <= typed
    assert tried["temperature"] == {"value", "wrong type", "out of range", "null"}
    assert tried["messages"] >= {"value", "wrong type", "missing", "null", "out of range"}
    assert tried[UNKNOWN] == {"unknown"}


def test_a_row_fails_where_the_answer_is_another() -> None:
    about = (case for case in NITRO if case.field == "temperature")
    wrong = next(case for case in about if case.kind == "wrong type")
    wrong.check(400, {}, '{"message": "temperature must be ..."}')
    for status, text in ((200, ""), (400, "something"), (418, "temperature")):
        with pytest.raises(AssertionError):
            wrong.check(status, {}, text)
    unknown = next(case for case in NITRO if case.kind == "unknown")
    unknown.check(200, {"x-nitro-ignored": f"a, {UNKNOWN}"}, "")
    with pytest.raises(AssertionError, match="not reported"):
        unknown.check(200, {}, "")
