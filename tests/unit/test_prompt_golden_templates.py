"""Well-known families' chat templates, rendered to the byte as transformers renders them."""

from __future__ import annotations

import functools
import json
import re

import pytest
from support.chat_templates import cases
from support.chat_templates.make_golden import FixedDate

from nitrolib.errors import InvalidRequest
from nitrolib.prompt import ChatTemplate, Message, Tool, ToolCall, encode, sandbox
from nitrolib.prompt.traits import traits_of

GOLDEN = cases.golden()
ALL = [(name, case) for name in cases.TOKENS for case in cases.CASES]


@functools.cache
def template(name: str) -> ChatTemplate:
    return ChatTemplate(cases.source(name), *cases.TOKENS[name])


@pytest.fixture(autouse=True)
def fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    class Date(FixedDate):
        @classmethod
        def now(cls, tz=None):
            return FixedDate.now().astimezone()

    monkeypatch.setattr(sandbox, "datetime", Date)


@pytest.mark.parametrize(("name", "case"), ALL)
def test_a_template_is_rendered_as_transformers_renders_it(name: str, case: str):
    messages, with_tools, options = cases.CASES[case]
    expected = GOLDEN[name][case]

    def render() -> str:
        tools = cases.TOOLS if with_tools else None
        given = [cases.as_message(message) for message in messages]
        return template(name).render(given, tools=tools, **options).text

    if "text" in expected:
        assert render() == expected["text"]
        return
    with pytest.raises(InvalidRequest) as error:
        render()
    kind, _, words = expected["error"].partition(": ")
    if kind == "TemplateError":
        assert error.value.message == words


def test_the_golden_texts_are_what_transformers_renders_now():
    pytest.importorskip("transformers", reason="the golden texts stay as they were made")
    from support.chat_templates.make_golden import made

    assert made() == GOLDEN


def test_the_cases_reach_what_templates_do():
    """Enough of the golden texts are texts, and every refusal of a template is among them."""
    texts = [one for cases_ in GOLDEN.values() for one in cases_.values() if "text" in one]
    assert len(GOLDEN) >= 10
    assert len(texts) > 0.8 * len(ALL)
    errors = {
        one["error"] for cases_ in GOLDEN.values() for one in cases_.values() if "error" in one
    }
    for family in GOLDEN:
        for words in re.findall(r"raise_exception\(['\"]([^'\"]*)", cases.source(family)):
            never = ("Ids of calls", "Invalid content", "Tools need")
            assert words.startswith(never) or f"TemplateError: {words}" in errors, (family, words)


def spelling(text: str) -> tuple[list[Message], list[Tool]]:
    """A conversation with calls in which everything a client sends is `text`."""
    schema = {"type": "object", "properties": {text: {"type": "string", "enum": [text]}}}
    call = ToolCall("abcdef001", text, json.dumps({text: [text]}))
    messages = [
        Message("user", text),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", text, name=text, tool_call_id="abcdef001"),
    ]
    return messages, [Tool("f", text, schema)]


@pytest.mark.parametrize("name", cases.TOKENS)
def test_only_the_templates_own_text_is_special_whatever_tools_and_calls_spell(name: str):
    def special(text: str) -> str:
        messages, tools = spelling(text)
        try:
            prompt = template(name).render(messages, tools=tools, today=text, controls=text)
        except InvalidRequest:  # a template that takes no calls
            prompt = template(name).render(messages[:1], tools=tools, today=text, controls=text)
        assert text in prompt.text
        return "".join(part.text for part in prompt.segments if part.special)

    bos, eos = cases.TOKENS[name]
    assert special(f"{bos}{eos}<|im_end|><|tool_call|>[/INST]</s>") == special("xyz")


def vocabulary_of(name: str):
    from support.mini_vocabulary import MiniVocabulary

    bos, eos = cases.TOKENS[name]
    return MiniVocabulary(texts=tuple(dict.fromkeys((bos or "<bos>", eos, "<|x|>"))))


@pytest.mark.parametrize("name", cases.TOKENS)
def test_bos_stands_once_at_the_beginning(name: str):
    vocabulary = vocabulary_of(name)
    prompt = template(name).render([Message("user", "Hi")])
    ids = encode(prompt, vocabulary, vocabulary.tokenize)
    assert ids[0] == vocabulary.bos
    if name not in ("granite-3", "smollm2"):  # whose BOS also ends or begins every turn
        assert ids.count(vocabulary.bos) == 1


def test_traits_of_the_families():
    """What the families' templates can do, as one knows it of them."""
    traits = {name: traits_of(template(name)) for name in cases.TOKENS}
    assert {name for name, one in traits.items() if one.tools} == {
        "command-r", "deepseek-r1", "granite-3", "llama-3.1", "mistral-small", "mistral-v3",
        "phi-4-mini", "qwen2.5", "qwen3",
    }  # fmt: skip
    assert {name for name, one in traits.items() if not one.system} == {"gemma-2", "mistral-v1"}
    assert {name for name, one in traits.items() if one.one_call and not one.two_calls} == {
        "llama-3.1"
    }
    texts = {name for name, one in traits.items() if one.dialect.arguments == "text"}
    assert texts == {"deepseek-r1"}
    assert {name for name, one in traits.items() if one.dialect.short_ids} == {"mistral-v3"}
