"""Conversations that every family's template is rendered with, as the dicts that transformers
takes; and the same as nitrolib's messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nitrolib.prompt import Message, Tool, ToolCall

HERE = Path(__file__).parent

# The BOS and EOS of each family; the templates stand beside this file, NAME.jinja.
TOKENS = {
    "chatml": ("", "<|im_end|>"),
    "command-r": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gemma-2": ("<bos>", "<eos>"),
    "gemma-3": ("<bos>", "<eos>"),
    "granite-3": ("<|end_of_text|>", "<|end_of_text|>"),
    "llama-2": ("<s>", "</s>"),
    "llama-3.1": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral-small": ("<s>", "</s>"),
    "mistral-v1": ("<s>", "</s>"),
    "mistral-v3": ("<s>", "</s>"),
    "phi-3": ("<s>", "<|endoftext|>"),
    "phi-4": ("<|endoftext|>", "<|im_end|>"),
    "phi-4-mini": ("<|endoftext|>", "<|endoftext|>"),
    "qwen2.5": ("", "<|im_end|>"),
    "qwen3": ("", "<|im_end|>"),
    "smollm2": ("<|im_start|>", "<|im_end|>"),
    "tinyllama": ("<s>", "</s>"),
    "vicuna": ("<s>", "</s>"),
    "zephyr": ("<s>", "</s>"),
}
# Templates that are given arguments as text, and None for the content of a message with calls.
ARGUMENTS_AS_TEXT = frozenset(("deepseek-r1",))
NONE_AS_CONTENT = frozenset(("deepseek-r1",))

WEATHER = Tool(
    "get_weather",
    'Weather at a place, "now" & <today>: 24 °C, say.',
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "The city's name"},
            "unit": {"type": "string", "enum": ["C", "F"]},
        },
        "required": ["city"],
    },
)
CLOCK = Tool("clock", "", {"type": "object", "properties": {}})
TOOLS = (WEATHER, CLOCK)

SYSTEM = {"role": "system", "content": " Be brief. "}
ASK = {"role": "user", "content": " What's <up>\n in Zürich? </s> 你好 "}
SAY = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nNothing. "}
MORE = {"role": "user", "content": 'And "in" Łódź?'}


def call(number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"abcdef{number:03}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def result(number: int, content: str) -> dict[str, Any]:
    return {"role": "tool", "name": "x", "content": content, "tool_call_id": f"abcdef{number:03}"}


ONE = {"role": "assistant", "content": "", "tool_calls": [call(1, "get_weather", {"city": "Łódź"})]}
TWO = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        call(1, "get_weather", {"city": 'A"b\\', "unit": "C", "deep": [1, 2.5, None, True]}),
        call(2, "clock", {}),
    ],
}
SPOKEN = {**ONE, "content": "Let me see."}
NO_PROMPT = {"add_generation_prompt": False}
CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}

# name -> (messages, whether tools are given, other arguments)
CASES: dict[str, tuple[list[dict[str, Any]], bool, dict[str, Any]]] = {
    "one turn": ([ASK], False, {}),
    "system": ([SYSTEM, ASK], False, {}),
    "turns": ([ASK, SAY, MORE], False, {}),
    "system and turns": ([SYSTEM, ASK, SAY, MORE], False, {}),
    "no generation prompt": ([SYSTEM, ASK, SAY], False, NO_PROMPT),
    "continued": ([ASK, {"role": "assistant", "content": "The sun"}], False, CONTINUED),
    "continued after a space": ([ASK, {"role": "assistant", "content": "The "}], False, CONTINUED),
    "wrong order": ([ASK, MORE], False, {}),
    "empty": ([{"role": "user", "content": ""}], False, {}),
    "odd role": ([ASK, {"role": "narrator", "content": "Meanwhile"}], False, {}),
    "tools": ([ASK], True, {}),
    "tools and system": ([SYSTEM, ASK, SAY, MORE], True, {}),
    "one call": ([ASK, ONE, result(1, "24 °C")], True, {}),
    "one call with words": ([SYSTEM, ASK, SPOKEN, result(1, '{"t": 24}')], True, {}),
    "two calls": ([ASK, TWO, result(1, "24 °C"), result(2, "noon")], True, {}),
    "call and answer": ([ASK, ONE, result(1, "24 °C"), SAY, MORE], True, {}),
    "no thinking": ([ASK], False, {"enable_thinking": False}),
    "documents": ([ASK], False, {"documents": [{"title": "T", "text": "A <doc>."}]}),
    "other variables": (
        [ASK],
        True,
        {"in_user_turn": False, "today": "1 May 2025", "controls": {"length": "short"}},
    ),
}  # fmt: skip


def source(name: str) -> str:
    return (HERE / f"{name}.jinja").read_text(encoding="utf-8")


def golden() -> dict[str, dict[str, dict[str, str]]]:
    """What transformers rendered: template -> case -> {"text"} or {"error"}."""
    text = (HERE / "golden.json").read_text(encoding="utf-8")
    result: dict[str, dict[str, dict[str, str]]] = json.loads(text)
    return result


def as_message(data: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(
            one["id"],
            one["function"]["name"],
            json.dumps(one["function"]["arguments"], ensure_ascii=False),
        )
        for one in data.get("tool_calls", ())
    )
    return Message(data["role"], data["content"], data.get("name"), calls, data.get("tool_call_id"))
