"""Whatever an answer's text and its cuts: the deltas of a stream join to the whole message."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.rest_client import Rest

from nitrolib.adapters.rest.chat.details import select
from nitrolib.adapters.rest.chat.message import MessageReader
from nitrolib.prompt import Message, PromptTemplate, Tool, prepare_chat
from nitrolib.validation import schema

PLAN = prepare_chat(PromptTemplate(), [Message("user", "x")], [Tool("clock"), Tool("feed")])
CALLS = [
    "<tool_call>",
    "</tool_call>",
    '{"name": "clock", "arguments": {}}',
    '<tool_call>\n{"name": "feed", "arguments": {"a": "}"}}\n</tool_call>',
    '{"name": "rm"',
    "\n",
    " ",
    "Hello",
    "<tool",
    "é😀",
]
TEXTS = st.lists(st.sampled_from(CALLS) | st.text(max_size=4), max_size=8).map("".join)


def joined(deltas: list[dict[str, Any]]) -> tuple[str, list[list[str]]]:
    """The text of deltas, and of each call its name and arguments."""
    text, calls = "", []
    for delta in deltas:
        text += delta.get("content", "")
        for part in delta.get("tool_calls", []):
            if "id" in part:
                assert part["index"] == len(calls)
                calls.append([part["function"]["name"], ""])
            calls[part["index"]][1] += part["function"]["arguments"]
    return text, calls


@settings(max_examples=500, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 60)), st.booleans())
def test_deltas_join_to_the_whole_message(text: str, cuts: list[int], tools: bool) -> None:
    def reader() -> MessageReader:
        return MessageReader(PLAN.parser() if tools else None)

    marks = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    streamed = reader()
    deltas = [delta for start, end in pairwise(marks) for delta in streamed.feed(text[start:end])]
    deltas += streamed.finish()
    whole = reader().whole(text)
    found, calls = joined(deltas)
    assert found == (whole["content"] or "")
    assert calls == [
        [call["function"]["name"], call["function"]["arguments"]]
        for call in whole.get("tool_calls", [])
    ]
    assert streamed.called is bool(calls)
    assert all(delta != {"content": ""} for delta in deltas)
    if not tools:
        assert found == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "0"]), JSON), st.lists(st.text("ab0/", max_size=5))
)
def test_a_selection_has_what_its_paths_lead_to_and_nothing_else(
    answer: dict[str, Any], paths: list[str]
) -> None:
    found = select(answer, paths)
    assert found.keys() <= set(paths)
    for path, value in found.items():
        at: Any = answer
        for name in path.split("/"):
            at = at[name] if isinstance(at, dict) else at[int(name)]
        assert at is value
    assert select(answer, list(answer)) == {k: v for k, v in answer.items() if "/" not in k}
    json.dumps(found)


CHAT = schema("nitro", "ChatCompletionRequest")
NUMBERS = st.sampled_from([-2, -1, 0, 0.5, 1, 2, 5.0, 1e30, 2**31, -(2**63), 2**64])
WORDS = st.sampled_from(["", "a", "auto", "required", "none", "json_object", "shift", "kpt", "0"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "function", "name", "schema", "json_schema", "id", "5", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
REST = Rest()


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(CHAT.properties - {"messages"})), VALUES, max_size=4))
def test_no_fields_of_a_chat_are_an_error_of_the_server(fields: dict[str, Any]) -> None:
    answer = REST.chat(**fields)
    assert answer.status in (200, 400), answer.data
    if answer.status == 400:
        assert answer.json["error"]["param"]
    REST.engine.requests.clear()
    REST.engine.generations.clear()


CALL = st.fixed_dictionaries(
    {"id": st.sampled_from(["1", "2", ""]), "type": st.just("function")},
    optional={
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["clock", "", "x"])},
            optional={"arguments": st.sampled_from(["{}", "[]", "{", ""])},
        )
    },
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "x", None])},
    optional={
        "content": st.sampled_from(["a", "", None, [], [{"type": "text", "text": "b"}], 5]),
        "tool_calls": st.none() | st.lists(CALL, max_size=2),
        "tool_call_id": st.sampled_from(["1", "2", "", None]),
    },
)
TOOLS = [{"type": "function", "function": {"name": "clock"}}]


@settings(max_examples=500, deadline=None)
@given(st.lists(MESSAGE, max_size=5), st.sampled_from(["error", "drop_oldest_turns"]))
def test_no_history_is_an_error_of_the_server(messages: list[Any], policy: str) -> None:
    answer = REST.post("/v1/chat/completions", {
        "messages": messages, "tools": TOOLS, "context_policy": policy
    })  # fmt: skip
    assert answer.status in (200, 400), answer.data
    if answer.status == 400:
        assert answer.json["error"]["param"].startswith("messages")
    REST.engine.requests.clear()
    REST.engine.generations.clear()
