"""The native side of loading: a model, its adapters and its context, or an error with nothing left
behind."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ModelFileError, ModelLoadError
from ...gguf import FileIdentity
from ..handle import Handle
from .log import reason

if TYPE_CHECKING:
    from ...gguf import ModelInfo
    from ..base import LoadOptions
    from .bindings import Native
    from .plan import Sizes
    from .stopping import Stopper

CACHE_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}  # ggml_type
_KV_OVERRIDE_BOOL = 2
_LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
_SPLIT_NONE, _SPLIT_LAYER = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """Everything that loading a model depends on.

    own_space: nitrolib puts the space before a text itself, so the library must not.
    """

    path: str
    options: LoadOptions
    info: ModelInfo
    gpu_layers: int
    mlock: bool
    own_space: bool


def open_model(native: Native, plan: ModelPlan) -> Handle:
    """Load the model. Raises ModelLoadError; the file was verified before."""
    _check_identity(plan)
    params, kept = _model_params(native, plan)
    with native.log.reported() as errors:
        address = native.model_load(native_path(plan.path), params)
    del kept
    if not address:
        raise _load_failed(plan.path, reason(errors))
    model = Handle(address, native.model_free, native, _nothing)
    try:
        _check_identity(plan)
        _check_model(native, model, plan)
    except BaseException:
        model.close()
        raise
    return model


def _model_params(native: Native, plan: ModelPlan) -> tuple[Any, list[Any]]:
    """The parameters, and what must outlive the call that gets them."""
    c, options = native.c, plan.options
    params = c.llama_model_default_params()
    params.n_gpu_layers = plan.gpu_layers
    params.load_mode = _LOAD_MODES[options.mmap, plan.mlock]
    kept: list[Any] = []
    if not plan.gpu_layers:
        # An empty list of devices: a GPU that is not to be used is not even started.
        devices = (ctypes.c_void_p * 1)(None)
        params.devices = ctypes.cast(devices, ctypes.c_void_p)
        kept.append(devices)
    elif options.tensor_split:
        # The library reads as many parts as it can have devices.
        split = (ctypes.c_float * max(native.max_devices(), len(options.tensor_split)))()
        split[: len(options.tensor_split)] = options.tensor_split
        params.tensor_split = ctypes.cast(
            split, dict(c.llama_model_params._fields_)["tensor_split"]
        )
        params.split_mode, params.main_gpu = _SPLIT_LAYER, options.main_gpu
        kept.append(split)
    elif options.main_gpu:
        params.split_mode, params.main_gpu = _SPLIT_NONE, options.main_gpu
    if plan.own_space:
        overrides = (c.llama_model_kv_override * 2)()  # the second, with an empty key, is the end
        overrides[0].tag = _KV_OVERRIDE_BOOL
        overrides[0].key = b"tokenizer.ggml.add_space_prefix"
        overrides[0].value.val_bool = False
        params.kv_overrides = overrides
        kept.append(overrides)
    return params, kept


def _check_model(native: Native, model: Handle, plan: ModelPlan) -> None:
    """That the library read the same sizes as we did: views and checks are built on ours; and that
    the model can be run here at all."""
    vocab = native.model_vocab(model.address)
    found = (native.vocab_n_tokens(vocab), native.model_n_embd(model.address))
    if found != (plan.info.n_vocab, plan.info.n_embd):
        raise ModelLoadError(
            f"{plan.path}: the library sees a vocabulary of {found[0]} and a width of {found[1]}, "
            f"the file says {plan.info.n_vocab} and {plan.info.n_embd}",
            path=plan.path,
            reason="sizes differ",
        )
    if native.model_has_encoder(model.address):
        raise ModelFileError(
            f"{plan.path}: {plan.info.architecture} needs an encoder pass of its own before it "
            "decodes, which nitrolib does not do",
            path=plan.path,
            key="general.architecture",
            unsupported=True,
        )


def open_context(native: Native, model: Handle, params: Any, path: str) -> Handle:
    """A context of the model, which it keeps alive. Raises ModelLoadError."""
    with native.log.reported() as errors:
        address = native.context_init(model.address, params)
    if not address:
        raise _load_failed(path, reason(errors))
    return Handle(address, native.context_free, model, _nothing)


def generation_params(
    native: Native,
    options: LoadOptions,
    sizes: Sizes,
    threads: int,
    stopper: Stopper,
) -> Any:
    """Parameters of the context that generates.

    One KV cache for all sequences, so that they can share the cells of a common prefix. Room for
    `n_outputs` sequences: the library sizes its buffer of logits by it once, and views into that
    buffer must never see it move.
    """
    params = base_params(native, threads, stopper)
    params.n_ctx = sizes.cells
    params.n_batch, params.n_ubatch = sizes.n_batch, sizes.n_ubatch
    params.n_seq_max = params.n_outputs_max = params.n_outputs_max_per_seq = sizes.n_outputs
    params.kv_unified = True
    params.swa_full = True
    set_cache(params, options)
    return params


def base_params(native: Native, threads: int, stopper: Stopper) -> Any:
    """What every context has."""
    params = native.c.llama_context_default_params()
    # Both: a micro batch of two tokens counts as a prompt, and so do two slots that decode.
    params.n_threads = params.n_threads_batch = threads
    params.abort_callback, params.abort_callback_data = stopper.callback, stopper.data
    return params


def set_cache(params: Any, options: LoadOptions) -> None:
    """How attention is computed, and how keys and values are kept."""
    params.type_k = CACHE_TYPES[options.cache_type_k]
    params.type_v = CACHE_TYPES[options.cache_type_v]
    flash = options.flash_attention
    params.flash_attn_type = -1 if flash is None else int(flash)
    if options.ngl == 0:
        params.offload_kqv = params.op_offload = False


def native_path(path: str) -> bytes:
    """The path as the library's fopen reads it, which on Windows takes UTF-8."""
    return os.fsencode(path) if os.name != "nt" else path.encode()


def _check_identity(plan: ModelPlan) -> None:
    """That the file is still the one that was verified: just before and just after native code
    reads it."""
    try:
        same = FileIdentity.of(plan.path) == plan.info.identity
    except OSError:
        same = False
    if not same:
        raise ModelLoadError(
            f"{plan.path} changed while it was loaded", path=plan.path, reason="file changed"
        )


def _load_failed(path: str, why: str) -> ModelLoadError:
    why = why or "the library gave no reason"
    return ModelLoadError(f"{path} could not be loaded: {why}", path=path, reason=why)


def _nothing() -> None:
    """A Handle tells when it is freed; here nobody counts."""
