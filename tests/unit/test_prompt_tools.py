"""Tools and tool choices: what is taken, and what is refused with its place named."""

from __future__ import annotations

import json

import pytest

from nitrolib.errors import InvalidRequest
from nitrolib.prompt import Tool, ToolChoice, read_tool_choice, read_tools
from nitrolib.prompt.tools import MAX_TOOLS, MAX_TOOLS_CHARS, check_tools

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def function(**changes) -> dict:
    return {"type": "function", "function": {"name": "f", "parameters": SCHEMA, **changes}}


def test_tools_are_read_as_clients_send_them_and_given_back_the_same():
    sent = [function(), function(name="g", description="é <b>", strict=True)]
    tools = read_tools(sent)
    assert [tool.name for tool in tools] == ["f", "g"]
    del sent[1]["function"]["strict"]
    sent[1]["function"] = {"name": "g", "description": "é <b>", "parameters": SCHEMA}
    assert [tool.as_dict() for tool in tools] == sent
    assert [json.loads(tool.json) for tool in tools] == sent
    assert "é <b>" in tools[1].json


def test_no_tools_and_a_tool_without_parameters():
    assert read_tools(None) == read_tools([]) == ()
    (tool,) = read_tools([{"type": "function", "function": {"name": "f", "parameters": None}}])
    assert tool.parameters == {"type": "object", "properties": {}}


def test_a_tool_keeps_a_copy_of_its_schema():
    schema = {"type": "object", "properties": {}}
    tool = Tool("f", "", schema)
    schema["properties"]["x"] = 1
    tool.as_dict()["function"]["parameters"]["properties"]["y"] = 1
    assert tool.parameters == {"type": "object", "properties": {}}
    assert hash(tool) == hash(Tool("f"))


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ({}, "tools"),
        ("f", "tools"),
        ([1], "tools[0]"),
        ([function(), 1], "tools[1]"),
        ([{"type": "retrieval"}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "function": {}, "x": 1}], "tools[0].x"),
        ([function(name="")], "tools[0].function.name"),
        ([function(name="a b")], "tools[0].function.name"),
        ([function(name="f\n")], "tools[0].function.name"),
        ([function(name="é")], "tools[0].function.name"),
        ([function(name="x" * 65)], "tools[0].function.name"),
        ([function(name=None)], "tools[0].function.name"),
        ([function(), function()], "tools[1].function.name"),
        ([function(description=1)], "tools[0].function.description"),
        ([function(strict="yes")], "tools[0].function.strict"),
        ([function(returns={})], "tools[0].function.returns"),
        ([function(parameters=[])], "tools[0].function.parameters"),
        ([function(parameters=True)], "tools[0].function.parameters"),
        ([function(parameters={"type": "string"})], "tools[0].function.parameters"),
        ([function(parameters={"default": float("nan")})], "tools[0].function.parameters"),
        ([function(parameters={"default": {1}})], "tools[0].function.parameters"),
        ([function(name=f"f{n}") for n in range(MAX_TOOLS + 1)], "tools"),
        ([function(description="x" * MAX_TOOLS_CHARS)], "tools"),
    ],
)
def test_bad_tools_are_refused_where_they_stand(tools, field: str):
    with pytest.raises(InvalidRequest) as error:
        read_tools(tools)
    assert error.value.field == field
    assert error.value.allowed in error.value.message
    assert len(error.value.message) < 1000


def test_a_schema_that_nests_without_end_is_refused():
    schema: dict = {}
    for _ in range(100_000):
        schema = {"not": schema}
    with pytest.raises(InvalidRequest) as error:
        Tool("f", "", schema)
    assert error.value.field == "parameters"


def test_only_tools_are_tools():
    with pytest.raises(InvalidRequest) as error:
        check_tools([Tool("f"), {"name": "g"}])
    assert error.value.field == "tools[1]"


F = (Tool("f"), Tool("g"))


@pytest.mark.parametrize(
    ("value", "tools", "choice"),
    [
        (None, (), ToolChoice("none")),
        (None, F, ToolChoice("auto")),
        ("none", F, ToolChoice("none")),
        ("auto", F, ToolChoice("auto")),
        ("auto", (), ToolChoice("none")),
        ("required", F, ToolChoice("required")),
        ({"type": "function", "function": {"name": "g"}}, F, ToolChoice("named", "g")),
        (ToolChoice("named", "g"), F, ToolChoice("named", "g")),
    ],
)
def test_choices_are_read_as_clients_send_them(value, tools, choice):
    assert read_tool_choice(value, tools) == choice


@pytest.mark.parametrize(
    ("value", "tools"),
    [
        ("any", F),
        (1, F),
        ([], F),
        ("required", ()),
        ({"type": "function", "function": {"name": "h"}}, F),
        ({"type": "function", "function": {"name": "f"}}, ()),
        ({"type": "function", "function": {}}, F),
        ({"type": "function"}, F),
        ({"name": "f"}, F),
        (ToolChoice("named", "h"), F),
    ],
)
def test_choices_that_cannot_be_kept_are_refused(value, tools):
    with pytest.raises(InvalidRequest) as error:
        read_tool_choice(value, tools)
    assert error.value.field == "tool_choice"


@pytest.mark.parametrize(("mode", "name"), [("any", None), ("named", None), ("auto", "f")])
def test_a_choice_is_one_of_four(mode, name):
    with pytest.raises(InvalidRequest):
        ToolChoice(mode, name)


def test_what_may_be_called_under_a_choice():
    assert ToolChoice("none").of(F) == ()
    assert ToolChoice("auto").of(F) == ToolChoice("required").of(F) == F
    assert ToolChoice("named", "g").of(F) == F[1:]
    assert [ToolChoice(mode).must_call for mode in ("none", "auto", "required")] == [0, 0, 1]
