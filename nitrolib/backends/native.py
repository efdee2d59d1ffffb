"""The llama C API that the ctransformers shared library exports, declared for ctypes and checked.

ctransformers 0.2.27 is built on llama.cpp of 28 August 2023 (commit 43033b7b). `bind` refuses a
library of any other layout before a single structure is passed to it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import BackendUnavailable

Function = Callable[..., Any]


class ContextParams(ctypes.Structure):
    """`llama_context_params`; passed by value to loading and to making a context."""

    _fields_ = (
        ("seed", ctypes.c_uint32),
        ("n_ctx", ctypes.c_int32),
        ("n_batch", ctypes.c_int32),
        ("n_gpu_layers", ctypes.c_int32),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.POINTER(ctypes.c_float)),
        ("rope_freq_base", ctypes.c_float),
        ("rope_freq_scale", ctypes.c_float),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
        ("low_vram", ctypes.c_bool),
        ("mul_mat_q", ctypes.c_bool),
        ("f16_kv", ctypes.c_bool),
        ("logits_all", ctypes.c_bool),
        ("vocab_only", ctypes.c_bool),
        ("use_mmap", ctypes.c_bool),
        ("use_mlock", ctypes.c_bool),
        ("embedding", ctypes.c_bool),
    )


def default_params() -> ContextParams:
    """What the library of the expected version calls its defaults.

    The rope values are its "not given": with them it takes `rope.freq_base` and
    `rope.scale_linear` from the file, so they are left as they are.
    """
    return ContextParams(
        seed=0xFFFFFFFF,
        n_ctx=512,
        n_batch=512,
        rope_freq_base=10000.0,
        rope_freq_scale=1.0,
        f16_kv=True,
        use_mmap=True,
    )


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

# Pointers are declared c_void_p: a plain address converts in a fraction of what a typed pointer
# costs, and these calls are made once a token.
_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, [ctypes.c_bool]),
    "llama_log_set": (None, [LogCallback, _POINTER]),
    "llama_load_model_from_file": (_POINTER, [ctypes.c_char_p, ContextParams]),
    "llama_free_model": (None, [_POINTER]),
    "llama_model_n_vocab": (_INT, [_POINTER]),
    "llama_model_n_ctx": (_INT, [_POINTER]),
    "llama_model_n_embd": (_INT, [_POINTER]),
    "llama_new_context_with_model": (_POINTER, [_POINTER, ContextParams]),
    "llama_free": (None, [_POINTER]),
    "llama_eval": (_INT, [_POINTER, _POINTER, _INT, _INT, _INT]),
    "llama_get_logits": (_POINTER, [_POINTER]),
    "llama_get_embeddings": (_POINTER, [_POINTER]),
    "llama_tokenize_with_model": (
        _INT,
        [_POINTER, ctypes.c_char_p, _POINTER, _INT, ctypes.c_bool],
    ),
}


@dataclass(frozen=True, slots=True)
class Native:
    """The functions used here, each with its C types; they release the GIL while they run.

    None of them checks its arguments: a wrong one ends the process. Callers check before.
    """

    llama_backend_init: Function
    llama_log_set: Function
    llama_load_model_from_file: Function
    llama_free_model: Function
    llama_model_n_vocab: Function
    llama_model_n_ctx: Function
    llama_model_n_embd: Function
    llama_new_context_with_model: Function
    llama_free: Function
    llama_eval: Function
    llama_get_logits: Function
    llama_get_embeddings: Function
    llama_tokenize_with_model: Function


def bind(library: Any, name: str) -> Native:
    """The checked API of `library`, a ctypes.CDLL opened from the file `name`.

    Raises BackendUnavailable if a function is missing or if the structure it fills is not the
    one declared here.
    """
    missing = [symbol for symbol in _SIGNATURES if not hasattr(library, symbol)]
    if missing or not hasattr(library, "llama_context_default_params"):
        raise _unknown(name, f"it lacks {', '.join(missing) or 'llama_context_default_params'}")
    _check_layout(library.llama_context_default_params, name)
    functions = {}
    for symbol, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, symbol)
        function.restype, function.argtypes = result, arguments
        functions[symbol] = function
    return Native(**functions)


class _Roomy(ctypes.Structure):
    """Room for a structure larger than ours: the caller of such a function provides the memory,
    so a library of another version must not find too little of it."""

    _fields_ = (("data", ctypes.c_ubyte * 1024),)


def _check_layout(function: Any, name: str) -> None:
    function.restype, function.argtypes = _Roomy, []
    found = ContextParams.from_buffer_copy(function().data)
    if _values(found) != _values(default_params()):
        raise _unknown(name, "its llama_context_params are laid out differently")


def _values(params: ContextParams) -> list[object]:
    """The fields, without the padding between them, which nobody writes."""
    values = {name: getattr(params, name) for name, _ in ContextParams._fields_}
    values["tensor_split"] = bool(params.tensor_split)
    return list(values.values())


def _unknown(name: str, reason: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{name} is not the library of ctransformers 0.2.27: {reason}",
        reason=reason,
        backend="ctransformers",
        hint="pip install 'ctransformers>=0.2.27,<0.3'",
    )
