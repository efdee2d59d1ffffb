"""What llama-cpp-python's tokenizers take for granted about the vocabulary of a file.

Source: llama.cpp as vendored in llama-cpp-python 0.3.36, src/llama-vocab.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .charsmap import charsmap_fault
from .rules import SCORES, TOKENS, TYPES, Candidate, is_token_id, listed
from .special_tokens import BYTE
from .types import I8, I32, U8, U32
from .vocabulary import NO_TOKEN, byte_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_tokenizer"]

# SentencePiece by merges, byte-level BPE, WordPiece, SentencePiece by unigrams, and Gemma 4's BPE.
_KINDS = frozenset({"llama", "gpt2", "bert", "t5", "gemma4"})
_BPE = frozenset({"gpt2", "gemma4"})

# Left out is "whitespace", whose tokenizer asserts that no text has a space.
_PRE_TOKENIZERS = frozenset({
    "a.x-4.0", "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe",
    "codeshell", "cohere2moe", "command-r", "dbrx", "deepseek-coder", "deepseek-llm",
    "deepseek-r1-qwen", "deepseek-v3", "default", "exaone", "exaone-moe", "exaone4", "f2llmv2",
    "falcon", "falcon-h1", "falcon3", "gemma4", "gigachat", "glm4", "glm5", "gpt-2", "gpt-4o",
    "gpt3-finnish", "granite-docling", "granite-embed-multi-311m", "granite-embed-multi-97m",
    "grok-2", "hunyuan", "hunyuan-dense", "hy_v4", "jais", "jais-2", "jina-de", "jina-es",
    "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es", "jina-v5-nano", "joyai-llm",
    "kanana2", "kimi-k2", "kormo", "laguna", "lfm2", "llada-moe", "llama-bpe", "llama-v3", "llama3",
    "llama4", "megrez", "mellum", "mellum2", "midm-2.0", "minerva-7b", "minicpm5", "minimax-m2",
    "modern-bert", "mpt", "olmo", "phi-2", "pixtral", "poro-chat", "qwen2", "qwen35", "refact",
    "roberta-bpe", "sarvam-moe", "seed-coder", "smaug-bpe", "smollm", "solar-open", "spark2_5",
    "stablelm2", "starcoder", "superbpe", "talkie", "tekken", "tiny_aya", "trillion", "ufakzeka",
    "viking", "youtu",
})  # fmt: skip

# The library inserts a text into a tree by one call a byte on the stack, and its WordPiece tries
# every length up to the longest text at every place. Real texts have up to about 600 bytes.
_MAX_TEXT = {"bert": 256}
_MAX_ANY_TEXT = 4096


def check_tokenizer(candidate: Candidate) -> None:
    """Raise ModelFileError for a vocabulary that a tokenizer of the library would end on."""
    kind = candidate.tokenizer()
    if kind not in _KINDS:
        candidate.refuse(
            f"tokenizer {kind!r} is not run by {candidate.rule.backend}, which has "
            f"{listed(_KINDS)}",
            key="tokenizer.ggml.model",
        )
    if TOKENS not in candidate.metadata or not candidate.info.n_vocab:
        candidate.fail("there is no vocabulary", key=TOKENS)
    if SCORES in candidate.metadata:
        candidate.check_scores()
    types = _types(candidate)
    _check_token_ids(candidate)
    texts = candidate.metadata.strings(TOKENS).raw()
    _check_texts(candidate, texts, kind)
    _check_byte_types(candidate, texts, np.flatnonzero(types == BYTE).tolist(), kind)
    if kind == "llama":
        candidate.check_all_bytes(_byte_texts(texts))
    elif kind in _BPE:
        _check_bpe(candidate)
    else:
        _check_unknown(candidate, {"bert": 100, "t5": 2}[kind])
    if kind == "t5":
        _check_charsmap(candidate)


def _types(candidate: Candidate) -> NDArray[Any]:
    if TYPES not in candidate.metadata:
        return np.ones(candidate.info.n_vocab, np.int64)
    entry = candidate.metadata.entry(TYPES)
    if entry.element != I32:
        candidate.fail(f"its type is {entry.type_name}; an array of i32 is expected", key=TYPES)
    return candidate.checked_types()


def _check_token_ids(candidate: Candidate) -> None:
    """Ids of 32 bits, and those of BOS and EOS inside the vocabulary. Others outside it are found
    in real files, and mean the same as none."""
    n_vocab = candidate.info.n_vocab
    for key in candidate.metadata:
        if not is_token_id(key):
            continue
        entry = candidate.metadata.entry(key)
        if entry.type != U32:
            candidate.fail(f"its type is {entry.type_name}; u32 is expected", key=key)
        token = candidate.metadata[key]
        if key.endswith((".bos_token_id", ".eos_token_id")) and n_vocab <= token != NO_TOKEN:
            candidate.fail(f"the id is {token}, and there are {n_vocab} tokens", key=key)


def _check_texts(candidate: Candidate, texts: list[bytes], kind: str) -> None:
    """No text twice: the library counts its texts and aborts. It reads a text up to its first NUL,
    and names an empty one [EMPTY_n]."""
    candidate.check_no_nul(texts)
    longest = max(map(len, texts))
    most = _MAX_TEXT.get(kind, _MAX_ANY_TEXT)
    if longest > most:
        candidate.refuse(f"a token has a text of {longest} bytes; {most} are allowed", key=TOKENS)
    named = [text or b"[EMPTY_%d]" % token for token, text in enumerate(texts)]
    if len(set(named)) == len(named):
        return
    first: dict[bytes, int] = {}
    for token, text in enumerate(named):
        other = first.setdefault(text, token)
        if other != token:
            candidate.refuse(f"tokens {other} and {token} have one text, {text[:40]!r}", key=TOKENS)


def _check_byte_types(
    candidate: Candidate, texts: list[bytes], byte_tokens: list[int], kind: str
) -> None:
    if byte_tokens and kind == "bert":
        candidate.refuse(
            f"token {byte_tokens[0]} is a byte token; a WordPiece vocabulary has none", key=TYPES
        )
    for token in byte_tokens:
        if byte_value(texts[token]) is None:
            candidate.fail(
                f"token {token} is a byte token and its text {texts[token][:20]!r} is none of "
                "<0x00> to <0xFF>",
                key=TYPES,
            )


def _byte_texts(texts: list[bytes]) -> set[int]:
    """The bytes that a tokenizer with merges finds a token for, whatever its type."""
    found = {value for text in texts if (value := byte_value(text)) is not None}
    return found | {text[0] for text in texts if len(text) == 1}


def _check_bpe(candidate: Candidate) -> None:
    pre = candidate.metadata.text("tokenizer.ggml.pre") or "default"
    if pre not in _PRE_TOKENIZERS:
        candidate.refuse(
            f"pre-tokenizer {pre!r} is not known to {candidate.rule.backend}",
            key="tokenizer.ggml.pre",
        )
    key = "tokenizer.ggml.merges"
    if key in candidate.metadata:
        candidate.metadata.strings(key)
    elif pre != "kimi-k2":
        candidate.fail("the key is missing", key=key)


def _check_unknown(candidate: Candidate, default: int) -> None:
    """These tokenizers give the unknown token for what they have no other for."""
    key = "tokenizer.ggml.unknown_token_id"
    token = candidate.metadata.integer(key)
    known = default if token is None or token >= candidate.info.n_vocab else token
    if known >= candidate.info.n_vocab:
        candidate.fail("there is no token for unknown text", key=key)


def _check_charsmap(candidate: Candidate) -> None:
    key = "tokenizer.ggml.precompiled_charsmap"
    if key not in candidate.metadata:
        return
    entry = candidate.metadata.entry(key)
    if entry.element not in (I8, U8):
        candidate.fail(f"its type is {entry.type_name}; an array of u8 is expected", key=key)
    if fault := charsmap_fault(candidate.metadata.numbers(key).tobytes()):
        candidate.fail(fault, key=key)
