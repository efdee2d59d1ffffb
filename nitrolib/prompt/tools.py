"""Tool and ToolChoice: what a model may call, and whether it must; both checked once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..errors import InvalidRequest

__all__ = [
    "MAX_TOOLS",
    "MAX_TOOLS_CHARS",
    "Tool",
    "ToolChoice",
    "read_tool_choice",
    "read_tools",
]

MAX_TOOLS = 128
MAX_TOOLS_CHARS = 1 << 18  # all tools of one request together, as JSON

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}

Mode = Literal["none", "auto", "required", "named"]


@dataclass(frozen=True, slots=True)
class Tool:
    """One function that a model may call.

    name: 1 to 64 letters, digits, underscores and hyphens.
    description: what it does, for the model to read; "" for none.
    parameters: a JSON schema of its arguments, which are an object. A copy is kept.

    Raises InvalidRequest whose `field` is `name`, `description` or `parameters`.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NO_PARAMETERS, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise _refusal("name", self.name, "1 to 64 of the characters a-z, A-Z, 0-9, _ and -")
        if not isinstance(self.description, str):
            raise _refusal("description", self.description, "a string")
        object.__setattr__(self, "parameters", _schema(self.parameters))

    def as_dict(self) -> dict[str, Any]:
        """The tool as OpenAI's clients send it and as chat templates expect it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = json.loads(json.dumps(self.parameters))
        return {"type": "function", "function": function}

    @property
    def json(self) -> str:
        """`as_dict` as one line of JSON."""
        return json.dumps(self.as_dict(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the answer calls a tool: "none", "auto" (the model decides), "required" (at least
    one) or "named" (the one called `name`)."""

    mode: Mode
    name: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode) or (self.mode == "named") != (self.name is not None):
            raise _refusal("tool_choice", (self.mode, self.name), _CHOICES)

    @property
    def must_call(self) -> bool:
        """Whether the answer is a call and nothing else."""
        return self.mode in ("required", "named")

    def of(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """The tools that may be called under this choice."""
        if self.mode == "none":
            return ()
        return tuple(tool for tool in tools if self.mode != "named" or tool.name == self.name)


_CHOICES = '"none", "auto", "required", or {"type": "function", "function": {"name": a tool}}'


def check_tools(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """The tools of one request. Raises InvalidRequest where a name stands twice or they are too
    many or too long together; its `field` says where, as `tools[2].function.name`."""
    if len(tools) > MAX_TOOLS:
        raise _refusal("tools", len(tools), f"at most {MAX_TOOLS} tools")
    seen: set[str] = set()
    chars = 0
    for index, tool in enumerate(tools):
        if not isinstance(tool, Tool):
            raise _refusal(f"tools[{index}]", tool, "a Tool")
        if tool.name in seen:
            raise _refusal(
                f"tools[{index}].function.name", tool.name, "a name that no other tool has"
            )
        seen.add(tool.name)
        chars += len(tool.json)
        if chars > MAX_TOOLS_CHARS:
            raise _refusal("tools", chars, f"at most {MAX_TOOLS_CHARS} characters of JSON")
    return tuple(tools)


def read_tools(value: Any) -> tuple[Tool, ...]:
    """Tools from the list that OpenAI's clients send; None is no tools.

    Raises InvalidRequest naming the place (`tools[0].function.parameters`), also for a key that
    would have to be ignored.
    """
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise _refusal("tools", value, "a list of tools")
    if len(value) > MAX_TOOLS:  # before each of them is looked at
        raise _refusal("tools", len(value), f"at most {MAX_TOOLS} tools")
    return check_tools([_read_tool(f"tools[{index}]", one) for index, one in enumerate(value)])


def _read_tool(where: str, value: Any) -> Tool:
    _check_keys(where, value, {"type", "function"})
    if value.get("type") != "function":
        raise _refusal(f"{where}.type", value.get("type"), '"function"')
    function = value.get("function")
    where = f"{where}.function"
    _check_keys(where, function, {"name", "description", "parameters", "strict"})
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise _refusal(f"{where}.strict", strict, "true, false or null")
    given = {
        key: function[key] for key in ("description", "parameters") if function.get(key) is not None
    }
    try:
        return Tool(function.get("name"), **given)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"{where}.{error.message}",
            field=f"{where}.{error.field}",
            value=error.value,
            allowed=error.allowed,
        ) from None


def read_tool_choice(value: Any, tools: Sequence[Tool]) -> ToolChoice:
    """The choice as OpenAI's clients send it; None is "auto" where there are tools, else "none".

    Raises InvalidRequest (field `tool_choice`) for anything else, for a name that no tool has,
    and for a call that is required of no tools.
    """
    if value is None:
        return ToolChoice("auto" if tools else "none")
    choice = value if isinstance(value, ToolChoice) else _read_choice(value)
    if choice.name is not None and choice.name not in [tool.name for tool in tools]:
        names = ", ".join(tool.name for tool in tools) or "no tool at all: tools is empty"
        raise _refusal("tool_choice", choice.name, f"the name of one of the tools ({names})")
    if choice.must_call and not tools:
        raise _refusal("tool_choice", choice.mode, '"none" or "auto": tools is empty')
    return choice if tools else ToolChoice("none")


def _read_choice(value: Any) -> ToolChoice:
    if isinstance(value, str) and value in ("none", "auto", "required"):
        return ToolChoice(value)  # type: ignore[arg-type]
    if isinstance(value, Mapping) and value.get("type") == "function":
        function = value.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            return ToolChoice("named", function["name"])
    raise _refusal("tool_choice", value, _CHOICES)


def _check_keys(where: str, value: Any, known: set[str]) -> None:
    if not isinstance(value, Mapping):
        raise _refusal(where, value, "an object")
    for key in value:
        if key not in known:
            raise _refusal(f"{where}.{key}", value[key], f"the keys {', '.join(sorted(known))}")


def _schema(value: Any) -> dict[str, Any]:
    """A copy of a schema of an object, in plain data."""
    allowed = 'a JSON schema with the type "object"'
    if not isinstance(value, Mapping):
        raise _refusal("parameters", value, allowed)
    try:
        copy = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise _refusal("parameters", value, f"{allowed}, in plain JSON ({error})") from None
    if not isinstance(copy, dict) or copy.get("type", "object") != "object":
        raise _refusal("parameters", value, allowed)
    return copy


def _refusal(where: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where} must be {allowed}, got {shown(value)}", field=where, value=value, allowed=allowed
    )


def shown(value: Any) -> str:
    """A value in an error message: never long, and never an error of its own."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - deep nesting, or numbers of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."
