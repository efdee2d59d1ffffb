"""Vocabulary: the bytes of every token, and which tokens mean more than text."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from support import gguf_draft as gd
from support.gguf_draft import Draft, Value, array, string, u32
from support.gguf_maker import llama_draft

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
    assert vocabulary.pieces[510:] == (b"<|im_start|>", b"<|im_end|>")
    for text, piece in zip(texts[260:], vocabulary.pieces[260:], strict=True):
        assert piece.decode() == text.replace("\u2581", " ")


def test_special_tokens_are_known_by_their_text(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, llama_draft())
    assert vocabulary.special == {"<s>": 1, "</s>": 2, "<|im_start|>": 510, "<|im_end|>": 511}
    assert vocabulary.control == {0, 1, 2}
    assert vocabulary.user_defined == {510, 511}
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


def test_a_normal_token_that_spells_an_end_is_text(tmp_path: Path) -> None:
    draft = llama_draft(user_defined=())
    draft["tokenizer.ggml.tokens"].data = [*draft["tokenizer.ggml.tokens"].data[:-1], "<|im_end|>"]
    vocabulary = read(tmp_path, draft)
    assert vocabulary.eog == {2}
    assert "<|im_end|>" not in vocabulary.special


def test_what_the_file_does_not_say_is_as_in_llama_cpp(tmp_path: Path) -> None:
    draft = llama_draft()
    for name in ("bos", "eos", "unknown"):
        del draft[f"tokenizer.ggml.{name}_token_id"]
    vocabulary = read(tmp_path, draft)
    assert (vocabulary.unknown, vocabulary.bos, vocabulary.eos) == (0, 1, 2)
    draft["tokenizer.ggml.unknown_token_id"] = u32(0xFFFFFFFF)
    assert read(tmp_path, draft).unknown is None


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


def test_it_crosses_a_process_boundary(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, llama_draft())
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
