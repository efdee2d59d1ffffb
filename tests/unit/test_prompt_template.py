"""PromptTemplate against the worked examples of the Nitro reference, byte for byte."""

from __future__ import annotations

import dataclasses

import pytest

from nitrolib.errors import InvalidRequest
from nitrolib.prompt import Message, PromptTemplate

P = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant follows the given rules no matter what."
)
EXAMPLE = [
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello"),
    Message("user", "Bye"),
]
SPACED = {
    "system_prompt": "ASSISTANT's RULE: ",
    "user_prompt": "USER: ",
    "ai_prompt": "ASSISTANT: ",
}
CHATML = PromptTemplate(
    pre_prompt="",
    system_prompt="<|im_start|>system\n",
    user_prompt="<|im_end|>\n<|im_start|>user\n",
    ai_prompt="<|im_end|>\n<|im_start|>assistant\n",
)


def special_texts(template: PromptTemplate, messages: list[Message]) -> list[str]:
    return [part.text for part in template.render(messages).segments if part.special]


def test_the_defaults_are_the_seed_texts():
    assert dataclasses.asdict(PromptTemplate()) == {
        "pre_prompt": P,
        "system_prompt": "ASSISTANT's RULE:",
        "user_prompt": "USER:",
        "ai_prompt": "ASSISTANT:",
        "style": "auto",
        "closing": "",
    }


def test_seed_style_puts_a_space_and_newlines_between():
    assert PromptTemplate().render(EXAMPLE).text == (
        f"{P}\nASSISTANT's RULE: Be brief.\nUSER: Hi\nASSISTANT: Hello\nUSER: Bye\nASSISTANT:"
    )


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            PromptTemplate(pre_prompt="", style="nitro-0.1.20", **SPACED),
            "ASSISTANT's RULE: Be brief.USER: HiASSISTANT: HelloUSER: ByeASSISTANT: ",
        ),
        (
            PromptTemplate(pre_prompt="X.", style="nitro-0.1.20", **SPACED),
            "ASSISTANT's RULE: Be brief.X.USER: HiASSISTANT: HelloUSER: ByeASSISTANT: ",
        ),
        (
            PromptTemplate(style="nitro-0.1.20"),
            f"ASSISTANT's RULE:Be brief.{P}USER:HiASSISTANT:HelloUSER:ByeASSISTANT:",
        ),
        (
            PromptTemplate(pre_prompt="", **SPACED),
            "ASSISTANT's RULE: Be brief.USER: HiASSISTANT: HelloUSER: ByeASSISTANT: ",
        ),
        (
            PromptTemplate(pre_prompt="X.", **SPACED),
            "X.ASSISTANT's RULE: Be brief.USER: HiASSISTANT: HelloUSER: ByeASSISTANT: ",
        ),
    ],
    ids=["C", "C with pre", "C with the seed's defaults", "verbatim", "verbatim with pre"],
)
def test_the_worked_examples_hold(template: PromptTemplate, text: str):
    assert template.render(EXAMPLE).text == text


def test_chatml_is_verbatim_and_needs_no_separator():
    assert not CHATML.is_seed_style
    assert CHATML.render(EXAMPLE[:2]).text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_seed_text_stays_in_verbatim_style_unless_it_is_emptied():
    template = PromptTemplate(pre_prompt=None, user_prompt="Q:", ai_prompt="A:")  # type: ignore[arg-type]
    assert template.render([Message("user", "1")]).text == f"{P}Q:1A:"


def test_null_prompts_are_the_seed_prompts():
    template = PromptTemplate(system_prompt=None, user_prompt=None, ai_prompt=None)  # type: ignore[arg-type]
    assert template == PromptTemplate()
    assert template.is_seed_style


def test_an_empty_pre_prompt_brings_no_separator():
    assert PromptTemplate(pre_prompt="").render([Message("user", "Hi")]).text == (
        "USER: Hi\nASSISTANT:"
    )


def test_system_messages_come_first_in_their_order():
    messages = [Message("user", "u"), Message("system", "1"), Message("system", "2")]
    assert PromptTemplate(pre_prompt="").render(messages).text == (
        "ASSISTANT's RULE: 1\nASSISTANT's RULE: 2\nUSER: u\nASSISTANT:"
    )


def test_the_old_rule_reverses_system_messages():
    messages = [Message("system", "1"), Message("user", "u"), Message("system", "2")]
    template = PromptTemplate(pre_prompt="P.", style="nitro-0.1.20")
    assert (
        template.render(messages).text == "ASSISTANT's RULE:2ASSISTANT's RULE:1P.USER:uASSISTANT:"
    )


def test_another_role_is_its_own_prefix():
    assert PromptTemplate(pre_prompt="").render([Message("tool", "42")]).text == (
        "tool 42\nASSISTANT:"
    )
    assert CHATML.render([Message("TOOL:", "42")]).text.startswith("TOOL:42<|im_end|>")


def test_the_assistant_may_speak_first_and_last():
    messages = [Message("assistant", "Hello"), Message("user", "Hi"), Message("assistant", "Yes")]
    assert PromptTemplate(pre_prompt="").render(messages).text == (
        "ASSISTANT: Hello\nUSER: Hi\nASSISTANT: Yes\nASSISTANT:"
    )


def test_contents_are_never_trimmed():
    assert CHATML.render([Message("user", "  \n x \n")]).text == (
        "<|im_end|>\n<|im_start|>user\n  \n x \n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_only_template_text_is_special():
    messages = [Message("<|im_end|>", "</s>"), Message("user", "<|im_start|>")]
    assert special_texts(CHATML, messages) == [CHATML.user_prompt, CHATML.ai_prompt]
    plain = [part.text for part in CHATML.render(messages).segments if not part.special]
    assert plain == ["<|im_end|>", "</s>", "<|im_start|>"]


def test_template_parts_stay_apart_around_an_empty_content():
    template = PromptTemplate(pre_prompt="", user_prompt="<|im", ai_prompt="_end|>")
    assert special_texts(template, [Message("user", "")]) == ["<|im", "_end|>"]


def test_stops_are_the_chatml_end_and_the_trimmed_user_prompt():
    assert PromptTemplate().stops == ("<|im_end|>", "USER:")
    assert PromptTemplate(user_prompt="USER: \t\n").stops == ("<|im_end|>", "USER:")
    assert PromptTemplate(user_prompt=" \n").stops == ("<|im_end|>",)
    assert PromptTemplate(user_prompt="<|im_end|>\n").stops == ("<|im_end|>",)


@pytest.mark.parametrize(
    "wrong",
    [{"pre_prompt": 1}, {"user_prompt": b"USER:"}, {"style": "chatml"}, {"style": None}],
)
def test_a_wrong_field_is_refused_by_name(wrong: dict[str, object]):
    with pytest.raises(InvalidRequest) as error:
        PromptTemplate(**wrong)  # type: ignore[arg-type]
    assert error.value.field == next(iter(wrong))


CHATML_TEXT = (
    "<|im_start|>system\n{system_message}<|im_end|>\n<|im_start|>user\n{prompt}"
    "<|im_end|>\n<|im_start|>assistant\n"
)


def test_a_prompt_template_with_both_markers_splits_in_three():
    template = PromptTemplate.from_prompt_template(CHATML_TEXT)
    assert (template.pre_prompt, template.style) == ("", "verbatim")
    assert template.system_prompt == CHATML.system_prompt
    assert template.user_prompt == CHATML.user_prompt
    assert template.ai_prompt == CHATML.ai_prompt
    assert template.render(EXAMPLE).text == CHATML.render(EXAMPLE).text


def test_a_prompt_template_with_one_marker_splits_in_two():
    template = PromptTemplate.from_prompt_template("[INST] {prompt} [/INST]")
    assert (template.user_prompt, template.ai_prompt) == ("[INST] ", " [/INST]")
    assert template.system_prompt == PromptTemplate().system_prompt
    assert template.render([Message("user", "Hi")]).text == "[INST] Hi [/INST]"


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        (CHATML_TEXT, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            "<|system|>\n{system_message}</s>\n<|user|>\n{prompt}</s>\n<|assistant|>\n",
            "<|user|>\nHi</s>\n<|assistant|>\n",
        ),
        ("{system_message}\nUSER: {prompt}\nASSISTANT: ", "USER: Hi\nASSISTANT: "),
        ("{system_message} USER: {prompt} ASSISTANT:", " USER: Hi ASSISTANT:"),
        (
            "<|system|>{system_message}<|user|>{prompt}<|assistant|>",
            "<|user|>Hi<|assistant|>",
        ),
    ],
    ids=["chatml", "zephyr", "vicuna by line", "vicuna", "no end marker"],
)
def test_the_end_of_the_system_block_is_left_out_without_a_system_message(text, rendered):
    template = PromptTemplate.from_prompt_template(text)
    assert template.render([Message("user", "Hi")]).text == rendered
    whole = text.replace("{system_message}", "S").replace("{prompt}", "Hi")
    assert template.render([Message("system", "S"), Message("user", "Hi")]).text == whole


def test_later_turns_keep_the_end_marker():
    template = PromptTemplate.from_prompt_template(CHATML_TEXT)
    assert template.render(EXAMPLE[1:]).text == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello"
        "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "text",
    ["", "no marker", "{system_message} only", "{prompt} {system_message}", "{prompt}{prompt}"],
)
def test_a_prompt_template_that_cannot_be_split_is_refused(text: str):
    with pytest.raises(InvalidRequest, match="Cannot split prompt template") as error:
        PromptTemplate.from_prompt_template(text)
    assert error.value.field == "prompt_template"
