"""Items of a response: what is read, what is refused, and the conversation they make."""

from __future__ import annotations

from typing import Any

import pytest

from nitrolib.adapters.rest.openai.items import Dialogue, read_items
from nitrolib.adapters.rest.openai.response_chat import own_field
from nitrolib.errors import InvalidRequest, Unsupported

CALL = {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "noon"}


def text(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_a_text_is_a_message_of_the_user() -> None:
    (item,) = read_items("Hello")
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "Hello"}],
    }


def test_items_keep_their_ids_and_get_one_where_they_have_none() -> None:
    items = read_items([{**CALL, "id": "fc_7"}, CALL, OUTPUT, {**text("user", "Hi"), "id": None}])
    ids = [item["id"] for item in items]
    assert ids[0] == "fc_7"
    assert [one.split("_")[0] for one in ids] == ["fc", "fc", "fco", "msg"]
    assert len(set(ids)) == 4


def test_what_was_read_is_read_again_as_it_is() -> None:
    given = [text("user", "Hi"), text("assistant", "Ho"), CALL, OUTPUT]
    items = read_items(given)
    assert read_items(items) == items


def test_an_assistant_may_speak_in_either_kind_of_part() -> None:
    for kind in ("input_text", "output_text"):
        (item,) = read_items([text("assistant", [{"type": kind, "text": "Ho"}])])
        assert item["content"][0]["type"] == "output_text"
        assert item["content"][0]["text"] == "Ho"


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"type": "reasoning", "summary": []}, "input/1/type"),
        ({"type": "item_reference", "id": "msg_1"}, "input/1/type"),
        (text("user", [{"type": "input_image", "image_url": "x"}]), "input/1/content/0/type"),
        (text("user", [{"type": "output_text", "text": "x"}]), "input/1/content/0/type"),
        (text("assistant", [{"type": "refusal", "refusal": "x"}]), "input/1/content/0/type"),
        ({**OUTPUT, "output": [{"type": "input_file"}]}, "input/1/output/0/type"),
    ],
)
def test_what_is_not_supported_is_named(item: dict[str, Any], field: str) -> None:
    with pytest.raises(Unsupported) as caught:
        read_items([text("user", "Hi"), item])
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"role": "user"}, "input/0/content"),
        ({"content": "x"}, "input/0/role"),
        (text("user", [{"type": "input_text"}]), "input/0/content/0/text"),
        ({**CALL, "call_id": None}, "input/0/call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input/0/name"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "input/0/arguments"),
        ({"type": "function_call_output", "call_id": "c"}, "input/0/output"),
        ({"type": "function_call_output", "output": "x"}, "input/0/call_id"),
    ],
)
def test_what_is_missing_is_named(item: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_items([item])
    assert caught.value.field == field
    assert not isinstance(caught.value, Unsupported)


def test_calls_join_the_answer_that_they_were_part_of() -> None:
    items = read_items(
        [text("user", "When?"), text("assistant", "Let me see."), CALL, {**CALL, "call_id": "c2"},
         OUTPUT, {**OUTPUT, "call_id": "c2", "output": [{"type": "input_text", "text": "one"}]},
         {**CALL, "call_id": "c3"}]
    )  # fmt: skip
    messages = Dialogue.of("Be brief.", [], items).messages
    roles = ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert [message["role"] for message in messages] == roles
    assert messages[2]["content"] == "Let me see."
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["c1", "c2"]
    assert messages[4] == {"role": "tool", "tool_call_id": "c2", "content": "one"}
    assert messages[5]["content"] == ""


def test_a_developer_speaks_for_the_system() -> None:
    dialogue = Dialogue.of(None, [], read_items([text("developer", "Be brief.")]))
    assert dialogue.messages == [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    ("field", "own"),
    [
        ("messages[0].content", "instructions/content"),
        ("messages[1].content", "previous_response_id/content"),
        ("messages[2].tool_calls[1].arguments", "input/2/arguments"),
        ("messages[2].tool_calls", "input/0/tool_calls"),
        ("messages/3/tool_call_id", "input/3/call_id"),
        ("messages", "input"),
        ("prompt", "input"),
        ("tools[0].function.parameters", "tools/0/parameters"),
        ("response_format", "text/format"),
        ("max_tokens", "max_output_tokens"),
        ("top_k", "top_k"),
    ],
)
def test_an_error_names_the_field_as_the_client_does(field: str, own: str) -> None:
    before = read_items("Hello")
    items = read_items([text("assistant", "x"), CALL, {**CALL, "call_id": "c2"}, OUTPUT])
    error = InvalidRequest(f"{field} is wrong", field=field)
    own_field(error, Dialogue.of("Be brief.", before, items))
    assert error.field == own
    assert error.message == f"{own} is wrong"
