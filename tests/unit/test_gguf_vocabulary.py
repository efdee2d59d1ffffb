"""Vocabulary: the bytes of every token, and which tokens mean more than text."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from support import gguf_draft as gd
from support.gguf_draft import Draft, Value, array, string, u32
from support.gguf_families import ENCODING, GENERATING, model_draft
from support.gguf_maker import llama_draft
from support.libllama import NativeModel

from nitrolib.errors import ModelFileError
from nitrolib.gguf import Vocabulary, open_gguf

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, draft: Draft) -> Vocabulary:
    return Vocabulary.from_gguf(open_gguf(draft.write(path / "m.gguf")))


def bpe_draft(tokens: list[str | bytes], types: list[int], **keys: Value) -> Draft:
    draft = llama_draft()
    draft["tokenizer.ggml.model"] = string("gpt2")
    draft["tokenizer.ggml.tokens"] = array(gd.STRING, tokens)
    draft["tokenizer.ggml.token_type"] = array(gd.I32, types)
    for name in ("scores", "bos_token_id", "eos_token_id", "unknown_token_id"):
        del draft[f"tokenizer.ggml.{name}"]
    for name, value in keys.items():
        draft[f"tokenizer.ggml.{name}"] = value
    return draft


def test_pieces_are_the_bytes_a_token_adds(tmp_path: Path) -> None:
    draft = llama_draft()
    texts = list(draft["tokenizer.ggml.tokens"].data)
    vocabulary = read(tmp_path, draft)
    assert vocabulary.n_vocab == len(vocabulary.pieces) == 512
    assert vocabulary.pieces[:3] == (b"", b"", b"")
    assert vocabulary.pieces[3:259] == tuple(bytes([byte]) for byte in range(256))
    assert vocabulary.pieces[259] == b" "
    assert vocabulary.pieces[510:] == (b"<|im_start|>", b"")
    for text, piece in zip(texts[260:-1], vocabulary.pieces[260:-1], strict=True):
        assert piece.decode() == text.replace("\u2581", " ")


def test_special_tokens_are_known_by_their_text(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, llama_draft())
    assert vocabulary.special == {"<s>": 1, "</s>": 2, "<|im_start|>": 510, "<|im_end|>": 511}
    assert vocabulary.control == {0, 1, 2, 511}  # what ends a turn has no text
    assert vocabulary.user_defined == {510}
    assert vocabulary.byte_ids == tuple(range(3, 259))
    assert (vocabulary.unknown, vocabulary.bos, vocabulary.eos) == (0, 1, 2)
    assert vocabulary.eog == {2, 511}
    assert vocabulary.add_bos
    assert vocabulary.add_space_prefix


def test_end_of_turn_keys_and_texts_end_a_generation(tmp_path: Path) -> None:
    draft = llama_draft(user_defined=("<end_of_turn>", "<|eot_id|>", "<|other|>"))
    draft["tokenizer.ggml.eot_token_id"] = u32(300)
    draft["tokenizer.ggml.eom_token_id"] = u32(0xFFFFFFFF)
    assert read(tmp_path, draft).eog == {2, 300, 509, 510}


def test_a_token_that_spells_an_end_is_one_whatever_its_type(tmp_path: Path) -> None:
    draft = llama_draft(user_defined=())
    draft["tokenizer.ggml.tokens"].data = [*draft["tokenizer.ggml.tokens"].data[:-1], "<|im_end|>"]
    vocabulary = read(tmp_path, draft)
    assert vocabulary.eog == {2, 511}
    assert vocabulary.special["<|im_end|>"] == 511
    assert vocabulary.pieces[511] == b""


def test_what_the_file_does_not_say_is_as_in_llama_cpp(tmp_path: Path) -> None:
    draft = llama_draft()
    for name in ("bos", "eos", "unknown"):
        del draft[f"tokenizer.ggml.{name}_token_id"]
    vocabulary = read(tmp_path, draft)
    assert (vocabulary.unknown, vocabulary.bos, vocabulary.eos) == (0, 1, 2)
    draft["tokenizer.ggml.unknown_token_id"] = u32(0xFFFFFFFF)
    draft["tokenizer.ggml.eos_token_id"] = u32(9999)
    vocabulary = read(tmp_path, draft)
    assert (vocabulary.unknown, vocabulary.eos) == (0, 2)


def test_the_file_decides_on_bos_and_space(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["tokenizer.ggml.add_bos_token"] = Value(gd.BOOL, 0)
    draft["tokenizer.ggml.add_space_prefix"] = Value(gd.BOOL, 0)
    vocabulary = read(tmp_path, draft)
    assert (vocabulary.add_bos, vocabulary.add_space_prefix) == (False, False)


def test_unused_tokens_have_no_text(tmp_path: Path) -> None:
    draft = llama_draft()
    draft["tokenizer.ggml.token_type"].data = [
        *draft["tokenizer.ggml.token_type"].data[:-3],
        5,
        4,
        4,
    ]
    vocabulary = read(tmp_path, draft)
    assert vocabulary.pieces[509] == b""
    assert 509 in vocabulary.control


def test_a_vocabulary_without_all_bytes_says_so(tmp_path: Path) -> None:
    draft = llama_draft()
    types = draft["tokenizer.ggml.token_type"]
    types.data = [*types.data[:3], 1, *types.data[4:]]
    assert read(tmp_path, draft).byte_ids is None


def test_byte_level_tokens_are_decoded(tmp_path: Path) -> None:
    # GPT-2 writes a space as U+0120, a newline as U+010A, and the bytes of \u00e9 as \u00c3\u00a9.
    tokens: list[str | bytes] = ["a", "\u0120the", "\u010a", "\u00c3\u00a9", "\u00c3", "<|im_end|>"]
    vocabulary = read(tmp_path, bpe_draft(tokens, [1, 1, 1, 1, 1, 3], eos_token_id=u32(5)))
    assert vocabulary.pieces == (b"a", b" the", b"\n", "\u00e9".encode(), b"\xc3", b"")
    assert vocabulary.special == {"<|im_end|>": 5}
    assert vocabulary.eog == {5}
    assert vocabulary.bos is None
    assert not vocabulary.add_bos
    assert not vocabulary.add_space_prefix


def test_byte_level_covers_every_byte(tmp_path: Path) -> None:
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    table = {byte: chr(byte) for byte in printing}
    table |= {byte: chr(256 + n) for n, byte in enumerate(others)}
    tokens: list[str | bytes] = [table[byte] for byte in range(256)]
    vocabulary = read(tmp_path, bpe_draft(tokens, [1] * 256))
    assert vocabulary.pieces == tuple(bytes([byte]) for byte in range(256))


def test_a_byte_level_token_of_other_characters_is_kept_as_it_is(tmp_path: Path) -> None:
    vocabulary = read(
        tmp_path, bpe_draft(["\u0120a", "\u4f60", b"\xff\xfe", "<|x y|>"], [1, 1, 1, 4])
    )
    assert vocabulary.pieces == (b" a", "\u4f60".encode(), b"\xff\xfe", b"<|x y|>")


def test_a_byte_token_that_is_none_is_refused(tmp_path: Path) -> None:
    draft = llama_draft()
    types = draft["tokenizer.ggml.token_type"]
    types.data = [*types.data[:300], 6, *types.data[301:]]
    with pytest.raises(ModelFileError, match="token 300 is a byte token"):
        read(tmp_path, draft)


def test_a_file_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    draft = llama_draft()
    del draft["tokenizer.ggml.tokens"]
    with pytest.raises(ModelFileError) as caught:
        read(tmp_path, draft)
    assert caught.value.key == "tokenizer.ggml.tokens"


# The same as the library itself -------------------------------------------------------------------


@pytest.mark.parametrize("family", [*GENERATING, *ENCODING])
def test_a_family_is_understood_as_llama_cpp_does(tmp_path: Path, family: str) -> None:
    draft = model_draft(family)
    check_against_the_library(tmp_path, draft)


def check_against_the_library(tmp_path: Path, draft: Draft) -> Vocabulary:
    path = draft.write(tmp_path / "m.gguf")
    vocabulary = Vocabulary.from_gguf(open_gguf(path))
    with NativeModel(path, vocab_only=True) as model:
        assert vocabulary.pieces == model.pieces()
        assert vocabulary.eog == model.eog()
        for name in ("bos", "eos", "sep"):
            assert getattr(vocabulary, name) == model.token(name), name
            wanted = model.flag(f"add_{name}") and model.token(name) is not None
            assert getattr(vocabulary, f"add_{name}") == wanted, name
        for text, token in vocabulary.special.items():
            assert model.tokenize(text, special=True).count(token) >= 1
        shown = model.piece(model.tokenize("x")[0])
        assert shown.startswith(b" ") == vocabulary.add_space_prefix or draft_is_encoder(draft)
    return vocabulary


def draft_is_encoder(draft: Draft) -> bool:
    """Words of WordPiece begin with a space anyway."""
    return bool(draft["tokenizer.ggml.model"].data == "bert")


def with_tokens(family: str, *texts: str, kind: int = 3) -> Draft:
    """A model whose last normal tokens have these texts."""
    draft = model_draft(family)
    tokens, types = draft["tokenizer.ggml.tokens"], draft["tokenizer.ggml.token_type"]
    changed, changed_types = list(tokens.data), list(types.data)
    normal = [token for token, one in enumerate(changed_types) if one == 1]
    for token, text in zip(normal[-len(texts) :], texts, strict=True):
        changed[token], changed_types[token] = text, kind
    tokens.data, types.data = changed, changed_types
    return draft


@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize(
    "texts",
    [
        ("<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|message|>"),  # gpt-oss
        ("<|end|>", "<|flush|>", "<|calls|>"),  # solar
        ("<|end|>", "<|return|>"),
        ("</s>", "<|tool_response>", "<turn|>"),  # gemma 4
        ("</s>", "[EOT]", "[PAD]", "[EOS]"),  # kimi
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|file_sep|>"),
        ("<PRE>", "<SUF>", "<MID>", "<REPO>", "<EOT>"),
        ("<unused1>", "plain"),
    ],
)
def test_tokens_are_what_their_texts_say(tmp_path: Path, texts: tuple[str, ...], kind: int) -> None:
    check_against_the_library(tmp_path, with_tokens("qwen2", *texts, kind=kind))


@pytest.mark.parametrize(
    "keys",
    [
        {"bos": 300, "eos": 301, "eot": 302, "eom": 303},
        {"eos": 0xFFFFFFFF, "bos": 0xFFFFFFFF},
        {"fim_pad": 300, "fim_rep": 301, "fim_sep": 302, "prefix": 303},
    ],
)
@pytest.mark.parametrize("family", ["qwen2", "gemma3", "llama3"])
def test_ids_are_those_of_the_file_or_the_defaults(
    tmp_path: Path, family: str, keys: dict[str, int]
) -> None:
    draft = with_tokens(family, "<|fim_pad|>", "<|file_sep|>", "<|fim_prefix|>")
    for name, token in keys.items():
        draft[f"tokenizer.ggml.{name}_token_id"] = u32(token)
    check_against_the_library(tmp_path, draft)


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "tekken", "gpt-2", "roberta-bpe", "glm4"])
def test_a_pre_tokenizer_decides_where_the_file_is_silent(tmp_path: Path, pre: str) -> None:
    draft = model_draft("qwen2")
    draft["tokenizer.ggml.pre"] = string(pre)
    for name in ("add_bos_token", "bos_token_id", "eos_token_id"):
        del draft[f"tokenizer.ggml.{name}"]
    check_against_the_library(tmp_path, draft)


def test_an_empty_text_has_the_name_that_the_library_gives_it(tmp_path: Path) -> None:
    vocabulary = check_against_the_library(tmp_path, with_tokens("qwen2", "", kind=4))
    assert any(piece.startswith(b"[EMPTY_") for piece in vocabulary.pieces)


def test_it_crosses_a_process_boundary(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, llama_draft())
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
