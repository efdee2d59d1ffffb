"""prepare_chat: tools for any template, natively or in plain text."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from support.chat_templates import cases
from support.mini_vocabulary import MiniVocabulary

from nitrolib.errors import InvalidRequest, ModelFileError, Unsupported
from nitrolib.prompt import (
    ChatTemplate,
    Message,
    PromptTemplate,
    Tool,
    ToolCall,
    ToolChoice,
    Trigger,
    budget,
    encode,
    joined,
    prepare_chat,
)
from nitrolib.prompt.call_syntax import HERMES, KNOWN
from nitrolib.prompt.generic_tools import instructions

ROOT = Path(__file__).parents[2]

TOOLS = (
    Tool("get_weather", "Weather.", {"type": "object", "properties": {"city": {"type": "string"}}}),
    Tool("clock"),
)
ASK = Message("user", "What is it like?")
CALLS = (
    ToolCall("call_1", "get_weather", '{"city": "Łódź"}'),
    ToolCall("call_2", "clock", "{}"),
)
HISTORY = [
    ASK,
    Message("assistant", "Let me see.", tool_calls=CALLS),
    Message("tool", "24 °C", tool_call_id="call_1"),
    Message("tool", "noon", tool_call_id="call_2"),
]
NATIVE = {
    "command-r": "command-r",
    "deepseek-r1": "deepseek",
    "granite-3": "granite",
    "llama-3.1": "llama-3",
    "mistral-small": "mistral-args",
    "mistral-v3": "mistral",
    "phi-4-mini": "phi-4",
    "qwen2.5": "hermes",
    "qwen3": "hermes",
}
GENERIC = sorted(set(cases.TOKENS) - set(NATIVE))


def family(name: str) -> ChatTemplate:
    return ChatTemplate(cases.source(name), *cases.TOKENS[name])


def template(name: str) -> ChatTemplate | PromptTemplate:
    return PromptTemplate() if name == "prompt template" else family(name)


@pytest.mark.parametrize("name", NATIVE)
def test_a_template_that_knows_tools_gets_them_as_they_are(name: str):
    plan = prepare_chat(family(name), [ASK], TOOLS)
    assert plan.prompt == family(name).render([ASK], tools=TOOLS)
    assert plan.native
    assert plan.format is not None
    assert (plan.format.name, plan.format.many) == (NATIVE[name], name != "llama-3.1")
    assert plan.many == plan.format.many
    assert plan.names == ("get_weather", "clock")
    assert "get_weather" in plan.prompt.text
    assert plan.notes == ()


@pytest.mark.parametrize("name", [*GENERIC, "prompt template"])
def test_any_other_template_gets_them_in_plain_text(name: str):
    plan = prepare_chat(template(name), [ASK], TOOLS)
    assert (plan.format, plan.native) == (HERMES, False)
    assert all(tool.json in plan.prompt.text for tool in TOOLS)
    assert ASK.content in plan.prompt.text
    assert "in plain text" in plan.notes[0]


@pytest.mark.parametrize("name", [*GENERIC, "prompt template"])
def test_any_other_template_shows_calls_and_results_in_plain_text(name: str):
    for choice in ("auto", "none"):
        told = [*HISTORY, Message("user", "And now?")]
        text = prepare_chat(template(name), told, TOOLS, choice).prompt.text
        answer = text[text.index("Let me see.") :]
        assert '\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Łódź"}}\n' in answer
        assert '<tool_response>\n{"name": "get_weather", "content": "24 °C"}\n' in answer
        assert '<tool_response>\n{"name": "clock", "content": "noon"}\n' in answer
        assert answer.index("noon") < answer.index("And now?")
        assert ("<tools>" in text) == (choice == "auto")


def test_the_generic_form_to_the_letter():
    """As docs/tools.md describes it."""
    messages = [Message("system", "Be brief."), *HISTORY, Message("user", "So?")]
    plan = prepare_chat(family("chatml"), messages, TOOLS[1:], parallel=False)
    assert plan.prompt.text == (
        "<|im_start|>system\n"
        "Be brief.\n"
        "\n"
        "You can call tools. Each line here describes one, with a JSON schema of its arguments:\n"
        "<tools>\n"
        '{"type": "function", "function": {"name": "clock", "parameters": '
        '{"type": "object", "properties": {}}}}\n'
        "</tools>\n"
        "To call a tool, write a block of exactly this form, with the tool's name and arguments:\n"
        "<tool_call>\n"
        '{"name": "a name", "arguments": {"an argument": "its value"}}\n'
        "</tool_call>\n"
        "Make one call at most.\n"
        "What a tool answers comes back as <tool_response>. "
        "If none of them helps, answer in plain words.<|im_end|>\n"
        "<|im_start|>user\n"
        "What is it like?<|im_end|>\n"
        "<|im_start|>assistant\n"
        "Let me see.\n"
        "<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Łódź"}}\n'
        "</tool_call>\n"
        "<tool_call>\n"
        '{"name": "clock", "arguments": {}}\n'
        "</tool_call><|im_end|>\n"
        "<|im_start|>user\n"
        "<tool_response>\n"
        '{"name": "get_weather", "content": "24 °C"}\n'
        "</tool_response>\n"
        "<tool_response>\n"
        '{"name": "clock", "content": "noon"}\n'
        "</tool_response>\n"
        "\n"
        "So?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_document_shows_the_generic_form():
    document = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    told, result = re.findall(r"^````\n(.*?)\n^````", document, re.DOTALL | re.MULTILINE)
    assert told == instructions(TOOLS[1:], ToolChoice("auto"), many=True)
    prompt = prepare_chat(family("chatml"), HISTORY, TOOLS).prompt.text
    assert result in prompt
    for last, choice in (
        ("Answer with a call of a tool.", ToolChoice("required")),
        ("... of the tool clock.", ToolChoice("named", "clock")),
        ("Make one call at most.", ToolChoice("auto")),
    ):
        assert f"`{last}`" in document
        assert last.removeprefix("...") in instructions(TOOLS, choice, many=False)
    for syntax in KNOWN:
        assert re.search(rf"^\| [^|]*\b{re.escape(syntax.name)}\b", document, re.MULTILINE)


def test_the_documents_example_runs(capsys: pytest.CaptureFixture[str]):
    document = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/tools.md", "exec"), {})
    assert capsys.readouterr().out.endswith('{"city": "Oslo"}\n')


def test_a_template_without_system_messages_tells_the_user():
    text = prepare_chat(family("gemma-2"), HISTORY, TOOLS).prompt.text
    first = text[: text.index("<end_of_turn>")]
    assert "<tools>" in first
    assert first.endswith("\n\nWhat is it like?")


@pytest.mark.parametrize("name", [*cases.TOKENS, "prompt template"])
def test_what_a_client_says_of_tools_is_never_a_control_token(name: str):
    texts = dict.fromkeys(("<s>", "</s>", *sum(cases.TOKENS.values(), ())))
    more = ("[INST]", "[/INST]", "[TOOL_CALLS]", "<tool_call>", "<tools>", "<|end|>")
    vocabulary = MiniVocabulary(texts=(*filter(None, texts), *more))

    def control(text: str) -> list[int]:
        schema = {"type": "object", "properties": {text: {"enum": [text]}}}
        messages = [
            Message("user", text),
            Message("assistant", "", tool_calls=(ToolCall("i", text, json.dumps({text: text})),)),
            Message("tool", text, text, (), "i"),
        ]
        plan = prepare_chat(
            template(name), messages, [Tool("f", text, schema)], None, True, vocabulary
        )
        ids = encode(plan.prompt, vocabulary, vocabulary.tokenize)
        return [one for one in ids if one > 255]

    assert control("<s></s><|im_end|><|eot_id|>[INST]<tool_call><|end|>") == control("x")


def test_none_shows_no_tools_and_reads_no_calls():
    plan = prepare_chat(family("qwen2.5"), [ASK], TOOLS, "none")
    assert plan.prompt == family("qwen2.5").render([ASK])
    assert (plan.format, plan.constraint, plan.parser()) == (None, None, None)
    calls = prepare_chat(family("qwen2.5"), HISTORY, TOOLS, "none")
    assert calls.prompt == family("qwen2.5").render(HISTORY)


def test_auto_has_a_trigger_and_a_required_call_none():
    auto = prepare_chat(family("qwen2.5"), [ASK], TOOLS)
    assert auto.trigger == Trigger("<tool_call>")
    required = prepare_chat(family("qwen2.5"), [ASK], TOOLS, "required")
    assert required.trigger is None
    assert required.constraint == auto.constraint
    assert required.names == ("get_weather", "clock")
    llama = prepare_chat(family("llama-3.1"), [ASK], TOOLS)
    assert llama.trigger == Trigger('{"name":', at_start=True)


def test_a_named_call_leaves_no_other():
    choice = {"type": "function", "function": {"name": "clock"}}
    plan = prepare_chat(family("chatml"), [ASK], TOOLS, choice)
    assert plan.names == ("clock",)
    assert "get_weather" not in (plan.constraint or "")
    assert "Answer with a call of the tool clock." in plan.prompt.text
    assert prepare_chat(family("chatml"), [ASK], TOOLS, ToolChoice("named", "clock")) == plan


def test_one_call_where_calls_are_not_parallel():
    text = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>' * 2
    for parallel, count in ((True, 2), (False, 1)):
        plan = prepare_chat(family("qwen3"), [ASK], TOOLS, "required", parallel)
        parser = plan.parser()
        assert parser is not None
        assert len(joined([*parser.feed(text), *parser.finish()]).calls) == count
        assert ("){0,15}" in (plan.constraint or "")) == parallel


def test_control_tokens_of_a_syntax_are_shown_and_trigger():
    vocabulary = MiniVocabulary(texts=("<s>", "</s>", "[TOOL_CALLS]", "[ARGS]"))
    plan = prepare_chat(family("mistral-small"), [ASK], TOOLS, None, True, vocabulary)
    token, args = vocabulary.special["[TOOL_CALLS]"], vocabulary.special["[ARGS]"]
    assert plan.trigger == Trigger("[TOOL_CALLS]", token)
    assert dict(plan.shown) == {token: "[TOOL_CALLS]", args: "[ARGS]"}
    assert f"<[{token}]>" in (plan.constraint or "")
    assert '"[TOOL_CALLS]"' not in (plan.constraint or "")
    assert prepare_chat(family("mistral-small"), [ASK], TOOLS).shown == ()


def test_without_tools_a_plan_is_a_prompt():
    for one in (family("chatml"), PromptTemplate()):
        plan = prepare_chat(one, [ASK])
        assert (plan.prompt, plan.stops) == (one.render([ASK]), one.stops)
        assert (plan.format, plan.constraint, plan.trigger, plan.notes) == (None, None, None, ())


def test_a_template_of_ones_own_needs_no_more_than_messages():
    class Own:
        stops = ("END",)

        def render(self, messages):
            return PromptTemplate(pre_prompt="").render(messages)

    plan = prepare_chat(Own(), [ASK], TOOLS)
    assert "<tools>" in plan.prompt.text
    assert plan.stops == ("END",)


def test_variables_reach_the_template_and_those_it_does_not_read_are_noted():
    options = {"enable_thinking": False}
    plan = prepare_chat(family("qwen3"), [ASK], chat_template_kwargs=options)
    assert plan.prompt == family("qwen3").render([ASK], enable_thinking=False)
    assert plan.notes == ()
    plan = prepare_chat(family("chatml"), [ASK], chat_template_kwargs=options)
    assert plan.notes == (
        "chat_template_kwargs.enable_thinking: the model's chat template does not read it",
    )


def test_an_answer_can_be_continued():
    begun = [ASK, Message("assistant", "It is")]
    for one in (family("qwen2.5"), PromptTemplate()):
        plan = prepare_chat(one, begun, add_generation_prompt=False, continue_final_message=True)
        assert plan.prompt.text.endswith("It is")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [ASK, Message("tool", "x", tool_call_id="i")]}, "messages[1].tool_call_id"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tools": (), "tool_choice": "required"}, "tool_choice"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs.self"),
        ({"chat_template_kwargs": {"dialect": {1}}}, "chat_template_kwargs.dialect"),
        ({"chat_template_kwargs": {1: 2}}, "chat_template_kwargs.1"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
)
def test_what_cannot_be_planned_is_refused_where_it_stands(arguments: dict, field: str):
    with pytest.raises(InvalidRequest) as error:
        prepare_chat(
            **{"template": family("qwen2.5"), "messages": [ASK], "tools": TOOLS, **arguments}
        )
    assert error.value.field == field


def test_the_probes_of_a_hostile_template_do_not_add_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "CPU_S", 0.2)
    source = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    started = time.thread_time()
    with pytest.raises(ModelFileError):
        prepare_chat(ChatTemplate(source + "{# type tools tool_calls #}"), [ASK], TOOLS)
    assert time.thread_time() - started < 2


# --- PromptTemplate.render takes what ChatTemplate.render takes ---------------------------------


@pytest.mark.parametrize(
    ("messages", "options", "field"),
    [
        ([ASK], {"tools": TOOLS}, "tools"),
        ([ASK], {"enable_thinking": True}, "chat_template_kwargs.enable_thinking"),
        (HISTORY, {}, "messages[1].tool_calls"),
    ],
)
def test_a_prompt_template_refuses_what_it_has_no_place_for(messages, options, field):
    with pytest.raises(Unsupported) as error:
        PromptTemplate().render(messages, **options)
    assert error.value.field == field


def test_a_prompt_template_leaves_the_generation_prompt_out():
    for style in ("seed", "verbatim", "nitro-0.1.20"):
        one = PromptTemplate(style=style)
        without = one.render([ASK], add_generation_prompt=False).text
        assert one.render([ASK]).text == without + one.ai_prompt


def test_a_prompt_template_continues_the_last_message():
    for style in ("seed", "verbatim", "nitro-0.1.20"):
        one = PromptTemplate(style=style)
        begun = [ASK, Message("assistant", "It is ")]
        options = {"add_generation_prompt": False}
        prompt = one.render(begun, continue_final_message=True, **options)
        assert prompt.text.endswith("It is ")
        assert one.render(begun, **options).text.startswith(prompt.text)
        with pytest.raises(InvalidRequest):
            one.render([Message("system", "x")], continue_final_message=True, **options)
        with pytest.raises(InvalidRequest):
            one.render([], continue_final_message=True, **options)
