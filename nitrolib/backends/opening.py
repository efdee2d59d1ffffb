"""The native side of loading: a model and its contexts, or an error with nothing left behind."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ModelLoadError
from ..gguf import FileIdentity
from .handle import Handle
from .native import ContextParams, default_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..gguf import ModelInfo
    from .base import LoadOptions
    from .library import Library

# The batch that the native scratch memory is made for; `batch_size` is what is used of it.
MAX_BATCH = 512


def batch_size(n_ctx: int, info: ModelInfo) -> int:
    """Most tokens in one native evaluation: half of those the scratch is made for, at least 1.

    The library lays its tensors into the scratch by best fit, and for some sizes a batch slightly
    smaller than the one it measured needs more, which ends the process; for half of it none of
    100 000 simulated models needed more than 0.7 of the scratch. With a single attention head it
    copies the result of a batch to wrong places, beyond its memory; one token at a time is right.
    """
    return 1 if info.n_head == 1 else max(1, min(MAX_BATCH, n_ctx) // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativePlan:
    """Everything the native calls of a load depend on."""

    path: str
    options: LoadOptions
    info: ModelInfo
    n_ctx: int
    evaluations: int  # most that run at the same time
    gpu_layers: int
    mlock: bool

    def params(self) -> ContextParams:
        """The parameters for loading and, the same, for every context."""
        params = default_params()
        params.n_ctx, params.n_batch = self.n_ctx, MAX_BATCH
        params.n_gpu_layers = self.gpu_layers
        params.use_mmap, params.use_mlock = self.options.mmap, self.mlock
        params.embedding = self.options.embedding
        return params


def open_model(library: Library, plan: NativePlan) -> tuple[Handle, tuple[Handle, ...]]:
    """The model and its contexts; everything is freed again if any of it fails."""
    native, budget, params = library.native, library.budget, plan.params()
    places = 1 + plan.evaluations
    with library.loading, library.turn:
        budget.take(places + plan.options.n_parallel)
        unused = places + plan.options.n_parallel
        handles: list[Handle] = []
        try:
            _check_identity(plan)
            library.log.clear()
            address = native.llama_load_model_from_file(_native_path(plan.path), params)
            if not address:
                raise _load_failed(plan, library)
            free = functools.partial(_free_in_turn, library, native.llama_free_model)
            model = Handle(address, free, library, functools.partial(budget.give, places))
            handles.append(model)
            unused -= places
            _check_identity(plan)
            _check_sizes(library, model, plan)
            for _ in range(plan.options.n_parallel):
                address = native.llama_new_context_with_model(model.address, params)
                if not address:
                    raise _load_failed(plan, library)
                free = functools.partial(_free_in_turn, library, native.llama_free)
                handles.append(Handle(address, free, model, functools.partial(budget.give, 1)))
                unused -= 1
        except BaseException:
            for handle in reversed(handles):
                handle.close()
            budget.give(unused)
            raise
    return model, tuple(handles[1:])


def _free_in_turn(library: Library, free: Callable[[int], None], address: int) -> None:
    with library.turn:
        free(address)


def _native_path(path: str) -> bytes:
    """The path as the library's fopen reads it: the file system's bytes, on Windows the code page
    of the system, which cannot spell every name."""
    if sys.platform == "win32":
        try:
            return path.encode("mbcs", "strict")
        except UnicodeEncodeError as error:
            raise ModelLoadError(
                f"{path}: the native library cannot open this name; rename the file or its folder",
                path=path,
                reason="name not in the code page of the system",
            ) from error
    else:
        return os.fsencode(path)


def _check_identity(plan: NativePlan) -> None:
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


def _check_sizes(library: Library, model: Handle, plan: NativePlan) -> None:
    """That the library read the same sizes as we did: views and checks are built on ours."""
    native, info = library.native, plan.info
    found = (native.llama_model_n_vocab(model.address), native.llama_model_n_embd(model.address))
    if found != (info.n_vocab, info.n_embd):
        raise ModelLoadError(
            f"{plan.path}: the library sees a vocabulary of {found[0]} and a width of {found[1]}, "
            f"the file says {info.n_vocab} and {info.n_embd}",
            path=plan.path,
            reason="sizes differ",
        )


def _load_failed(plan: NativePlan, library: Library) -> ModelLoadError:
    reason = library.log.reason() or "the library gave no reason"
    return ModelLoadError(
        f"{plan.path} could not be loaded: {reason}", path=plan.path, reason=reason
    )
