"""The output of a response: items and events from the deltas of an answer, in every cutting."""

from __future__ import annotations

from typing import Any

import pytest

from nitrolib.adapters.rest.openai.output import Output
from nitrolib.engine.request import TokenProb, TokenProbs

Deltas = list[dict[str, Any]]


def text(words: str) -> dict[str, Any]:
    return {"content": words}


def call(name: str, index: int = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": ""}
    part = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
    return {"tool_calls": [part]}


def more(arguments: str, index: int = 0) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


def step(words: str) -> TokenProbs:
    top = (TokenProb(7, b"a\xc3", -0.5, None), TokenProb(8, b"b", -1.5, None))
    return TokenProbs(id=7, text=words, logprob=-0.5, top=top)


def run(deltas: Deltas, *, whole: bool = True) -> tuple[list[dict[str, Any]], Output]:
    output = Output(None)
    events = [event for delta in deltas for event in output.feed(delta)]
    events += output.finish(whole=whole)
    return events, output


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


MESSAGE = ["output_item.added", "content_part.added"]
MESSAGE_DONE = ["output_text.done", "content_part.done", "output_item.done"]
CALL_DONE = ["function_call_arguments.done", "output_item.done"]


def test_a_text_is_one_message_with_one_part() -> None:
    events, output = run([text("Hel"), text("lo")])
    deltas = ["output_text.delta"] * 2
    assert kinds(events) == [*MESSAGE, *deltas, *MESSAGE_DONE]
    (item,) = output.items
    assert item["content"][0]["text"] == "Hello"
    assert item["status"] == "completed"
    assert {event.get("item_id", item["id"]) for event in events} == {item["id"]}


def test_an_event_is_not_changed_by_those_after_it() -> None:
    events, _ = run([text("Hel"), text("lo")])
    assert events[0]["item"]["status"] == "in_progress"
    assert events[0]["item"]["content"] == []
    assert events[1]["part"]["text"] == ""
    assert events[-1]["item"]["content"][0]["text"] == "Hello"


def test_calls_follow_the_text_as_items_of_their_own() -> None:
    events, output = run(
        [text("Well."), call("a"), more('{"x":'), more("1}"), call("b", 1), more("{}", 1)]
    )
    delta = "function_call_arguments.delta"
    assert kinds(events) == [
        *MESSAGE, "output_text.delta", *MESSAGE_DONE,
        "output_item.added", delta, delta, *CALL_DONE,
        "output_item.added", delta, *CALL_DONE,
    ]  # fmt: skip
    assert [item["type"] for item in output.items] == ["message", *["function_call"] * 2]
    assert [item.get("arguments") for item in output.items] == [None, '{"x":1}', "{}"]
    assert [item.get("call_id") for item in output.items] == [None, "call_0", "call_1"]
    done = [event for event in events if event["type"].endswith("arguments.done")]
    assert [(one["output_index"], one["name"]) for one in done] == [(1, "a"), (2, "b")]


def test_text_after_a_call_is_a_message_of_its_own() -> None:
    _, output = run([call("a"), more("{}"), text("Done.")])
    assert [item["type"] for item in output.items] == ["function_call", "message"]


def test_an_answer_without_anything_is_an_empty_message() -> None:
    events, output = run([])
    assert kinds(events) == [*MESSAGE, *MESSAGE_DONE]
    assert output.items[0]["content"][0]["text"] == ""


@pytest.mark.parametrize("deltas", [[text("Hel")], [call("a"), more("{")]])
def test_what_is_cut_is_incomplete(deltas: Deltas) -> None:
    events, output = run(deltas, whole=False)
    assert output.items[-1]["status"] == "incomplete"
    assert events[-1]["item"]["status"] == "incomplete"


def test_what_was_ended_before_the_cut_is_complete() -> None:
    _, output = run([call("a"), more("{}"), call("b", 1), more("{", 1)], whole=False)
    assert [item["status"] for item in output.items] == ["completed", "incomplete"]


@pytest.mark.parametrize(
    "deltas",
    [
        [text("a"), text("bc")],
        [text("abc")],
        [text("a"), call("f"), more("{"), more("}"), text("b")],
        [call("f"), more("{}"), call("g", 1), more("{}", 1)],
        [],
    ],
)
def test_the_events_tell_the_whole_output(deltas: Deltas) -> None:
    """What a client gathers is what the response has: from the deltas, and from the ends."""
    events, output = run(deltas)
    gathered: list[str] = []
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(gathered)
            gathered.append("")
        elif event["type"].endswith(".delta"):
            gathered[event["output_index"]] += event["delta"]
    ended = [event["item"] for event in events if event["type"].endswith("item.done")]
    assert ended == output.items
    own = [
        item["arguments"] if "arguments" in item else item["content"][0]["text"]
        for item in output.items
    ]
    assert gathered == own


def test_log_probabilities_go_with_the_text_they_made() -> None:
    output = Output(1)
    events = list(output.feed(text("Hel"), [step("Hel")]))
    events += output.feed(text("lo"), [step("l"), step("o")])
    events += output.finish(whole=True)
    deltas = [event for event in events if event["type"].endswith("text.delta")]
    assert [[one["token"] for one in event["logprobs"]] for event in deltas] == [
        ["Hel"],
        ["l", "o"],
    ]
    part = output.items[0]["content"][0]
    assert "".join(one["token"] for one in part["logprobs"]) == part["text"]
    (top,) = part["logprobs"][0]["top_logprobs"]
    assert (top["token"], top["bytes"], top["logprob"]) == ("a", [0x61, 0xC3], -0.5)
    (done,) = [event for event in events if event["type"].endswith("text.done")]
    assert done["logprobs"] == part["logprobs"]


def test_without_being_asked_for_there_are_none() -> None:
    output = Output(None)
    list(output.feed(text("x"), [step("x")]))
    assert output.items[0]["content"][0]["logprobs"] == []
