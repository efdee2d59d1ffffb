"""Writes golden.json: what transformers renders with every template and every case.

    PYTHONPATH=.:tests python -m support.chat_templates.make_golden

Made with transformers 5.23. The test that compares makes it anew where transformers is installed.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime
from typing import Any
from unittest import mock

from . import cases

NOW = datetime(2025, 3, 14, 15, 9, 26)  # noqa: DTZ001 - as templates get it


class FixedDate(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return NOW


def for_transformers(name: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    given = copy.deepcopy(messages)
    for message in given:
        if "tool_calls" not in message:
            continue
        if name in cases.NONE_AS_CONTENT and not message["content"]:
            message["content"] = None
        for one in message["tool_calls"]:
            if name in cases.ARGUMENTS_AS_TEXT:
                function = one["function"]
                function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return given


def rendered(name: str, case: str) -> dict[str, str]:
    from transformers.utils import chat_template_utils

    messages, with_tools, options = cases.CASES[case]
    bos, eos = cases.TOKENS[name]
    options = {"add_generation_prompt": True, "bos_token": bos, "eos_token": eos, **options}
    tools = [tool.as_dict() for tool in cases.TOOLS] if with_tools else None
    try:
        with mock.patch.object(chat_template_utils, "datetime", FixedDate):
            texts, _ = chat_template_utils.render_jinja_template(
                [for_transformers(name, messages)],
                tools=tools,
                chat_template=cases.source(name),
                **options,
            )
    except Exception as error:  # noqa: BLE001 - a template fails as it likes
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": texts[0]}


def made() -> dict[str, dict[str, dict[str, str]]]:
    return {name: {case: rendered(name, case) for case in cases.CASES} for name in cases.TOKENS}


if __name__ == "__main__":
    text = json.dumps(made(), ensure_ascii=False, indent=1)
    (cases.HERE / "golden.json").write_text(text + "\n", encoding="utf-8")
