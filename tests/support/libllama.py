"""llama.cpp's own answers, through the bindings of llama-cpp-python alone: what nitrolib's are
compared with. No code of nitrolib takes part."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort shall not start a debugger


def library():  # type: ignore[no-untyped-def]
    """`llama_cpp.llama_cpp` without its log; skips the test where the package is not installed."""
    import pytest

    native = pytest.importorskip("llama_cpp.llama_cpp", reason="llama-cpp-python is not installed")
    native.llama_backend_init()
    return native


@contextlib.contextmanager
def silence(native) -> Iterator[None]:  # type: ignore[no-untyped-def]
    """Drop the library's log while the block runs, and give the one before back."""
    callback = native.llama_log_callback(lambda _level, _text, _user: None)
    before, user = native.llama_log_callback(), ctypes.c_void_p()
    native.llama_log_get(ctypes.byref(before), ctypes.byref(user))
    native.llama_log_set(callback, None)
    try:
        yield
    finally:
        native.llama_log_set(before, user)


class NativeModel:
    """A model as the library itself has loaded it."""

    def __init__(self, path: str | Path, *, vocab_only: bool = False) -> None:
        self.native = library()
        params = self.native.llama_model_default_params()
        params.vocab_only, params.n_gpu_layers = vocab_only, 0
        with silence(self.native):
            self.model = self.native.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"libllama does not load {path}"
        self.vocab = self.native.llama_model_get_vocab(self.model)
        self.n_vocab = self.native.llama_vocab_n_tokens(self.vocab)

    def close(self) -> None:
        self.native.llama_model_free(self.model)

    def __enter__(self) -> NativeModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Text

    def piece(self, token: int, *, special: bool = False) -> bytes:
        buffer = ctypes.create_string_buffer(1 << 14)
        size = self.native.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        assert size >= 0, (token, size)
        return buffer.raw[:size]

    def pieces(self) -> tuple[bytes, ...]:
        return tuple(self.piece(token) for token in range(self.n_vocab))

    def eog(self) -> frozenset[int]:
        is_eog = self.native.llama_vocab_is_eog
        return frozenset(token for token in range(self.n_vocab) if is_eog(self.vocab, token))

    def token(self, name: str) -> int | None:
        """The id of "bos", "eos", "sep", ..., or None."""
        token = getattr(self.native, f"llama_vocab_{name}")(self.vocab)
        return None if token < 0 else int(token)

    def flag(self, name: str) -> bool:
        """Of "add_bos", "add_eos" and "add_sep"."""
        return bool(getattr(self.native, f"llama_vocab_get_{name}")(self.vocab))

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 8))()
        count = self.native.llama_tokenize(
            self.vocab, data, len(data), buffer, len(buffer), special, special
        )
        assert count >= 0, count
        return list(buffer[:count])

    # Numbers

    def logits(
        self, ids: Sequence[int], lora: tuple[str, float] | None = None
    ) -> NDArray[np.float32]:
        """Logits after every token, shape (len(ids), n_vocab)."""
        with self._context(len(ids), embeddings=False) as context:
            if lora is not None:
                self._add_lora(context, *lora)
            self._decode(context, ids)
            address = self.native.llama_get_logits(context)
            return np.ctypeslib.as_array(address, (len(ids), self.n_vocab)).copy()

    def pooled(self, ids: Sequence[int], size: int) -> NDArray[np.float32]:
        """What the model's own pooling makes of the tokens, `size` numbers, not normalised."""
        with self._context(len(ids), embeddings=True) as context:
            self._decode(context, ids)
            return np.ctypeslib.as_array(
                self.native.llama_get_embeddings_seq(context, 0), (size,)
            ).copy()

    @contextlib.contextmanager
    def _context(self, n: int, *, embeddings: bool) -> Iterator[int]:
        params = self.native.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(n, 32)
        params.n_threads = params.n_threads_batch = 1
        params.embeddings = embeddings
        with silence(self.native):
            context = self.native.llama_init_from_model(self.model, params)
        assert context
        try:
            yield context
        finally:
            self.native.llama_free(context)

    def _add_lora(self, context: int, path: str, scale: float) -> None:
        with silence(self.native):
            adapter = self.native.llama_adapter_lora_init(self.model, path.encode())
        assert adapter, f"libllama does not load {path}"
        adapters = (self.native.llama_adapter_lora_p_ctypes * 1)(adapter)
        scales = (ctypes.c_float * 1)(scale)
        assert self.native.llama_set_adapters_lora(context, adapters, 1, scales) == 0

    def _decode(self, context: int, ids: Sequence[int]) -> None:
        batch = self.native.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for position, token in enumerate(ids):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
            batch.logits[position] = True
        code = self.native.llama_decode(context, batch)
        self.native.llama_batch_free(batch)
        assert code == 0, code
