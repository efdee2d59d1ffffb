"""The prompt of a chat: messages and tools of a body become a plan for a template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nitrolib.errors import InvalidRequest, Unsupported
from nitrolib.validation import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nitrolib.engine import Engine
    from nitrolib.prompt import (
        ChatPlan,
        ChatTemplate,
        Message,
        Prompt,
        PromptTemplate,
        Tool,
        ToolCall,
    )

__all__ = ["Conversation", "messages"]


class Conversation:
    """Messages, tools and what is asked of them. It is a template itself, so that an engine which
    leaves out old messages renders what is left with the same tools.

    Raises InvalidRequest naming the place for tools, choices and histories that cannot be, and
    ModelNotLoaded where tools need a model's vocabulary.
    """

    def __init__(
        self,
        body: Mapping[str, Any],
        template: PromptTemplate | ChatTemplate,
        engine: Engine,
    ) -> None:
        from nitrolib.prompt import read_tools

        self.messages = messages(body["messages"])
        self._template = template
        self._tools: tuple[Tool, ...] = read_tools(body.get("tools"))
        self._choice = body.get("tool_choice")
        self._parallel = body.get("parallel_tool_calls", True)
        self._vocabulary = engine.vocabulary if self._tools else None
        self.plan = self._plan(self.messages)

    @property
    def stops(self) -> tuple[str, ...]:
        return self._template.stops

    def render(self, turns: Sequence[Message]) -> Prompt:
        return self.plan.prompt if turns == self.messages else self._plan(turns).prompt

    def _plan(self, turns: Sequence[Message]) -> ChatPlan:
        from nitrolib.prompt import prepare_chat
        from nitrolib.sampling.constraint import json_rule

        return prepare_chat(
            self._template,
            turns,
            self._tools,
            self._choice,
            self._parallel,
            self._vocabulary,
            json_rule=json_rule,
        )


def messages(items: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages of a body that is checked against its schema."""
    from nitrolib.prompt import Message

    return [
        Message(
            item.get("role") or "",
            _content(item.get("content"), f"messages/{index}/content"),
            tool_calls=tuple(map(_call, item.get("tool_calls") or ())),
            tool_call_id=item.get("tool_call_id"),
        )
        for index, item in enumerate(items)
    ]


def _call(item: Mapping[str, Any]) -> ToolCall:
    from nitrolib.prompt import ToolCall

    function = item["function"]
    return ToolCall(item["id"], function["name"], function["arguments"])


def _content(content: Any, field: str) -> str:
    """Content of a message as text: null is empty, text parts are joined as they are."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(_part(part, f"{field}/{index}") for index, part in enumerate(content))


def _part(part: Mapping[str, Any], field: str) -> str:
    if part["type"] != "text":
        kind = part["type"]
        raise Unsupported(
            f"{field} has type {shorten(kind)}, and only text parts are supported",
            field=f"{field}/type",
            value=shorten(kind),
            allowed="text",
        )
    if "text" not in part:
        raise InvalidRequest(f"{field}/text is required", field=f"{field}/text", allowed="a text")
    return str(part["text"])
