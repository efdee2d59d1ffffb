"""Makes real, loadable Llama GGUF files with random weights, for tests and benchmarks.

The vocabulary is a small SentencePiece BPE one in which English text tokenizes sensibly; the
weights are scaled so that logits are finite with a standard deviation of about `logit_spread`.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import gguf_draft as gd
from .gguf_draft import Draft, Tensor, array, f32, string, u32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

SPACE = "\u2581"  # what SentencePiece writes for a space

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# Small, as in real models: else the way from the embedding past the layers to the output, which is
# the embedding again, makes the model repeat its input.
TIED_EMBEDDING = 0.02

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Llama model. `n_ff` is the width of the feed-forward part."""

    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int
    n_ctx_train: int


SHAPES = {
    "tiny": Shape(
        n_embd=64, n_layer=2, n_head=4, n_head_kv=2, n_ff=128, n_vocab=512, n_ctx_train=512
    ),
    "15M": Shape(
        n_embd=288, n_layer=6, n_head=6, n_head_kv=6, n_ff=768, n_vocab=32000, n_ctx_train=1024
    ),
    "110M": Shape(
        n_embd=768, n_layer=12, n_head=12, n_head_kv=12, n_ff=2048, n_vocab=32000, n_ctx_train=2048
    ),
    "1.1B": Shape(
        n_embd=2048, n_layer=22, n_head=32, n_head_kv=4, n_ff=5632, n_vocab=32000, n_ctx_train=2048
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Quant:
    """A GGML type made from random blocks.

    `scale_at` and `min_at` are where the block's half-float scale and minimum lie (None: none);
    random other bytes times scale 1 (and minimum `min_ratio`) give weights of deviation `spread`.
    """

    type: int
    block: int
    n_bytes: int
    scale_at: int | None = None
    min_at: int | None = None
    min_ratio: float = 0.0
    spread: float = 1.0
    file_type: int = 0


QUANTS = {
    "F32": Quant(0, 1, 4),
    "F16": Quant(1, 1, 2, file_type=1),
    "BF16": Quant(30, 1, 2, file_type=32),
    "Q4_0": Quant(2, 32, 18, 0, spread=4.64, file_type=2),
    "Q4_1": Quant(3, 32, 20, 0, 2, -7.5, 4.61, file_type=3),
    "Q5_0": Quant(6, 32, 22, 0, spread=9.25, file_type=8),
    "Q5_1": Quant(7, 32, 24, 0, 2, -15.5, 9.23, file_type=9),
    "Q8_0": Quant(8, 32, 34, 0, spread=73.9, file_type=7),
    "Q2_K": Quant(10, 256, 84, 80, 82, 1.5, 13.85, file_type=10),
    "Q3_K": Quant(11, 256, 110, 108, spread=43.3, file_type=12),
    "Q4_K": Quant(12, 256, 144, 0, 2, 7.5, 258.0, file_type=15),
    "Q5_K": Quant(13, 256, 176, 0, 2, 15.5, 529.0, file_type=17),
    "Q6_K": Quant(14, 256, 210, 208, spread=1366.0, file_type=18),
}


def make_llama(path: str | Path, **options: object) -> Path:
    """Write a model file and return its path; options as for `llama_draft`."""
    return llama_draft(**options).write(path)  # type: ignore[arg-type]


def llama_draft(
    *,
    shape: str | Shape = "tiny",
    quant: str = "F32",
    vocab: str = "spm",
    n_vocab: int | None = None,
    n_ctx_train: int | None = None,
    seed: int = 0,
    logit_spread: float = 2.0,
    chat_template: str | None = None,
    user_defined: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
    name: str | None = None,
    version: int = 3,
    tied: bool = False,
) -> Draft:
    """A model ready to write, or to damage first.

    shape: "tiny" (loads in milliseconds), "15M", "110M", "1.1B" (TinyLlama's), or a Shape.
    quant: a name of QUANTS, for all matrices; norms are F32.
    vocab: "spm" (pieces that merge up to words) or "byte" (nothing but bytes and U+2581).
    user_defined: texts of type 4 tokens, at the end of the vocabulary.
    tied: whether the output is the token embedding (ctransformers runs no such file).
    """
    sizes = SHAPES[shape] if isinstance(shape, str) else shape
    if n_vocab is None:
        n_vocab = sizes.n_vocab if vocab == "spm" else 260 + len(user_defined)
    pieces, scores, types = make_vocabulary(vocab, n_vocab, tuple(user_defined))
    draft = Draft(version=version)
    label = shape if isinstance(shape, str) else "custom"
    dim, kv_dim = sizes.n_embd, sizes.n_embd // sizes.n_head * sizes.n_head_kv
    draft.metadata = [
        ("general.architecture", string("llama")),
        ("general.name", string(name or f"random {label} {quant}")),
        ("llama.context_length", u32(n_ctx_train or sizes.n_ctx_train)),
        ("llama.embedding_length", u32(dim)),
        ("llama.block_count", u32(sizes.n_layer)),
        ("llama.feed_forward_length", u32(sizes.n_ff)),
        ("llama.rope.dimension_count", u32(dim // sizes.n_head)),
        ("llama.attention.head_count", u32(sizes.n_head)),
        ("llama.attention.head_count_kv", u32(sizes.n_head_kv)),
        ("llama.attention.layer_norm_rms_epsilon", f32(1e-5)),
        ("llama.rope.freq_base", f32(10000.0)),
        ("general.file_type", u32(QUANTS[quant].file_type)),
        ("tokenizer.ggml.model", string("llama")),
        ("tokenizer.ggml.tokens", array(gd.STRING, pieces)),
        ("tokenizer.ggml.scores", array(gd.F32, scores)),
        ("tokenizer.ggml.token_type", array(gd.I32, types)),
        ("tokenizer.ggml.bos_token_id", u32(1)),
        ("tokenizer.ggml.eos_token_id", u32(2)),
        ("tokenizer.ggml.unknown_token_id", u32(0)),
    ]
    if chat_template is not None:
        draft["tokenizer.chat_template"] = string(chat_template)
    add = Adder(draft, quant, seed)
    add.matrix("token_embd", dim, n_vocab, std=TIED_EMBEDDING if tied else 1.0)
    for layer in range(sizes.n_layer):
        block = f"blk.{layer}."
        add.norm(block + "attn_norm", dim)
        add.matrix(block + "attn_q", dim, dim)
        add.matrix(block + "attn_k", dim, kv_dim)
        add.matrix(block + "attn_v", dim, kv_dim)
        add.matrix(block + "attn_output", dim, dim)
        add.norm(block + "ffn_norm", dim)
        add.matrix(block + "ffn_gate", dim, sizes.n_ff)
        add.matrix(block + "ffn_up", dim, sizes.n_ff)
        add.matrix(block + "ffn_down", sizes.n_ff, dim)
    # The hidden state before the last norm's weight has RMS 1, so a logit's deviation is that of
    # the weights times sqrt(dim).
    spread = logit_spread * dim**-0.5
    add.norm("output_norm", dim, spread / TIED_EMBEDDING if tied else 1.0)
    if not tied:
        add.matrix("output", dim, n_vocab, std=spread)
    return draft


class Adder:
    """Appends random tensors to a draft; each has a seed of its own, so the file does not depend
    on the order in which they are written."""

    def __init__(self, draft: Draft, quant: str, seed: int) -> None:
        self.draft, self.quant, self.seed = draft, quant, seed

    def norm(self, name: str, size: int, value: float = 1.0) -> None:
        """A weight that multiplies by `value`, as F32."""
        data = np.full(size, value, "<f4").tobytes()
        self._append(f"{name}.weight", Tensor([size], 0, len(data), lambda: [data]))

    def bias(self, name: str, size: int, std: float = 0.1) -> None:
        """Random numbers to add, as F32."""
        self._random(f"{name}.bias", (size,), std, "F32")

    def matrix(
        self, name: str, *shape: int, std: float | None = None, quant: str | None = None
    ) -> None:
        """Random weights, row length first; by default with the deviation that keeps the size of
        what they are multiplied with."""
        deviation = shape[0] ** -0.5 if std is None else std
        self._random(f"{name}.weight", shape, deviation, quant or self.quant)

    def _random(self, name: str, shape: tuple[int, ...], std: float, quant: str) -> None:
        kind, n = QUANTS[quant], math.prod(shape)
        key = (self.seed, len(self.draft.tensors))
        n_bytes = n // kind.block * kind.n_bytes
        self._append(name, Tensor([*shape], kind.type, n_bytes, _weights(kind, n, std, key)))

    def _append(self, name: str, tensor: Tensor) -> None:
        self.draft.tensors.append((name, tensor))


def _weights(
    quant: Quant, n: int, std: float, key: tuple[int, int]
) -> Callable[[], Iterator[bytes]]:
    """A function that yields the bytes of `n` random weights in pieces of a few megabytes."""

    def produce() -> Iterator[bytes]:
        rng = np.random.Generator(np.random.SFC64(key))
        step = 1 << 21
        for start in range(0, n, step):
            size = min(step, n - start)
            if quant.scale_at is None:
                values = rng.standard_normal(size, np.float32) * np.float32(std)
                yield _plain(values, quant)
            else:
                yield _blocks(quant, size // quant.block, std, rng).tobytes()

    return produce


def _plain(values: np.ndarray, quant: Quant) -> bytes:
    if quant.type == QUANTS["BF16"].type:  # the upper half of a float, rounded
        return ((values.astype("<f4").view("<u4") + 0x8000) >> 16).astype("<u2").tobytes()
    return values.astype("<f4" if quant.n_bytes == 4 else "<f2").tobytes()


def _blocks(quant: Quant, n: int, std: float, rng: np.random.Generator) -> np.ndarray:
    blocks = np.frombuffer(rng.bytes(n * quant.n_bytes), np.uint8).reshape(n, quant.n_bytes).copy()
    # The sign of the scale is random too: it takes away what bias the whole-number grid has.
    scale = rng.choice(np.array([-1, 1], np.float32), n) * np.float32(std / quant.spread)
    assert quant.scale_at is not None
    _put_half(blocks, quant.scale_at, scale)
    if quant.min_at is not None:
        _put_half(blocks, quant.min_at, scale * np.float32(quant.min_ratio))
    return blocks


def _put_half(blocks: np.ndarray, at: int, values: np.ndarray) -> None:
    blocks[:, at : at + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)


# Vocabulary ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def make_vocabulary(
    kind: str, n_vocab: int, user_defined: tuple[str, ...] = ()
) -> tuple[list[str], list[float], list[int]]:
    """Texts, scores and types of `n_vocab` tokens: <unk>, <s>, </s>, 256 bytes, pieces, and the
    user-defined ones last. Merging goes by score, the earlier piece first, as SentencePiece trains
    it."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    n_pieces = n_vocab - len(texts) - len(user_defined)
    assert n_pieces >= 1, f"n_vocab must be at least {n_vocab - n_pieces + 1}"
    source: Iterable[str] = _pieces() if kind == "spm" else itertools.chain([SPACE], _rare())
    assert kind in ("spm", "byte"), kind
    pieces = list(itertools.islice(_distinct(source), n_pieces))
    assert len(pieces) == n_pieces, (len(pieces), n_pieces)
    scores = [0.0] * len(texts) + [-float(i) for i in range(n_pieces)]
    texts += pieces
    types += [NORMAL] * n_pieces
    for text in user_defined:
        texts.append(text)
        types.append(USER_DEFINED)
        scores.append(-1000.0)
    return texts, scores, types


def _distinct(texts: Iterable[str]) -> Iterator[str]:
    seen = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def english_words() -> list[str]:
    """A few hundred common words, the most common first."""
    return list(dict.fromkeys(_WORDS.split()))


def english_pieces() -> Iterator[str]:
    """SentencePiece's pieces, no one twice: characters, pairs, words with all their beginnings."""
    return _distinct(_pieces())


def _pieces() -> Iterator[str]:
    yield SPACE
    yield from map(chr, range(33, 127))
    yield from "éüñßàöПриветмир你好"
    yield from _PAIRS.split()
    for word in _WORDS.split():
        yield from _prefixes(SPACE + word)
    for word in _WORDS.split()[:40]:
        yield from _prefixes(SPACE + word.capitalize())
    yield from _made_up()


def _prefixes(text: str) -> Iterator[str]:
    """Every beginning of two characters or more: so that merging can always reach the whole."""
    return (text[:end] for end in range(2, len(text) + 1))


def _made_up() -> Iterator[str]:
    onsets = ["", *"bcdfghjklmnprstvwz", "br", "cl", "dr", "fl", "gr", "pl", "sh", "st", "th", "tr"]
    rhymes = [v + c for v in ("a", "e", "i", "o", "u", "ee", "ou") for c in ("", *"dlmnrst", "ck")]
    syllables = [onset + rhyme for onset in onsets for rhyme in rhymes]
    for parts in itertools.chain(
        itertools.product(syllables), itertools.product(syllables, syllables)
    ):
        yield from _prefixes(SPACE + "".join(parts))


def _rare() -> Iterator[str]:
    """Characters no English text holds: fillers that leave a byte vocabulary a byte vocabulary."""
    return map(chr, range(0xE000, 0xF8FF))


_PAIRS = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve "
    "co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur ing ion ly ent ers all tion"
)
_WORDS = (
    "the a hello world is and to of in you that it he was for on are as with his they I at be "
    "this have from or one had by word but not what we can out other were there when up use your "
    "how said an each she which do their time if will way about many then them write would like "
    "so these her long make thing see him two has look more day could go come did number sound "
    "no most people my over know water than call first who may down side been now find any new "
    "work part take get place made live where after back little only round man year came show "
    "every good me give our under name very through just form sentence great think say help low "
    "line differ turn cause much mean before move right boy old too same tell does set three "
    "want air well also play small end put home read hand port large spell add even land here "
    "must big high such follow act why ask men change went light kind off need house picture try "
    "us again animal point mother near build self earth father head stand own page should "
    "country found answer school grow study still learn plant cover food sun four between state "
    "keep eye never last let thought city tree cross farm hard start might story saw far sea "
    "draw left late run while press close night real life few north open seem together next "
    "white children begin got walk example ease paper group always music those both mark often "
    "letter until mile river car feet care second book carry took science eat room friend began "
    "idea fish mountain stop once base hear horse cut sure watch color face wood main enough "
    "plain girl usual young ready above ever red list though feel talk bird soon body dog family "
    "direct pose leave song measure door product black short numeral class wind question happen "
    "complete ship area half rock order fire south problem piece told knew pass since top whole "
    "king space heard best hour better true during hundred five remember step early hold west "
    "ground interest reach fast verb sing listen six table travel less morning ten simple "
    "several vowel toward war lay against pattern slow center love person money serve appear "
    "road map rain rule govern pull cold notice voice unit power town fine certain fly fall lead "
    "cry dark machine note wait plan figure star box noun field rest correct able pound done "
    "beauty drive stood contain front teach week final gave green oh quick develop ocean warm "
    "free minute strong special mind behind clear tail produce fact street inch multiply nothing "
    "course stay wheel full force blue object decide surface deep moon island"
)
