"""Conversations as clients send them: what is read, and where a malformed one is refused."""

from __future__ import annotations

import pytest

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.prompt import Message, ToolCall, check_history, read_messages

USER = {"role": "user", "content": "Hi"}


def call(call_id: str = "a", **changes) -> dict:
    function = {"name": "f", "arguments": "{}", **changes}
    return {"id": call_id, "type": "function", "function": function}


def calling(*calls: dict, **changes) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **changes}


def result(call_id: str = "a", **changes) -> dict:
    return {"role": "tool", "tool_call_id": call_id, "content": "4", **changes}


def test_a_conversation_with_calls_is_read():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = read_messages([
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {"role": "user", "content": parts},
        calling(call("a"), call("b", name="g", arguments='{"x": 1}'), refusal=None, audio=None),
        result("b"),
        result("a", content="", name="f"),
        {"role": "assistant", "content": "4", "tool_calls": None, "annotations": []},
        USER,
    ])  # fmt: skip
    assert messages == (
        Message("system", "Be brief.", "boss"),
        Message("user", "one\ntwo"),
        Message("assistant", "", None, (ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"x": 1}'))),
        Message("tool", "4", tool_call_id="b"),
        Message("tool", "", "f", (), "a"),
        Message("assistant", "4"),
        Message("user", "Hi"),
    )


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ("Hi", "messages"),
        ({}, "messages"),
        ([], "messages"),
        ([123], "messages[0]"),
        ([{}], "messages[0].role"),
        ([USER, {"role": 1, "content": "x"}], "messages[1].role"),
        ([USER, {"role": "", "content": "x"}], "messages[1].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 42}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": "x", "name": 1}], "messages[0].name"),
        ([{"role": "user", "content": "x", "weight": 1}], "messages[0].weight"),
        ([{"role": "assistant", "content": None}], "messages[0].content"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "messages[0].content"),
        ([calling(call()) | {"tool_calls": "f"}], "messages[0].tool_calls"),
        ([calling(1)], "messages[0].tool_calls[0]"),
        ([calling({"id": "a", "type": "x", "function": {}})], "messages[0].tool_calls[0]"),
        ([calling(call(None))], "messages[0].tool_calls[0].id"),
        ([calling(call(""))], "messages[0].tool_calls[0].id"),
        ([calling(call(), call())], "messages[0].tool_calls[1].id"),
        ([calling(call(name=None))], "messages[0].tool_calls[0].function.name"),
        ([calling(call(name=""))], "messages[0].tool_calls[0].function.name"),
        ([calling(call(arguments={}))], "messages[0].tool_calls[0].function.arguments"),
        ([USER, calling(call(arguments="{"))], "messages[1].tool_calls[0].arguments"),
        ([USER, calling(call(arguments="[]"))], "messages[1].tool_calls[0].arguments"),
        ([USER, calling(call(arguments='{"a": NaN}'))], "messages[1].tool_calls[0].arguments"),
        ([calling(call(), role="user")], "messages[0].tool_calls"),
        ([USER, result()], "messages[1].tool_call_id"),
        ([calling(call()), result(None)], "messages[1].tool_call_id"),
        ([calling(call()), result("")], "messages[1].tool_call_id"),
        ([calling(call()), result(1)], "messages[1].tool_call_id"),
        ([calling(call()), result("b")], "messages[1].tool_call_id"),
        ([calling(call()), result(), result()], "messages[2].tool_call_id"),
        ([calling(call()), result(), USER, result()], "messages[3].tool_call_id"),
        ([calling(call("a"), call("b")), result("a"), USER], "messages[0].tool_calls"),
        ([USER, calling(call())], "messages[1].tool_calls"),
        ([USER, calling(call()), USER], "messages[1].tool_calls"),
        ([calling(call()), result(tool_calls=[call("c")])], "messages[1].tool_calls"),
        ([{**USER, "tool_call_id": "a"}], "messages[0].tool_call_id"),
    ],
)
def test_a_malformed_history_is_refused_where_it_is_malformed(messages, field: str):
    with pytest.raises(InvalidRequest) as error:
        read_messages(messages)
    assert error.value.field == field
    assert field in error.value.message
    assert not isinstance(error.value, Unsupported)


def test_a_part_that_is_no_text_is_not_supported():
    with pytest.raises(Unsupported) as error:
        read_messages([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])
    assert error.value.field == "messages[0].content[0].type"


def test_calls_may_be_answered_in_any_order_and_made_again_under_the_same_ids():
    turn = [
        Message("user", "x"),
        Message("assistant", "", tool_calls=(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))),
        Message("tool", "1", tool_call_id="b"),
        Message("tool", "2", tool_call_id="a"),
        Message("assistant", "done"),
    ]
    check_history([*turn, *turn])
