"""ChatTemplate.render: calls in the history, more variables, and messages that go on."""

from __future__ import annotations

import pytest
from support.chat_templates import cases

from nitrolib.errors import InvalidRequest
from nitrolib.prompt import ChatTemplate, Message, Prompt, ToolCall

USER = Message("user", "Hi")


def family(name: str) -> ChatTemplate:
    return ChatTemplate(cases.source(name), *cases.TOKENS[name])


def calling(arguments: str, call_id: str = "abcdef001") -> Message:
    return Message("assistant", "", tool_calls=(ToolCall(call_id, "f", arguments),))


def test_a_message_shows_everything_it_has_and_nothing_it_has_not():
    source = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
    text = ChatTemplate(source).render([USER, Message("tool", "x", "f", (), "id")]).text
    assert text == (
        '{"role": "user", "content": "Hi"}'
        '{"role": "tool", "content": "x", "name": "f", "tool_call_id": "id"}'
    )
    text = ChatTemplate(source + "{# tool_calls #}").render([calling('{"a": 1}')]).text
    assert text == (
        '{"role": "assistant", "content": "", "tool_calls": [{"id": "abcdef001", '
        '"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]}'
    )


@pytest.mark.parametrize(
    "arguments", ["", "x", "[]", "1", '{"a": NaN}', '{"a": 1', "[" * 10**6, "1" * 10_000]
)
def test_arguments_that_are_no_json_object_name_their_message(arguments: str):
    for name in ("qwen2.5", "deepseek-r1"):  # parsed for the one, handed on as text to the other
        with pytest.raises(InvalidRequest) as error:
            family(name).render([USER, calling(arguments)])
        assert error.value.field == "messages[1].tool_calls[0].arguments"


def test_ids_are_shortened_for_a_template_that_takes_only_short_ones():
    call = calling("{}", "call_0123456789abcdefghijklmn")
    result = Message("tool", "x", tool_call_id="call_0123456789abcdefghijklmn")
    text = family("mistral-v3").render([USER, call, result]).text
    (first,) = (part[:9] for part in text.split('"id": "')[1:])
    (second,) = (part[:9] for part in text.split('"call_id": "')[1:])
    assert first == second
    assert first.isalnum()
    kept = family("mistral-v3").render(
        [USER, calling("{}"), Message("tool", "x", None, (), "a23456789")]
    )
    assert "abcdef001" in kept.text
    assert "a23456789" in kept.text


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_what_only_the_renderer_sets_is_refused(name: str):
    with pytest.raises(InvalidRequest) as error:
        family("chatml").render([USER], **{name: "<|im_end|>"})
    assert error.value.field == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, "x" * (1 << 21), b"x"])
def test_variables_are_plain_data(value):
    with pytest.raises(InvalidRequest) as error:
        ChatTemplate("{{ x }}").render([USER], x=value)
    assert error.value.field == "chat_template_kwargs.x"


def test_a_text_is_no_switch_for_thinking():
    with pytest.raises(InvalidRequest) as error:
        family("qwen3").render([USER], enable_thinking="false")
    assert error.value.field == "chat_template_kwargs.enable_thinking"


def test_variables_are_message_text():
    prompt = ChatTemplate("{{ x }}{{ '<s>' }}{{ y.a[0] }}").render(
        [USER], x="<s>", y={"a": ["<s>"]}
    )
    assert [(part.text, part.special) for part in prompt.segments] == [
        ("<s>", False),
        ("<s>", True),
        ("<s>", False),
    ]


def continued(name: str, text: str) -> Prompt:
    return family(name).render(
        [USER, Message("assistant", text)],
        add_generation_prompt=False,
        continue_final_message=True,
    )


@pytest.mark.parametrize("name", ["chatml", "llama-3.1", "zephyr", "gemma-2", "vicuna"])
def test_a_continued_message_ends_the_prompt(name: str):
    prompt = continued(name, "The sun is")
    assert prompt.text.endswith("The sun is")
    assert not prompt.segments[-1].special
    asked = family(name).render([USER], add_generation_prompt=False)
    assert prompt.text.startswith(asked.text.removesuffix(cases.TOKENS[name][1]))


def test_a_continued_message_spelling_the_mark_keeps_it():
    assert continued("chatml", "CONTINUE_FINAL_MESSAGE_TAG x").text.endswith(
        "<|im_start|>assistant\nCONTINUE_FINAL_MESSAGE_TAG x"
    )


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ([USER], {"continue_final_message": True}),
        ([], {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_what_cannot_be_continued_is_refused(messages, options):
    with pytest.raises(InvalidRequest):
        family("chatml").render(messages, **options)


def test_a_template_that_drops_the_last_message_cannot_continue_it():
    with pytest.raises(InvalidRequest) as error:
        ChatTemplate("{{ messages[0].content }}").render(
            [USER, USER], add_generation_prompt=False, continue_final_message=True
        )
    assert error.value.field == "continue_final_message"


def test_a_template_that_wants_typed_parts_gets_them():
    source = (
        "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    prompt = ChatTemplate(source, "<s>").render([Message("user", "<s> and more")])
    assert prompt.text == "<s> and more"
    assert not any(part.special for part in prompt.segments)
