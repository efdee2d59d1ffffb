"""Prompts as token ids."""

from __future__ import annotations

import pytest
from support.mini_vocabulary import FIRST_SPECIAL, MiniVocabulary

from nitrolib.prompt import Prompt, Segment, encode, encode_parts, split

BOS, EOS, START, END = range(FIRST_SPECIAL, FIRST_SPECIAL + 4)


@pytest.fixture
def vocabulary() -> MiniVocabulary:
    return MiniVocabulary()


def ids(prompt: Prompt, vocabulary: MiniVocabulary) -> list[int]:
    return encode(prompt, vocabulary, vocabulary.tokenize)


def special(text: str) -> Segment:
    return Segment(text, special=True)


def plain(text: str) -> Segment:
    return Segment(text, special=False)


def test_special_texts_become_tokens_in_special_segments_alone(vocabulary):
    prompt = Prompt((special("<|im_start|>a"), plain("<|im_end|>"), special("<|im_end|>")))
    assert ids(prompt, vocabulary) == [BOS, START, *b"a<|im_end|>", END]


def test_special_texts_are_not_found_across_a_seam(vocabulary):
    prompt = Prompt((special("<|im"), special("_end"), plain("|>")), add_bos=False)
    parts = split(prompt, vocabulary)
    assert parts == [vocabulary.special["<|"], "im_end|>"]


def test_the_longest_special_text_wins(vocabulary):
    prompt = Prompt((special("<|im_end|><|"),), add_bos=False)
    assert ids(prompt, vocabulary) == [END, vocabulary.special["<|"]]


def test_plain_neighbours_are_tokenized_together():
    seen = []

    def tokenize(text: str, *, space_prefix: bool = True) -> list[int]:
        seen.append((text, space_prefix))
        return [0]

    prompt = Prompt((special("USER: "), plain("a"), plain("b"), special("</s>\n"), plain("c")))
    encode(prompt, MiniVocabulary(), tokenize)
    assert seen == [("USER: ab", True), ("\nc", True)]


def test_bos_stands_in_front_once(vocabulary):
    assert ids(Prompt.plain("a"), vocabulary) == [BOS, *b"a"]
    assert ids(Prompt((special("<s>a"),)), vocabulary) == [BOS, *b"a"]
    assert ids(Prompt((plain("a"),), add_bos=False), vocabulary) == [*b"a"]
    assert ids(Prompt.plain("a"), MiniVocabulary(add_bos=False)) == [*b"a"]
    assert ids(Prompt(()), vocabulary) == [BOS]


def test_bos_that_a_user_typed_is_text(vocabulary):
    assert ids(Prompt.plain("<s>"), vocabulary) == [BOS, *b"<s>"]


def test_continued_text_gets_no_space_in_front():
    vocabulary = MiniVocabulary(add_space_prefix=True)
    parts = ["a", END, "b"]
    assert encode_parts(parts, vocabulary, vocabulary.tokenize) == [*b" a", END, *b" b"]
    assert encode_parts(parts, vocabulary, vocabulary.tokenize, continues=True) == (
        [*b"a", END, *b" b"]
    )
    assert encode_parts(parts[1:], vocabulary, vocabulary.tokenize, continues=True) == [END, *b" b"]


@pytest.mark.parametrize("text", ["<|im_end|>", "a<|im_end|>b<|im_end|>", "<|im_end|><s>\0<s>"])
def test_a_special_token_that_a_tokenizer_makes_of_plain_text_is_spelled_out(text: str):
    """User-defined tokens are pieces like others: a tokenizer may merge a text into one."""
    vocabulary = MiniVocabulary()

    def merging(text: str, *, space_prefix: bool = True) -> list[int]:
        found = split(Prompt((special(text),), add_bos=False), vocabulary)
        return [
            token
            for part in found
            for token in ([part] if isinstance(part, int) else part.encode())
        ]

    assert max(merging(text)) >= FIRST_SPECIAL
    assert encode(Prompt.plain(text), vocabulary, merging) == [BOS, *text.encode()]


def test_white_space_tokens_of_the_user_are_left_alone():
    vocabulary = MiniVocabulary(texts=("<s>", "</s>", "\n\n"))

    def merging(text: str, *, space_prefix: bool = True) -> list[int]:
        return [vocabulary.special["\n\n"]] if text == "\n\n" else list(text.encode())

    assert encode(Prompt.plain("\n\n"), vocabulary, merging) == [BOS, vocabulary.special["\n\n"]]
