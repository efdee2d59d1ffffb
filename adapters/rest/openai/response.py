"""The response object of the Responses API: what was asked, how it went, and what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..ids import random_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nitrolib.engine.request import Usage

__all__ = ["ResponseForm", "usage_of"]

# Fields that the response shows as they were given.
_SHOWN = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "user",
)
# What is never otherwise here: anything else was refused.
_FIXED = {
    "background": False,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseForm:
    """What is the same in every state of one response.

    settings: the checked body with its defaults.
    """

    model: str
    settings: Mapping[str, Any]
    id: str = field(default_factory=lambda: f"resp_{random_id(24)}")
    created_at: int = field(default_factory=lambda: int(time.time()))

    def shown(
        self, status: str, output: Sequence[Mapping[str, Any]] = (), **more: Any
    ) -> dict[str, Any]:
        """The response in *status* with what it has so far; *more* replaces the nulls of `error`,
        `incomplete_details` and `usage`, or adds `warnings`."""
        asked = self.settings
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            **_FIXED,
            **{name: asked.get(name) for name in _SHOWN},
            "metadata": dict(asked.get("metadata") or {}),
            "model": self.model,
            "output": list(output),
            "parallel_tool_calls": asked["parallel_tool_calls"],
            "store": asked["store"],
            "temperature": asked["temperature"],
            "text": _text(asked),
            "tool_choice": asked.get("tool_choice", "auto"),
            "tools": list(map(_tool, asked["tools"])),
            "top_logprobs": asked.get("top_logprobs", 0),
            "top_p": asked["top_p"],
            "truncation": asked["truncation"],
            "usage": None,
            **more,
        }


def usage_of(usage: Usage) -> dict[str, Any]:
    """`usage` of a response."""
    evaluated = usage.prompt_tokens - usage.cached_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": evaluated,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


def _text(asked: Mapping[str, Any]) -> dict[str, Any]:
    form = (asked.get("text") or {}).get("format") or {"type": "text"}
    return {"format": form, "verbosity": "medium"}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": None, "parameters": None, "strict": True, **tool}
