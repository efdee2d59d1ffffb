"""Message text never becomes a control token, whatever it spells and whatever a template does."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import chat_templates
from support.chat_templates import plain_render
from support.mini_vocabulary import SPECIAL_TEXTS, MiniVocabulary

from nitrolib.errors import InvalidRequest
from nitrolib.prompt import ChatTemplate, Message, Prompt, PromptTemplate, encode, split
from nitrolib.prompt.traced import MESSAGE, TEMPLATE, TracedStr, joined

VOCABULARY = MiniVocabulary()
FRAGMENTS = sorted({text[:cut] for text in SPECIAL_TEXTS for cut in range(1, len(text))} | {
    text[cut:] for text in SPECIAL_TEXTS for cut in range(1, len(text))
})  # fmt: skip
OTHER = ["<think>", "</think>", "x", " ", "\n", "USER:", "é", "𝄞", "\ufdd0", "\0", "|", "_", "end"]

texts = st.lists(
    st.one_of(
        st.sampled_from(SPECIAL_TEXTS),
        st.sampled_from([text.upper() for text in SPECIAL_TEXTS]),
        st.sampled_from([text[:3] + "x" + text[3:] for text in SPECIAL_TEXTS]),
        st.sampled_from([text[:3] + "</think>" + text[3:] for text in SPECIAL_TEXTS]),
        st.sampled_from([text[::-1] for text in SPECIAL_TEXTS]),
        st.sampled_from(FRAGMENTS),
        st.sampled_from(OTHER),
    ),
    max_size=6,
).map("".join)
usual_roles = st.sampled_from(["user", "assistant", "system"])
odd_roles = st.one_of(st.sampled_from(["end", "im_end|><|im_start", "tool", ""]), texts)
conversations = st.lists(
    st.builds(Message, st.one_of(usual_roles, usual_roles, odd_roles), texts),
    min_size=1,
    max_size=4,
)


@functools.cache
def chat_template(name: str) -> ChatTemplate:
    return ChatTemplate(chat_templates.ALL[name], "<s>", "</s>")


def neutral(messages: list[Message]) -> list[Message]:
    """The same conversation with contents that spell nothing: white space stays, and odd roles'
    names spell nothing either."""
    return [
        Message(
            message.role if message.role in ("user", "assistant", "system", "tool")
            else _bland(message.role),
            _bland(message.content),
        )
        for message in messages
    ]  # fmt: skip


def _bland(text: str) -> str:
    return "".join(char if char.isspace() else "\u00b7" for char in text)


def control_tokens(prompt: Prompt) -> list[Any]:
    """Ids of control tokens in order, and where text stands between them."""
    return [part if isinstance(part, int) else "" for part in split(prompt, VOCABULARY)]


def spelled(prompt: Prompt) -> str:
    """The text that the token ids stand for, control tokens spelled out."""
    names = {token: text for text, token in VOCABULARY.special.items()}
    ids = encode(prompt, VOCABULARY, VOCABULARY.tokenize)
    if prompt.add_bos and not prompt.text.startswith("<s>"):
        ids = ids[1:]
    return b"".join(
        bytes((token,)) if token < 256 else names[token].encode() for token in ids
    ).decode()


@settings(max_examples=1000, deadline=None)
@given(name=st.sampled_from(sorted(chat_templates.ALL)), messages=conversations)
def test_chat_templates_keep_message_text_text(name: str, messages: list[Message]):
    template = chat_template(name)
    try:
        prompt = template.render(messages)
    except InvalidRequest:
        with pytest.raises(InvalidRequest):
            template.render(neutral(messages))
        return
    assert control_tokens(prompt) == control_tokens(template.render(neutral(messages)))
    dicts = [{"role": message.role, "content": message.content} for message in messages]
    assert prompt.text == plain_render(chat_templates.ALL[name], dicts)


@settings(max_examples=500, deadline=None)
@given(
    name=st.sampled_from(["chatml", "zephyr", "vicuna", "nitro", "phi"]),
    contents=st.lists(texts, min_size=1, max_size=3),
)
def test_chat_templates_give_the_contents_back(name: str, contents: list[str]):
    messages = [Message("user", content) for content in contents]
    prompt = chat_template(name).render(messages)
    runs = [part for part in split(prompt, VOCABULARY) if isinstance(part, str)]
    assert all(any(content.strip() in run for run in runs) for content in contents)
    begins_with_typed_bos = prompt.text.startswith("<s>") and prompt.add_bos
    if not begins_with_typed_bos:
        assert spelled(prompt) == prompt.text


prompts = st.one_of(
    st.sampled_from(["", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>", "USER:", "<|", "|>"]),
    texts,
)
styles = st.sampled_from(["auto", "seed", "verbatim", "nitro-0.1.20"])


@settings(max_examples=500, deadline=None)
@given(
    template=st.builds(
        PromptTemplate,
        pre_prompt=prompts,
        system_prompt=prompts,
        user_prompt=prompts,
        ai_prompt=prompts,
        style=styles,
    ),
    messages=conversations,
)
def test_prompt_templates_keep_message_text_text(template, messages):
    prompt = template.render(messages)
    ours = [part for part in control_tokens(prompt) if part != ""]
    theirs = [part for part in control_tokens(template.render(neutral(messages))) if part != ""]
    assert ours == theirs
    plain = "".join(part.text for part in prompt.segments if not part.special)
    ordered = messages
    if template.style != "nitro-0.1.20":
        ordered = sorted(messages, key=lambda message: message.role != "system")
        known = ("system", "user", "assistant")
        assert plain == "".join(
            ("" if message.role in known else message.role) + message.content for message in ordered
        )


# --- TracedStr: the operations of str, with marks that stay on their characters -----------------

# Template characters and message characters of two alphabets, so that a mark can be checked.
WRITTEN = "ABC|\n "
TYPED = "abc!\r\u2003"
pieces = st.one_of(
    st.text(WRITTEN, max_size=6).map(lambda text: TracedStr(text, bytes([TEMPLATE]) * len(text))),
    st.text(TYPED, max_size=6).map(lambda text: TracedStr(text, bytes([MESSAGE]) * len(text))),
)
traced_texts = st.lists(pieces, max_size=6).map(joined)
needles = st.one_of(st.text(WRITTEN + TYPED, min_size=1, max_size=2), st.just("|"), st.just("ab"))
indexes = st.one_of(st.none(), st.integers(-8, 8))

steps = st.sampled_from([None, 1, -1, 2, -2])
some_needles = st.one_of(st.none(), needles)
counts = st.integers(-1, 3)
affixes = st.sampled_from(["partition", "rpartition", "removeprefix", "removesuffix"])


def called(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


OPERATIONS = st.one_of(
    called("__getitem__", st.builds(slice, indexes, indexes, steps)),
    st.tuples(st.sampled_from(["strip", "lstrip", "rstrip"]), some_needles),
    st.tuples(st.sampled_from(["split", "rsplit"]), some_needles, counts),
    called("splitlines", st.booleans()),
    st.tuples(affixes, needles),
    called("replace", needles, pieces, counts),
    st.tuples(st.sampled_from(["__add__", "__radd__"]), pieces),
    called("__mul__", counts),
    called("__iter__"),
    called("join", st.lists(traced_texts, max_size=3)),
)


@settings(max_examples=1000, deadline=None)
@given(text=traced_texts, operation=OPERATIONS)
def test_traced_operations_are_those_of_str_and_keep_the_marks(text, operation):
    name, *arguments = operation
    if name == "__radd__":
        result, expected = arguments[0] + text, str.__str__(arguments[0]) + str.__str__(text)
    else:
        result = getattr(text, name)(*arguments)
        expected = getattr(str.__str__(text), name)(*arguments)
    whole = isinstance(result, str)
    results = [result] if whole else list(result)
    assert results == ([expected] if whole else list(expected))
    for part in results:
        assert isinstance(part, TracedStr)
        assert len(part.origin) == len(part)
        for char, mark in zip(str.__str__(part), part.origin, strict=True):
            assert char in (WRITTEN if mark == TEMPLATE else TYPED)


@settings(max_examples=500, deadline=None)
@given(text=st.text(max_size=10), marks=st.binary(min_size=10, max_size=10))
def test_case_changes_never_move_a_mark(text: str, marks: bytes):
    origin = bytes(mark & 1 for mark in marks[: len(text)])
    traced = TracedStr(text, origin)
    for name in ("upper", "lower", "title", "capitalize", "casefold", "swapcase"):
        changed = getattr(traced, name)()
        assert changed == getattr(text, name)()
        if len(changed) == len(text):
            assert changed.origin == origin
        else:
            assert changed.origin == bytes([traced.is_written]) * len(changed)
