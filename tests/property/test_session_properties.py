"""A continued prompt is the prompt: the same control tokens, the same text, kept ids."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support import chat_templates
from support.mini_vocabulary import SPECIAL_TEXTS, MiniVocabulary

from nitrolib.prompt import ChatTemplate, Message, PromptTemplate, encode_parts, split
from nitrolib.prompt.continuation import Evaluated

VOCABULARY = MiniVocabulary(eog=frozenset((257,)))
EOS = VOCABULARY.eos
TEMPLATES = [
    PromptTemplate(),
    PromptTemplate(
        pre_prompt="",
        system_prompt="<|im_start|>system\n",
        user_prompt="<|im_end|>\n<|im_start|>user\n",
        ai_prompt="<|im_end|>\n<|im_start|>assistant\n",
    ),
    PromptTemplate(pre_prompt="", user_prompt="", ai_prompt=""),
    *(
        ChatTemplate(chat_templates.ALL[name], "<s>", "</s>")
        for name in ("chatml", "llama-2", "zephyr", "vicuna", "thinking")
    ),
]
texts = st.lists(
    st.sampled_from([*SPECIAL_TEXTS, " ", "\n", "é", "𝄞", "</think>"]) | st.text(max_size=3),
    max_size=4,
).map("".join)
answer_ids = st.tuples(
    texts.map(lambda text: list(text.encode("utf-8", "replace"))),
    st.sampled_from([[], [EOS], [258], [*b"USER:"], [258, *b"more"]]),
).map(lambda pair: (*pair[0], *pair[1]))


def visible(text: str) -> str:
    """The text without its white space: how much of it stands before an answer may differ."""
    return "".join(text.split())


@settings(max_examples=1000, deadline=None)
@given(
    template=st.sampled_from(TEMPLATES),
    first=texts,
    sampled=answer_ids,
    other=st.one_of(st.none(), texts),
    second=texts,
)
def test_a_continued_prompt_has_the_tokens_and_the_text_of_the_new_one(
    template, first, sampled, other, second
):
    """Whatever the model sampled, and whatever stands in the history as its answer."""
    spoken = bytes(token for token in sampled if token < 256).decode("utf-8", "replace").strip()
    answer = spoken if other is None else other
    old = split(template.render([Message("user", first)]), VOCABULARY)
    messages = [Message("user", first), Message("assistant", answer), Message("user", second)]
    new = split(template.render(messages), VOCABULARY)
    old_ids = encode_parts(old, VOCABULARY, VOCABULARY.tokenize)
    evaluated = Evaluated(tuple(old), tuple(old_ids), sampled)
    ids = evaluated.continued(new, VOCABULARY, VOCABULARY.tokenize)
    fresh = encode_parts(new, VOCABULARY, VOCABULARY.tokenize)
    if ids is None:
        assert fresh[: len(old_ids)] != old_ids
        return
    assert ids[: len(old_ids)] == old_ids
    special = [token for token in fresh if token >= 256]
    assert [token for token in ids if token >= 256] == special
    assert visible(plain(ids)) == visible(plain(fresh))
    kept = common(ids[len(old_ids) :], sampled)
    assert kept >= common(fresh[len(old_ids) :], sampled)


def plain(ids: list[int]) -> str:
    """The text, with a mark where a control token stands."""
    return b"".join(
        bytes((token,)) if token < 256 else b"\x00[%d]" % token for token in ids
    ).decode()


def common(left, right) -> int:
    pairs = zip(left, right, strict=False)
    return next(
        (n for n, (a, b) in enumerate(pairs) if a != b or b >= 256), min(len(left), len(right))
    )
