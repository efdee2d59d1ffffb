"""Small vocabularies of every kind of tokenizer, in which English is words and UTF-8 survives.

Laid out as the files of the families have them: where the special tokens lie, and of which types.
"""

from __future__ import annotations

import functools
import itertools
import struct
from dataclasses import dataclass, field

import numpy as np

from . import gguf_draft as gd
from .gguf_draft import Draft, Value, array, string, u32
from .gguf_maker import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    english_pieces,
    english_words,
    make_vocabulary,
)

OTHER_LETTERS = "éüñßàöПриветмир你好"


@dataclass(frozen=True)
class Tokens:
    """A vocabulary: texts, their types, scores (None: the kind has none), merges (None: no BPE),
    and further keys of "tokenizer.ggml."."""

    model: str
    texts: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    keys: dict[str, Value] = field(default_factory=dict)

    def write(self, draft: Draft) -> None:
        draft["tokenizer.ggml.model"] = string(self.model)
        draft["tokenizer.ggml.tokens"] = array(gd.STRING, self.texts)
        draft["tokenizer.ggml.token_type"] = array(gd.I32, self.types)
        if self.scores is not None:
            draft["tokenizer.ggml.scores"] = array(gd.F32, self.scores)
        if self.merges is not None:
            draft["tokenizer.ggml.merges"] = array(gd.STRING, self.merges)
        for name, value in self.keys.items():
            draft[f"tokenizer.ggml.{name}"] = value

    def ids(self, **names: str) -> dict[str, Value]:
        """Keys that name tokens: `eos="</s>"` is eos_token_id."""
        return {f"{name}_token_id": u32(self.texts.index(text)) for name, text in names.items()}


def flag(value: bool) -> Value:
    return Value(gd.BOOL, int(value))


# Byte-level BPE -----------------------------------------------------------------------------------


def byte_characters() -> list[str]:
    """GPT-2's characters for the bytes 0 to 255 (github.com/openai/gpt-2, encoder.py)."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printing)
    table = {byte: chr(byte) for byte in printing}
    table |= {byte: chr(0x100 + index) for index, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


@functools.lru_cache(maxsize=16)
def bpe(
    n_vocab: int,
    special: tuple[str, ...],
    user_defined: tuple[str, ...] = (),
    pre: str = "qwen2",
    **names: str,
) -> Tokens:
    """256 bytes, what merges make of them, then control and user-defined tokens; `names` say which
    of them are bos, eos, ..."""
    characters = byte_characters()
    n_merges = n_vocab - 256 - len(special) - len(user_defined)
    assert n_merges >= 1, n_vocab
    texts = sorted(characters, key=lambda character: (ord(character) >= 0x100, character))
    merges: list[str] = []
    known = set(texts)
    for word in _merged_words():
        left = characters[word[0]]
        for byte in word[1:]:
            whole = left + characters[byte]
            if whole not in known and len(merges) < n_merges:
                known.add(whole)
                texts.append(whole)
                merges.append(f"{left} {characters[byte]}")
            left = whole
        if len(merges) == n_merges:
            break
    assert len(merges) == n_merges, (len(merges), n_merges)
    types = [NORMAL] * len(texts) + [CONTROL] * len(special) + [USER_DEFINED] * len(user_defined)
    texts = [*texts, *special, *user_defined]
    tokens = Tokens("gpt2", texts, types, merges=merges, keys={"pre": string(pre)})
    tokens.keys.update(tokens.ids(**names))
    return tokens


def _merged_words() -> itertools.chain[bytes]:
    """What merging builds, beginning to end. A word behind a space comes before a pair inside
    words, whose later rank then never tears it apart."""
    words = english_words()
    return itertools.chain(
        (letter.encode() for letter in OTHER_LETTERS if len(letter.encode()) > 1),
        (f" {word}".encode() for word in words[:120]),
        (b"  ", b"    ", b"\n\n", b"ing", b"ed", b"er"),
        (f" {word}".encode() for word in words[120:]),
        (word.encode() for word in words),
    )


# SentencePiece ------------------------------------------------------------------------------------


def llama(n_vocab: int) -> Tokens:
    """Llama 2's layout."""
    texts, scores, types = make_vocabulary("spm", n_vocab)
    tokens = Tokens("llama", list(texts), list(types), list(scores))
    tokens.keys.update(tokens.ids(bos="<s>", eos="</s>", unknown="<unk>"))
    return tokens


def phi3(n_vocab: int) -> Tokens:
    """Llama 2's layout with the markers of a chat behind it, and room left over."""
    special = (
        "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>",
    )  # fmt: skip
    texts, scores, types = make_vocabulary("spm", n_vocab - len(special) - 2)
    texts = [*texts, *special]
    types = [*types, *[CONTROL] * len(special)]
    texts += [f"[PAD{len(texts) + index}]" for index in range(2)]
    types += [UNKNOWN] * 2
    types[0], types[2] = CONTROL, USER_DEFINED
    tokens = Tokens("llama", texts, types, [*scores, *[-1000.0] * (len(texts) - len(scores))])
    tokens.keys.update(tokens.ids(bos="<s>", eos="<|endoftext|>", unknown="<unk>"))
    tokens.keys.update(tokens.ids(padding="<|endoftext|>"))
    tokens.keys.update(add_bos_token=flag(True), add_eos_token=flag(False))
    return tokens


def gemma(n_vocab: int) -> Tokens:
    """Gemma's layout: markers first, runs of spaces and newlines as tokens of their own, bytes,
    pieces; no space is put before a text."""
    texts = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    types = [CONTROL] * len(texts)
    runs = ["\n", "\n\n", "\n\n\n", "\t", "  ", "   ", "    "]
    texts += ["<unused0>", *runs]
    types += [UNUSED, *[USER_DEFINED] * len(runs)]
    texts += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [BYTE] * 256
    first = len(texts)
    texts += itertools.islice(english_pieces(), n_vocab - first)
    types += [NORMAL] * (n_vocab - first)
    scores = [-1000.0] * first + [-float(index) for index in range(n_vocab - first)]
    tokens = Tokens("llama", texts, types, scores)
    tokens.keys.update(
        tokens.ids(bos="<bos>", eos="<eos>", unknown="<unk>", padding="<pad>", mask="<mask>")
    )
    tokens.keys.update(
        add_bos_token=flag(True), add_eos_token=flag(False), add_space_prefix=flag(False)
    )
    return tokens


def unigram(n_vocab: int) -> Tokens:
    """XLM-RoBERTa's layout: unigrams with log-probabilities, and a table that makes a tab a
    space."""
    texts = ["<s>", "<pad>", "</s>", "<unk>"]
    types = [CONTROL, CONTROL, CONTROL, UNKNOWN]
    pieces = [*itertools.islice(english_pieces(), n_vocab - len(texts) - 2)]
    scores = [0.0] * 4 + [-3.0 - 0.01 * index for index in range(len(pieces))] + [0.0, -10000.0]
    texts = [*texts, *pieces, "<mask>", "[PAD]"]
    types = [*types, *[NORMAL] * len(pieces), CONTROL, UNUSED]
    tokens = Tokens("t5", texts, types, scores)
    tokens.keys.update(
        tokens.ids(bos="<s>", eos="</s>", unknown="<unk>", padding="<pad>", mask="<mask>")
    )
    tokens.keys.update(tokens.ids(seperator="</s>"))
    tokens.keys.update(
        pre=string("default"),
        add_bos_token=flag(True),
        add_eos_token=flag(True),
        add_space_prefix=flag(True),
        remove_extra_whitespaces=flag(True),
        precompiled_charsmap=array(gd.U8, list(_tab_to_space())),
        token_type_count=u32(1),
    )
    return tokens


def _tab_to_space() -> bytes:
    """A SentencePiece normalisation table with one rule; nodes as in nitrolib.gguf.charsmap."""
    nodes = np.zeros(512, "<u4")
    nodes[0] = 256 << 10
    child = 256 ^ ord("\t")
    nodes[child] = (child ^ 256) << 10 | 1 << 8 | ord("\t")
    nodes[256] = 1 << 31
    return struct.pack("<I", nodes.nbytes) + nodes.tobytes() + b" \0"


# WordPiece ----------------------------------------------------------------------------------------


def wordpiece(n_vocab: int) -> Tokens:
    """BERT's layout, where the markers lie at 0 and from 100 on; a word begins with U+2581, what
    continues one does not."""
    texts = ["[PAD]", *(f"[unused{index}]" for index in range(99))]
    texts += ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    types = [CONTROL, *[NORMAL] * 99, *[CONTROL] * 4]
    letters = [*map(chr, range(ord("a"), ord("z") + 1)), *"0123456789"]
    punctuation = [chr(code) for code in range(33, 127) if not chr(code).isalnum()]
    pieces = [SPACE + text for text in [*punctuation, *letters, *"приветмиüñß", "你", "好"]]
    pieces += [*letters, *"приветмиüñß", "ing", "ed", "er", "s", "ly", "tion", "able"]
    pieces += [SPACE + word.lower() for word in english_words()]
    pieces = [*dict.fromkeys(pieces)]
    room = n_vocab - len(texts)
    assert room <= len(pieces), (room, len(pieces))
    texts += pieces[:room]
    types += [NORMAL] * room
    tokens = Tokens("bert", texts, types)
    tokens.keys.update(
        tokens.ids(unknown="[UNK]", seperator="[SEP]", padding="[PAD]", cls="[CLS]", mask="[MASK]")
    )
    tokens.keys.update(pre=string("bert-bge"), token_type_count=u32(2))
    return tokens
