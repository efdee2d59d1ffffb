"""The fastest loop a Python program can write over the native library: the peer of benchmarks.

Nothing is checked, streamed or decoded to text: ctypes calls and numpy's argmax.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING

import numpy as np

from nitrolib.backends.library import find_library
from nitrolib.backends.native import ContextParams

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class BareLoop:
    """One model, one context, greedy decoding."""

    def __init__(self, path: Path, *, n_ctx: int, threads: int) -> None:
        lib = ctypes.CDLL(str(find_library()))
        lib.llama_context_default_params.restype = ContextParams
        lib.llama_load_model_from_file.argtypes = [ctypes.c_char_p, ContextParams]
        lib.llama_load_model_from_file.restype = ctypes.c_void_p
        lib.llama_new_context_with_model.argtypes = [ctypes.c_void_p, ContextParams]
        lib.llama_new_context_with_model.restype = ctypes.c_void_p
        lib.llama_get_logits.argtypes = [ctypes.c_void_p]
        lib.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
        lib.llama_eval.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_int),
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
        ]
        for name in ("llama_free", "llama_free_model", "llama_n_vocab"):
            getattr(lib, name).argtypes = [ctypes.c_void_p]
        params = lib.llama_context_default_params()
        params.n_ctx = n_ctx
        self._lib = lib
        self._threads = threads
        self._model = lib.llama_load_model_from_file(os.fsencode(path), params)
        self._context = lib.llama_new_context_with_model(self._model, params)
        self._n_vocab = lib.llama_n_vocab(self._context)

    def __enter__(self) -> BareLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lib.llama_free(self._context)
        self._lib.llama_free_model(self._model)

    def decode_rate(self, prompt: list[int], tokens: int) -> float:
        """Tokens per second of greedy decoding after the prompt was evaluated."""
        evaluate, context, threads = self._lib.llama_eval, self._context, self._threads
        evaluate(context, (ctypes.c_int * len(prompt))(*prompt), len(prompt), 0, threads)
        pointer = self._lib.llama_get_logits(context)
        logits = np.ctypeslib.as_array(pointer, (self._n_vocab,))
        one = (ctypes.c_int * 1)()
        n_past = len(prompt)
        one[0] = int(logits.argmax())
        begin = time.perf_counter()
        for _ in range(tokens):
            evaluate(context, one, 1, n_past, threads)
            n_past += 1
            one[0] = int(logits.argmax())
        return tokens / (time.perf_counter() - begin)
