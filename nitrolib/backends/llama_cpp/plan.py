"""What loading a model comes to, in numbers: the sizes of context and batch, how keys and values
are kept, and the memory that takes. Nothing native: `nitro inspect` asks here too."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InvalidRequest, Unsupported
from ..memory import MemoryPlan

if TYPE_CHECKING:
    from ...gguf import GGUFFile, ModelInfo
    from ..base import LoadOptions, Pooling

MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ
DEFAULT_BATCH = 512
_PAD = 256  # the library rounds a context up to it

# Bytes of a block of keys or values, and the numbers in it.
CACHE_BLOCKS = {"f16": (2, 1), "q8_0": (34, 32), "q4_0": (18, 32)}

# Weights of these types are laid out anew for the kernels of the CPU, beside the mapped file.
_REPACKED = frozenset({"Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4"})
_REPACKED_ON_ARM = _REPACKED | {"Q5_K", "Q6_K", "Q8_0"}

# Models without a KV cache and without generation: a text goes through them whole.
ENCODERS = frozenset({
    "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "modern-bert", "gemma-embedding",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of a context. All are in tokens, but `n_outputs`: rows of logits in one decode.

    n_ctx: most in one sequence; cells: over all of them, as the library is asked for.
    """

    n_ctx: int
    cells: int
    n_batch: int
    n_ubatch: int
    n_outputs: int
    notes: tuple[str, ...] = ()


def sizes(options: LoadOptions, info: ModelInfo) -> Sizes:
    """The context that `options` ask for. Raises InvalidRequest for options that cannot be."""
    check_options(options, info)
    n_ctx, notes = context_length(options, info)
    wanted = n_ctx * options.n_parallel
    if options.shared_context:
        wanted = min(wanted, max(options.ctx_len, n_ctx))
    cells = -(-wanted // _PAD) * _PAD
    n_batch = options.n_batch or max(DEFAULT_BATCH, options.n_parallel)
    n_batch = max(min(n_batch, cells), options.n_parallel)
    return Sizes(
        n_ctx=n_ctx,
        cells=cells,
        n_batch=n_batch,
        n_ubatch=min(options.n_ubatch or n_batch, n_batch),
        n_outputs=min(options.n_parallel * (1 + options.lookup), n_batch, MAX_SEQUENCES),
        notes=notes,
    )


def context_length(options: LoadOptions, info: ModelInfo) -> tuple[int, tuple[str, ...]]:
    """Tokens of one slot, and a note if that is less than what was asked for."""
    share = options.ctx_len if options.shared_context else options.ctx_len // options.n_parallel
    if share <= info.n_ctx_train:
        return share, ()
    over = "shared by all slots" if options.shared_context else f"over {options.n_parallel}"
    note = (
        f"each slot has a context of {info.n_ctx_train} tokens, the length the model was trained "
        f"on, not {share} (ctx_len {options.ctx_len} {over})"
    )
    return info.n_ctx_train, (note,)


def check_options(options: LoadOptions, info: ModelInfo) -> None:
    """Raise InvalidRequest for what the library would answer with an assertion or with None."""
    if options.n_parallel > MAX_SEQUENCES:
        raise _invalid("n_parallel", options.n_parallel, f"at most {MAX_SEQUENCES}")
    if options.n_batch is not None and options.n_batch < options.n_parallel:
        least = f"at least n_parallel ({options.n_parallel}), a token for every slot"
        raise _invalid("n_batch", options.n_batch, least)
    n_batch = options.n_batch or max(DEFAULT_BATCH, options.n_parallel)
    if options.n_ubatch is not None and options.n_ubatch > n_batch:
        raise _invalid("n_ubatch", options.n_ubatch, f"at most n_batch ({n_batch})")
    if options.cache_type_v != "f16" and options.flash_attention is False:
        raise _invalid(
            "cache_type_v", options.cache_type_v, "f16 with flash_attention=False, which was given"
        )
    for name, size in (("cache_type_k", info.head_size), ("cache_type_v", info.value_size)):
        kind = getattr(options, name)
        block = CACHE_BLOCKS[kind][1]
        if size % block:
            raise _invalid(
                name, kind, f"f16: the model's heads of {size} are no multiple of {block}"
            )


def choose_pooling(options: LoadOptions, file: GGUFFile) -> Pooling:
    """How embeddings are pooled: as asked for, else as the file says, else by the mean.

    "none" is the vector of the last token, which is what `ctransformers` gives too. Raises
    InvalidRequest for "rank" where the file has no tensors that make a score.
    """
    architecture = file.metadata.text("general.architecture")
    said = file.metadata.integer(f"{architecture}.pooling_type")
    stated = _POOLINGS[said] if said is not None and 0 <= said < len(_POOLINGS) else "mean"
    pooling = options.pooling or stated
    if pooling == "rank" and not _SCORING & file.tensors.keys():
        if options.pooling == "rank":
            raise _invalid("pooling", "rank", "none, mean, cls or last: the model cannot score")
        pooling = "mean"
    return "last" if pooling == "none" else pooling


_POOLINGS: tuple[Pooling, ...] = ("none", "mean", "cls", "last", "rank")  # llama_pooling_type
_SCORING = {"cls.weight", "cls.output.weight"}


def is_encoder(info: ModelInfo) -> bool:
    """Whether the model only encodes texts: it makes embeddings or scores, and no tokens."""
    return info.architecture in ENCODERS


def memory_plan(options: LoadOptions, info: ModelInfo) -> MemoryPlan:
    """What loading with `options` takes.

    Scratch: the widest rows of a micro batch, the logits that are output, and without flash
    attention the scores of every head over the whole cache. Measured against the library's own
    log; it errs on the high side. The embedder, made when it is first needed, is not in it.
    """
    found = sizes(options, info)
    encoder = is_encoder(info)
    kv_cache = 0 if encoder else found.cells * cell_bytes(options, info)
    hidden = 4 * info.n_embd + 3 * info.n_ff + 2 * info.n_head * info.head_size
    # One mask of 16-bit floats, or the scores of every head.
    heads = info.n_head + 1 if options.flash_attention is False else 0.5
    scores = int(heads * found.cells)
    outputs = 2 * found.n_outputs * info.n_vocab
    return MemoryPlan(
        weights=info.file_bytes,
        kv_cache=kv_cache,
        scratch=4 * (found.n_ubatch * (hidden + scores) + outputs) + _GRAPH_BYTES,
        mapped=options.mmap,
        repacked=_repacked(info) if options.mmap else 0,
    )


_GRAPH_BYTES = 4 << 20  # graphs, tables and the library's own


def _repacked(info: ModelInfo) -> int:
    """Bytes of a second copy of the matrices; of the token embedding rows are only looked up."""
    arm = platform.machine().lower() in ("arm64", "aarch64")
    if info.quantization not in (_REPACKED_ON_ARM if arm else _REPACKED):
        return 0
    embedding = info.n_vocab * info.n_embd / max(1, info.n_params)
    return int(info.tensor_bytes * (1 - min(embedding, 1)))


def cell_bytes(options: LoadOptions, info: ModelInfo) -> int:
    """Keys and values of one token over all layers."""
    total = 0
    for kind, size in (
        (options.cache_type_k, info.head_size),
        (options.cache_type_v, info.value_size),
    ):
        n_bytes, block = CACHE_BLOCKS[kind]
        total += -(-info.n_head_kv * size // block) * n_bytes
    return total * info.n_layer


def _invalid(field: str, value: object, allowed: str) -> InvalidRequest:
    kind = Unsupported if field.startswith("cache_type") else InvalidRequest
    return kind(
        f"{field} {value!r} cannot be: allowed is {allowed}",
        field=field,
        value=value,
        allowed=allowed,
    )
