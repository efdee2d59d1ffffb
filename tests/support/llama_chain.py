"""llama.cpp's own compiled samplers on rows of logits, through llama-cpp-python's low-level API:
what the samplers are compared with and measured against, where that package is installed."""

from __future__ import annotations

import ctypes
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as native
import numpy as np

from .gguf_maker import make_llama

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nitrolib.sampling import SamplingParams

RECORD = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
DEMO = Path(__file__).resolve().parents[2] / "nitrolib" / "demo"


@functools.cache
def vocabulary() -> Any:
    """The bundled model's: DRY looks for its breakers in one."""
    silence()
    native.llama_backend_init()
    params = native.llama_model_default_params()
    params.vocab_only = True
    (path,) = DEMO.glob("*.gguf")
    return native.llama_model_get_vocab(
        native.llama_model_load_from_file(str(path).encode(), params)
    )


def pieces() -> list[bytes]:
    """The texts of its tokens, those of control tokens too, as DRY sees them: without the space in
    front that a text of several tokens would not begin with."""
    buffer = ctypes.create_string_buffer(256)

    def piece(token: int) -> bytes:
        one = (ctypes.c_int32 * 1)(token)
        length = native.llama_detokenize(vocabulary(), one, 1, buffer, len(buffer), False, True)
        return buffer.raw[:length]

    return [piece(token) for token in range(native.llama_vocab_n_tokens(vocabulary()))]


def tokenize(text: str) -> list[int]:
    """As DRY tokenizes the rests of its breakers."""
    data = text.encode()
    tokens = (ctypes.c_int32 * (len(data) + 2))()
    count = native.llama_tokenize(vocabulary(), data, len(data), tokens, len(tokens), False, False)
    return list(tokens[:count])


@functools.cache
def silence() -> Any:
    callback = native.llama_log_callback(lambda level, text, user: None)
    native.llama_log_set(callback, None)
    return callback  # the cache keeps it alive


def penalties(n_vocab: int, last_n: int, repeat: float, frequency: float, presence: float) -> Any:
    make = native.llama_sampler_init_penalties
    takes_vocabulary = len(make.argtypes) == 5
    return make(*((n_vocab,) if takes_vocabulary else ()), last_n, repeat, frequency, presence)


def dry(
    multiplier: float, base: float, allowed: int, last_n: int, breakers: Sequence[str] = ()
) -> Any:
    texts = (ctypes.c_char_p * max(1, len(breakers)))(*(text.encode() for text in breakers))
    make = native.llama_sampler_init_dry
    takes_context_length = len(make.argtypes) == 8
    sizes = (1 << 20,) if takes_context_length else ()
    return make(vocabulary(), *sizes, multiplier, base, allowed, last_n, texts, len(breakers))


class LlamaChain:
    """Samplers one after another on rows of *n_vocab* logits."""

    def __init__(self, n_vocab: int, samplers: Sequence[Any]) -> None:
        silence()
        params = native.llama_sampler_chain_default_params()
        self.pointer = native.llama_sampler_chain_init(params)
        for sampler in samplers:
            native.llama_sampler_chain_add(self.pointer, sampler)
        self._ids = np.arange(n_vocab, dtype=np.int32)
        self._records = np.zeros(n_vocab, RECORD)
        pointer = ctypes.POINTER(native.llama_token_data)
        self._data = ctypes.cast(self._records.ctypes.data, pointer)
        self._array = native.llama_token_data_array(self._data, n_vocab, -1, False)
        self._reference = ctypes.byref(self._array)

    def fill(self, row: np.ndarray) -> None:
        self._records["id"] = self._ids
        self._records["logit"] = row
        self._array.data = self._data
        self._array.size = row.size
        self._array.selected = -1
        self._array.sorted = False

    def apply(self) -> None:
        """On what was filled in."""
        native.llama_sampler_apply(self.pointer, self._reference)

    def accept(self, token: int) -> None:
        native.llama_sampler_accept(self.pointer, token)

    def _left(self) -> np.ndarray:
        """The candidates that are left; a sampler may have moved their beginning."""
        moved = ctypes.addressof(self._array.data.contents) - self._records.ctypes.data
        return self._records[moved // RECORD.itemsize :][: self._array.size]

    @property
    def selected(self) -> int:
        return int(self._left()["id"][self._array.selected])

    def probabilities(self) -> dict[int, float]:
        """Those of the candidates that the samplers left, after a draw."""
        left = self._left()
        return dict(zip(left["id"].tolist(), left["p"].tolist(), strict=True))

    def logits(self) -> np.ndarray:
        """Of all candidates, by id."""
        left = self._left()
        found = np.full(self._ids.size, -np.inf, np.float32)
        found[left["id"]] = left["logit"]
        return found

    def close(self) -> None:
        native.llama_sampler_free(self.pointer)


class LlamaLogits:
    """A row of *n_vocab* logits where llama.cpp keeps them: those of a small model's context, so
    that its own way from there to a token can be taken (`llama_sampler_sample`)."""

    def __init__(self, n_vocab: int) -> None:
        silence()
        native.llama_backend_init()
        with tempfile.TemporaryDirectory() as folder:
            path = make_llama(Path(folder) / "model.gguf", n_vocab=n_vocab)
            params = native.llama_model_default_params()
            self._model = native.llama_model_load_from_file(str(path).encode(), params)
        sizes = native.llama_context_default_params()
        sizes.n_ctx, sizes.n_batch, sizes.n_ubatch = 256, 8, 8
        sizes.n_threads = sizes.n_threads_batch = 1
        self._context = native.llama_init_from_model(self._model, sizes)
        batch = native.llama_batch_get_one((ctypes.c_int32 * 1)(5), 1)
        assert native.llama_decode(self._context, batch) == 0
        self.row = np.ctypeslib.as_array(native.llama_get_logits(self._context), (n_vocab,))

    def sample(self, chain: LlamaChain) -> int:
        """The token of what was written into `row`, accepted by the chain."""
        return int(native.llama_sampler_sample(chain.pointer, self._context, -1))

    def close(self) -> None:
        native.llama_free(self._context)
        native.llama_model_free(self._model)


def chain(params: SamplingParams, n_vocab: int, context_length: int) -> LlamaChain:
    """What `params` ask for, as llama.cpp builds it: in the order given, ending in a draw."""
    p = params
    size = context_length if p.repeat_last_n == -1 else p.repeat_last_n
    dry_size = context_length if p.dry_penalty_last_n == -1 else p.dry_penalty_last_n
    made = {
        "penalties": lambda: penalties(
            n_vocab, size, p.repeat_penalty, p.frequency_penalty, p.presence_penalty
        ),
        "dry": lambda: dry(
            p.dry_multiplier,
            p.dry_base,
            p.dry_allowed_length,
            dry_size,
            p.dry_sequence_breakers,
        ),
        "top_n_sigma": lambda: native.llama_sampler_init_top_n_sigma(p.top_n_sigma),
        "top_k": lambda: native.llama_sampler_init_top_k(p.top_k),
        "typ_p": lambda: native.llama_sampler_init_typical(p.typical_p, p.min_keep),
        "top_p": lambda: native.llama_sampler_init_top_p(p.top_p, p.min_keep),
        "min_p": lambda: native.llama_sampler_init_min_p(p.min_p, p.min_keep),
        "xtc": lambda: native.llama_sampler_init_xtc(
            p.xtc_probability, p.xtc_threshold, p.min_keep, p.seed
        ),
        "temperature": lambda: native.llama_sampler_init_temp_ext(
            p.temperature, p.dynatemp_range, p.dynatemp_exponent
        ),
    }
    samplers = [made[name]() for name in p.order]
    return LlamaChain(n_vocab, [*samplers, native.llama_sampler_init_dist(p.seed)])
