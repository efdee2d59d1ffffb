"""Tools, the prompt of a chat, and what happens when it does not fit, over a fake engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.rest_client import HELLO, Rest

from nitrolib.validation import schema

CLOCK = {"type": "function", "function": {"name": "clock", "description": "Tells the time."}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TOOLS = [CLOCK, WEATHER]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
HISTORY: list[Any] = [
    {"role": "user", "content": "What time is it?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
]


@pytest.fixture
def rest() -> Rest:
    return Rest()


def pieces(text: str, size: int = 7) -> tuple[str, ...]:
    return tuple(text[start : start + size] for start in range(0, len(text), size))


# ---- answers -----------------------------------------------------------------------------------


def test_a_call_is_told_in_openais_shape(rest: Rest) -> None:
    rest.engine.pieces = pieces(f"Let me see. {CALL}")
    answer = rest.chat(tools=TOOLS).json
    schema("nitro", "ChatCompletion").check(answer)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"].pop("tool_calls")
    assert choice["message"] == {"role": "assistant", "content": "Let me see."}
    assert call.pop("id").startswith("call_")
    assert call == {
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }


def test_calls_without_text_have_null_for_content(rest: Rest) -> None:
    rest.engine.pieces = pieces(CALL)
    assert rest.chat(tools=TOOLS).json["choices"][0]["message"]["content"] is None


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_streamed_call_has_its_id_once_and_joins_to_the_whole_one(rest: Rest, size: int) -> None:
    rest.engine.pieces = pieces(f"Well. {CALL}\n{CALL}", size)
    events = rest.chat(tools=TOOLS, stream=True, return_tokens=True).events
    for event in events:
        schema("nitro", "ChatCompletionChunk").check(event)
    choices = [event["choices"][0] for event in events]
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert "".join(one["delta"].get("content", "") for one in choices) == "Well."
    parts = [part for one in choices for part in one["delta"].get("tool_calls", [])]
    for index in (0, 1):
        own = [part for part in parts if part["index"] == index]
        assert ["id" in part for part in own] == [True] + [False] * (len(own) - 1)
        assert own[0]["function"]["name"] == "get_weather"
        arguments = "".join(part["function"]["arguments"] for part in own)
        assert json.loads(arguments) == {"city": "Oslo"}
    assert len({part["id"] for part in parts if "id" in part}) == 2
    assert [one["delta"].get("role") for one in choices] == ["assistant"] + [None] * (
        len(choices) - 1
    )
    # Held back or not, every token is told once.
    tokens = [token for one in choices for token in one["tokens"]]
    assert tokens == list(range(len(rest.engine.pieces)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "get_weather", "arguments": [}\n</tool_call>',
        '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>',
        "<tool_call>",
        "<tool_call>{",
    ],
)
def test_garbage_is_text_and_a_note_and_never_an_error(rest: Rest, text: str, stream: bool) -> None:
    rest.engine.pieces = pieces(text)
    answer = rest.chat(tools=TOOLS, stream=stream)
    assert answer.status == 200
    if stream:
        told = "".join(one["choices"][0]["delta"].get("content", "") for one in answer.events)
        last = answer.events[-1]
    else:
        told = answer.json["choices"][0]["message"]["content"]
        last = answer.json
    assert told == text
    assert last["choices"][0]["finish_reason"] == "stop"
    assert len(last["warnings"]) == 2  # in which form the tools were shown, and what was no call


def test_a_call_that_a_limit_cut_ends_with_length(rest: Rest) -> None:
    rest.engine.pieces = pieces(CALL)
    rest.engine.finish_reason = "length"
    assert rest.chat(tools=TOOLS).json["choices"][0]["finish_reason"] == "length"


def test_choices_have_calls_of_their_own(rest: Rest) -> None:
    rest.engine.pieces = pieces(CALL)
    calls = [
        choice["message"]["tool_calls"] for choice in rest.chat(tools=TOOLS, n=2).json["choices"]
    ]
    assert [len(one) for one in calls] == [1, 1]
    assert calls[0][0]["id"] != calls[1][0]["id"]


def test_without_tools_what_looks_like_a_call_is_text(rest: Rest) -> None:
    rest.engine.pieces = pieces(CALL)
    for fields in ({}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}):
        (choice,) = rest.chat(**fields).json["choices"]
        assert choice["message"]["content"] == CALL
        assert choice["finish_reason"] == "stop"


# ---- requests ----------------------------------------------------------------------------------


def test_a_grammar_of_the_tools_goes_to_the_engine(rest: Rest) -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    for choice in ("auto", "required", named, "none"):
        assert rest.chat(tools=TOOLS, tool_choice=choice).status == 200
    auto, required, clock, none = rest.engine.requests
    assert auto.trigger.text == "<tool_call>"
    assert required.trigger is clock.trigger is none.trigger is none.constraint is None
    assert auto.constraint == required.constraint
    assert "get_weather" in required.constraint
    assert "get_weather" not in clock.constraint


def test_a_schema_of_arguments_that_cannot_be_held_is_400(rest: Rest) -> None:
    tool = json.loads(json.dumps(WEATHER))
    tool["function"]["parameters"]["properties"]["city"]["format"] = "nonsense"
    answer = rest.chat(tools=[CLOCK, tool])
    assert answer.status == 400
    error = answer.json["error"]
    assert (error["param"], error["pointer"]) == (
        "tools[1].function.parameters", "/properties/city/format",
    )  # fmt: skip


def test_results_of_calls_reach_the_prompt(rest: Rest) -> None:
    assert rest.chat(messages=HISTORY, tools=TOOLS).status == 200
    text = rest.engine.requests[0].prompt.text
    assert '{"name": "clock", "arguments": {}}' in text
    assert '{"name": "clock", "content": "noon"}' in text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools/0/function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools/0/function/name"),
        ({"tools": [CLOCK, CLOCK]}, "tools[1].function.name"),
        ({"tools": [{**CLOCK, "strict": True}]}, "tools[0].strict"),
        ({"tools": [{"type": "retrieval", "function": {"name": "x"}}]}, "tools/0/type"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ],
)  # fmt: skip
def test_wrong_tools_are_400_and_named(rest: Rest, fields: dict[str, Any], param: str) -> None:
    answer = rest.chat(**fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert rest.engine.requests == []


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([*HISTORY[:2], *HELLO], "messages[1].tool_calls"),
        (HISTORY[:2], "messages[1].tool_calls"),
        ([HISTORY[0], HISTORY[2]], "messages[1].tool_call_id"),
        ([*HISTORY, HISTORY[2]], "messages[3].tool_call_id"),
        ([*HELLO, {"role": "tool", "content": "noon"}], "messages[1].tool_call_id"),
        ([{**HISTORY[1], "role": "user"}, HISTORY[2]], "messages[0].tool_calls"),
    ],
)
def test_a_history_that_cannot_be_names_the_message(
    rest: Rest, messages: list[Any], place: str
) -> None:
    answer = rest.chat(messages=messages, tools=TOOLS)
    assert (answer.status, answer.json["error"]["param"]) == (400, place)
    assert rest.engine.requests == []


def test_arguments_in_a_history_are_json_objects(rest: Rest) -> None:
    broken = json.loads(json.dumps(HISTORY))
    broken[1]["tool_calls"][0]["function"]["arguments"] = "[1]"
    answer = rest.chat(messages=broken, tools=TOOLS)
    assert answer.status == 400
    assert answer.json["error"]["param"].startswith("messages[1].tool_calls[0]")


def test_null_fields_of_messages_are_not_reported(rest: Rest) -> None:
    """The client's own answers, sent back, carry some."""
    messages = [{"role": "assistant", "content": "Hi", "refusal": None, "tool_calls": None}, *HELLO]
    answer = rest.chat(messages=messages)
    assert answer.status == 200
    assert "x-nitro-ignored" not in answer.headers


# ---- the context -------------------------------------------------------------------------------

LONG = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "a" * 300},
    {"role": "assistant", "content": "b" * 300},
    {"role": "user", "content": "Last"},
]


def test_old_messages_are_left_out_when_asked_for_and_that_is_said(rest: Rest) -> None:
    rest.engine.room = 500
    answer = rest.chat(messages=LONG, context_policy="drop_oldest_turns")
    assert answer.json["warnings"] == ["the 2 oldest messages were left out to fit the context"]
    text = "".join(map(chr, rest.engine.requests[0].prompt))
    assert "Be brief." in text
    assert "Last" in text
    assert "aaa" not in text


def test_what_is_left_keeps_its_tools(rest: Rest) -> None:
    rest.engine.room = 1200
    fields = {"messages": LONG, "tools": TOOLS, "context_policy": "drop_oldest_turns"}
    assert rest.chat(**fields).status == 200
    assert "get_weather" in "".join(map(chr, rest.engine.requests[0].prompt))


def test_what_must_stay_and_is_too_long_is_the_messages_fault(rest: Rest) -> None:
    rest.engine.room = 50
    answer = rest.chat(messages=LONG, context_policy="drop_oldest_turns")
    assert answer.status == 400
    assert (answer.json["error"]["code"], answer.json["error"]["param"]) == (
        "context_length_exceeded", "messages",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("load", "chat", "policy"),
    [
        ({}, {}, "error"),
        ({"ctx_shift": False}, {}, "error"),
        ({"ctx_shift": True}, {}, "shift"),
        ({"ctx_shift": True}, {"context_policy": "error"}, "error"),
        ({}, {"context_policy": "shift"}, "shift"),
    ],
)
def test_a_load_may_choose_what_happens_when_the_context_is_full(
    load: dict[str, Any], chat: dict[str, Any], policy: str
) -> None:
    rest = Rest(loaded=False)
    assert "warnings" not in rest.load(**load).json
    rest.chat(**chat)
    assert rest.engine.requests[0].context_policy == policy


def test_an_unknown_policy_is_400(rest: Rest) -> None:
    answer = rest.chat(context_policy="middle_out")
    assert (answer.status, answer.json["error"]["param"]) == (400, "context_policy")


# ---- /apply-template ---------------------------------------------------------------------------


def test_the_prompt_of_a_chat_is_shown(rest: Rest) -> None:
    for fields in ({}, {"tools": TOOLS}, {"messages": HISTORY}):
        shown = rest.post("/apply-template", {"messages": HELLO, **fields})
        assert shown.status == 200
        schema("nitro", "Prompt").check(shown.json)
        assert rest.engine.requests == []
        rest.chat(**fields)
        assert shown.json == {"prompt": rest.engine.requests.pop().prompt.text}


def test_showing_a_prompt_checks_the_body_and_needs_a_model(rest: Rest) -> None:
    wrong = rest.post("/apply-template", {"messages": HELLO, "temperature": 9})
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "temperature")
    empty = Rest(loaded=False).post("/apply-template", {"messages": HELLO})
    assert empty.status == 409
    ignored = rest.post("/Apply-Template", {"messages": HELLO, "what": 1})
    assert ignored.headers["x-nitro-ignored"] == "what"
