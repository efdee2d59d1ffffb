"""llama-cpp-python's low-level API as this backend uses it: found, checked, and bound to functions
with plain integer results.

The structures go by value, so a library of another version would read and write beside them:
`native()` refuses it, saying which version is needed, before it is given anything.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import importlib.metadata
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BackendUnavailable
from .log import NativeLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PACKAGE = "llama-cpp-python"
MODULE = "llama_cpp"
NEEDED = ">=0.3.36,<0.4"
INSTALL_HINT = f"pip install '{PACKAGE}{NEEDED}'"
_OLDEST, _TOO_NEW = (0, 3, 36), (0, 4)

# How long OpenMP's threads spin before they sleep. Without a bound they spin on cores that others
# need, and a step that takes 12 ms alone takes 190 beside them; with it nothing is lost.
_SPIN_COUNT = "1000"

# Fields that this backend sets, by structure; a version without one of them is another API.
_FIELDS = {
    "llama_model_params": frozenset({
        "devices", "n_gpu_layers", "split_mode", "load_mode", "main_gpu", "tensor_split",
        "kv_overrides",
    }),
    "llama_context_params": frozenset({
        "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_outputs_max", "n_outputs_max_per_seq",
        "n_threads", "n_threads_batch", "pooling_type", "attention_type", "flash_attn_type",
        "type_k", "type_v", "abort_callback", "abort_callback_data", "embeddings", "offload_kqv",
        "swa_full", "kv_unified",
    }),
    "llama_batch": frozenset({
        "n_tokens", "token", "embd", "pos", "n_seq_id", "seq_id", "logits",
    }),
    "llama_model_kv_override": frozenset({"tag", "key", "value"}),
}  # fmt: skip

# What the default parameters of a matching library are, where that tells one layout from another.
_DEFAULTS = {
    "llama_model_default_params": {"n_gpu_layers": -1, "main_gpu": 0, "use_extra_bufts": True},
    "llama_context_default_params": {
        "n_ctx": 512,
        "n_seq_max": 1,
        "pooling_type": -1,
        "flash_attn_type": -1,
        "type_k": 1,
        "type_v": 1,
        "embeddings": False,
        "offload_kqv": True,
        "swa_full": True,
        "kv_unified": False,
    },
}

_POINTER, _INT, _UINT, _SIZE = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_size_t
_BOOL, _TEXT = ctypes.c_bool, ctypes.c_char_p


class Native:
    """The functions used here. Addresses are plain integers, and 0 or None where there is nothing.
    They release the GIL while they run, and check next to nothing: callers check before.

    c: the package's own module, for its structures and constants. version: that of the package.
    evaluated: whether anything was; the library's threads are running since then.
    """

    def __init__(self, c: Any, version: str) -> None:
        self.c, self.version, self.evaluated = c, version, False
        self._libraries = (c._lib, *_ggml_libraries(c))
        self.log = NativeLog(c.llama_log_callback)
        f = self._function
        # The process and its devices
        self.backend_init = f("llama_backend_init", None)
        self.log_set = f("llama_log_set", None, c.llama_log_callback, _POINTER)
        self.supports_gpu_offload = f("llama_supports_gpu_offload", _BOOL)
        self.supports_mlock = f("llama_supports_mlock", _BOOL)
        self.max_devices = f("llama_max_devices", _SIZE)
        self.max_sequences = f("llama_max_parallel_sequences", _SIZE)
        self.device_count = f("ggml_backend_dev_count", _SIZE)
        self.device_get = f("ggml_backend_dev_get", _POINTER, _SIZE)
        self.device_type = f("ggml_backend_dev_type", ctypes.c_int, _POINTER)
        self.device_name = f("ggml_backend_dev_name", _TEXT, _POINTER)
        self.device_description = f("ggml_backend_dev_description", _TEXT, _POINTER)
        self.device_memory = f("ggml_backend_dev_memory", None, _POINTER, _POINTER, _POINTER)
        self.reg_count = f("ggml_backend_reg_count", _SIZE)
        self.reg_get = f("ggml_backend_reg_get", _POINTER, _SIZE)
        self.reg_name = f("ggml_backend_reg_name", _TEXT, _POINTER)
        # A model and its contexts
        self.model_load = f("llama_model_load_from_file", _POINTER, _TEXT, c.llama_model_params)
        self.model_free = f("llama_model_free", None, _POINTER)
        self.model_vocab = f("llama_model_get_vocab", _POINTER, _POINTER)
        self.model_n_embd = f("llama_model_n_embd", _INT, _POINTER)
        self.model_n_embd_out = f("llama_model_n_embd_out", _INT, _POINTER)
        self.model_n_swa = f("llama_model_n_swa", _INT, _POINTER)
        self.model_has_encoder = f("llama_model_has_encoder", _BOOL, _POINTER)
        self.model_is_recurrent = f("llama_model_is_recurrent", _BOOL, _POINTER)
        self.model_is_hybrid = f("llama_model_is_hybrid", _BOOL, _POINTER)
        self.context_init = f("llama_init_from_model", _POINTER, _POINTER, c.llama_context_params)
        self.context_free = f("llama_free", None, _POINTER)
        self.n_batch = f("llama_n_batch", _UINT, _POINTER)
        # Evaluation
        self.decode = f("llama_decode", _INT, _POINTER, c.llama_batch)
        self.logits = f("llama_get_logits", _POINTER, _POINTER)
        self.synchronize = f("llama_synchronize", None, _POINTER)
        self.embeddings = f("llama_get_embeddings", _POINTER, _POINTER)
        self.embeddings_seq = f("llama_get_embeddings_seq", _POINTER, _POINTER, _INT)
        # The KV cache
        self.memory = f("llama_get_memory", _POINTER, _POINTER)
        self.memory_clear = f("llama_memory_clear", None, _POINTER, _BOOL)
        self.seq_rm = f("llama_memory_seq_rm", _BOOL, _POINTER, _INT, _INT, _INT)
        self.seq_cp = f("llama_memory_seq_cp", None, _POINTER, _INT, _INT, _INT, _INT)
        self.seq_add = f("llama_memory_seq_add", None, _POINTER, _INT, _INT, _INT, _INT)
        self.seq_pos_min = f("llama_memory_seq_pos_min", _INT, _POINTER, _INT)
        self.seq_pos_max = f("llama_memory_seq_pos_max", _INT, _POINTER, _INT)
        self.can_shift = f("llama_memory_can_shift", _BOOL, _POINTER)
        self.state_size = f("llama_state_seq_get_size", _SIZE, _POINTER, _INT)
        self.state_get = f("llama_state_seq_get_data", _SIZE, _POINTER, _POINTER, _SIZE, _INT)
        self.state_set = f("llama_state_seq_set_data", _SIZE, _POINTER, _POINTER, _SIZE, _INT)
        # Adapters
        self.adapter_init = f("llama_adapter_lora_init", _POINTER, _POINTER, _TEXT)
        self.set_adapters = f("llama_set_adapters_lora", _INT, _POINTER, _POINTER, _SIZE, _POINTER)
        # Text
        self.vocab_type = f("llama_vocab_type", ctypes.c_int, _POINTER)
        self.vocab_n_tokens = f("llama_vocab_n_tokens", _INT, _POINTER)
        self.vocab_is_eog = f("llama_vocab_is_eog", _BOOL, _POINTER, _INT)
        self.vocab_bos = f("llama_vocab_bos", _INT, _POINTER)
        self.vocab_eos = f("llama_vocab_eos", _INT, _POINTER)
        self.vocab_sep = f("llama_vocab_sep", _INT, _POINTER)
        self.vocab_add_bos = f("llama_vocab_get_add_bos", _BOOL, _POINTER)
        self.vocab_add_eos = f("llama_vocab_get_add_eos", _BOOL, _POINTER)
        self.vocab_add_sep = f("llama_vocab_get_add_sep", _BOOL, _POINTER)
        self.tokenize = f(
            "llama_tokenize", _INT, _POINTER, _TEXT, _INT, _POINTER, _INT, _BOOL, _BOOL
        )
        self.token_to_piece = f(
            "llama_token_to_piece", _INT, _POINTER, _INT, _POINTER, _INT, _INT, _BOOL
        )

    def _function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """A function object of our own: that of the package keeps its types."""
        for library in self._libraries:
            with contextlib.suppress(AttributeError):
                function: Any = library[name]
                function.restype, function.argtypes = result, list(arguments)
                return function  # type: ignore[no-any-return]
        raise _unfit(self.version, f"it lacks {name}")

    def start(self) -> None:
        """Take the library's log and start it."""
        self.log_set(self.log.callback, None)
        self.backend_init()


def _ggml_libraries(c: Any) -> Iterable[Any]:
    """The libraries below libllama. Where a symbol is not found through libllama itself, as on
    Windows, it is in one of them."""
    folder = Path(getattr(c, "_base_path", Path(c.__file__).parent / "lib"))
    for name in ("ggml", "ggml-base"):
        for file in (f"lib{name}.so", f"lib{name}.dylib", f"{name}.dll", f"lib{name}.dll"):
            if (folder / file).exists():
                with contextlib.suppress(OSError):
                    yield ctypes.CDLL(str(folder / file))
                break


# Opening ------------------------------------------------------------------------------------------

_native: Native | None = None
_opening = threading.Lock()
_forked = False  # in the child of a process that has evaluated


def native() -> Native:
    """The library, opened and checked at the first call. Raises BackendUnavailable."""
    global _native
    if _forked:
        raise BackendUnavailable(
            "this process was forked from one that had evaluated with llama-cpp-python, whose "
            "threads did not come along; start it with spawn, or load the model after the fork",
            reason="forked after an evaluation",
            backend=PACKAGE,
            hint="multiprocessing.get_context('spawn')",
        )
    with _opening:
        if _native is None:
            opened = _open()
            opened.start()
            _native = opened
        return _native


def installed_version() -> str | None:
    """The version of the installed package, without importing it; None if there is none."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def _open() -> Native:
    version = installed_version()
    if version is None:
        raise BackendUnavailable(
            f"{PACKAGE} is not installed: {INSTALL_HINT}",
            reason=f"{PACKAGE} is not installed",
            backend=PACKAGE,
            hint=INSTALL_HINT,
        )
    _check_version(version)
    prepare_environment()
    try:
        c = importlib.import_module(f"{MODULE}.llama_cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise BackendUnavailable(
            f"{PACKAGE} {version} cannot be loaded: {error}",
            reason=str(error),
            backend=PACKAGE,
            hint=f"{INSTALL_HINT} --force-reinstall --no-cache-dir",
        ) from error
    _check_layout(c, version)
    atexit.register(_close_package_files)
    return Native(c, version)


def _close_package_files() -> None:
    """The package keeps /dev/null open for its own silence, and leaves it so at exit: a warning."""
    utils = sys.modules.get(f"{MODULE}._utils")
    for name in ("outnull_file", "errnull_file"):
        file = getattr(utils, name, None)
        if file is not None:
            file.close()


def prepare_environment() -> None:
    """Variables that the native code reads when it is loaded, or when it dies: a bound on spinning,
    unless the user chose one, and no debugger started by an abort."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")


def _check_version(version: str) -> None:
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    found = tuple(int(number or 0) for number in numbers.groups()) if numbers else ()
    if not _OLDEST <= found < _TOO_NEW:
        raise _unfit(version, "its low-level API is another one")


def _check_layout(c: Any, version: str) -> None:
    for name, needed in _FIELDS.items():
        structure = getattr(c, name, None)
        found = {field[0] for field in getattr(structure, "_fields_", ())}
        if not needed <= found:
            missing = ", ".join(sorted(needed - found))
            raise _unfit(version, f"its {name} has no {missing}")
    for name, defaults in _DEFAULTS.items():
        params = getattr(c, name)()
        if any(getattr(params, field, None) != value for field, value in defaults.items()):
            raise _unfit(version, f"the library's {name} does not fit the package's structures")


def _unfit(version: str, reason: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{PACKAGE} {version} does not fit: {reason}. {PACKAGE}{NEEDED} is needed: {INSTALL_HINT}",
        reason=reason,
        backend=PACKAGE,
        hint=INSTALL_HINT,
    )


def after_fork() -> None:
    """In the child of a fork: whoever held the lock exists no more, and after an evaluation
    neither do OpenMP's threads, for which the next one would wait for ever."""
    global _opening, _forked
    _opening = threading.Lock()
    _forked = _forked or (_native is not None and _native.evaluated)
