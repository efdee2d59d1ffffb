"""Loading a model: verify, reckon, decide about the GPU, open, describe."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from ...gguf import LLAMA_CPP, Vocabulary, open_gguf, verify_file
from .. import memory
from ..base import RuntimeReport
from ..threads import choose_threads, process_budget
from . import bindings
from .devices import plan_layers
from .opening import ModelPlan, generation_params, open_context, open_model
from .plan import memory_plan, sizes
from .runtime import LlamaCppRuntime, Loaded
from .stopping import Stopper
from .text import Tokenizer

if TYPE_CHECKING:
    from ...gguf import GGUFFile
    from ..base import LoadOptions
    from ..handle import Handle
    from .bindings import Native

_BPE = 2  # llama_vocab_type


def load(
    path: str | os.PathLike[str], options: LoadOptions, file: GGUFFile | None = None
) -> LlamaCppRuntime:
    """Verify, reckon, then load. `file` is the header of the file where it was read already.

    Raises ModelFileError for a file that native code must not see, InvalidRequest for an option
    that cannot be, and ModelLoadError or one of its kind if the machine does not allow it; each
    before native code could fail on it.
    """
    path = os.path.abspath(os.fspath(path))
    file = open_gguf(path) if file is None else file
    info = verify_file(file, LLAMA_CPP)
    threads = choose_threads(options.threads, process_budget().cores)
    found = sizes(options, info)
    needs = memory_plan(options, info)
    tight = memory.check(needs, path, memory.available_bytes())
    native = bindings.native()
    layers = plan_layers(native, options, info, needs)
    mlock, notes = _mlock(native, options, needs)
    vocabulary = Vocabulary.from_gguf(file)
    own_space = info.tokenizer == "llama" and vocabulary.add_space_prefix
    plan = ModelPlan(
        path=path,
        options=options,
        info=info,
        gpu_layers=layers.layers,
        mlock=mlock,
        own_space=own_space,
    )
    model = open_model(native, plan)
    recurrent = bool(native.model_is_recurrent(model.address))
    recurrent = recurrent or bool(native.model_is_hybrid(model.address))
    stopper = Stopper(native.c.ggml_abort_callback)
    params = generation_params(native, options, found, threads, stopper, recurrent=recurrent)
    context = open_context(native, model, params, path)
    report = RuntimeReport(
        backend=bindings.PACKAGE,
        library=f"{native.version} {layers.device}",
        threads=threads,
        gpu_layers=layers.layers,
        memory_bytes=needs.total,
        notes=(*found.notes, *notes, *layers.notes, *((tight,) if tight else ())),
    )
    vocabulary = _completed(native, model, vocabulary)
    return LlamaCppRuntime(
        Loaded(
            native=native,
            info=info,
            vocabulary=vocabulary,
            tokenizer=_tokenizer(native, model, vocabulary, file, own_space),
            report=report,
            options=options,
            sizes=found,
            model=model,
            context=context,
            stopper=stopper,
            identity=info.identity if options.mmap else None,
            forgets_whole=recurrent,
            slides=native.model_n_swa(model.address) > 0,
        )
    )


def _mlock(
    native: Native, options: LoadOptions, needs: memory.MemoryPlan
) -> tuple[bool, tuple[str, ...]]:
    """Whether the weights are kept in RAM, and a note if that was asked for in vain."""
    if not options.mlock:
        return False, ()
    if native.supports_mlock() and memory.may_lock(needs.weights):
        return True, ()
    size = memory.megabytes(needs.weights)
    return False, (f"mlock was not done: this process may not lock {size}",)


def _completed(native: Native, model: Handle, vocabulary: Vocabulary) -> Vocabulary:
    """The vocabulary with what the library adds to the file: it knows more texts that end a turn,
    and families whose files are silent about BOS."""
    vocab = native.model_vocab(model.address)
    is_eog = native.vocab_is_eog
    ends = frozenset(token for token in range(vocabulary.n_vocab) if is_eog(vocab, token))
    bos, eos = native.vocab_bos(vocab), native.vocab_eos(vocab)
    return dataclasses.replace(
        vocabulary,
        eog=ends,
        bos=bos if bos >= 0 else None,
        eos=eos if eos >= 0 else None,
        add_bos=bool(native.vocab_add_bos(vocab)) and bos >= 0,
    )


def _tokenizer(
    native: Native, model: Handle, vocabulary: Vocabulary, file: GGUFFile, own_space: bool
) -> Tokenizer:
    vocab = native.model_vocab(model.address)
    tokenize = native.tokenize

    def raw(data: bytes, size: int, address: int, room: int, _model: Handle = model) -> int:
        # `_model` keeps the vocabulary for the length of the call, whatever `close` does meanwhile.
        count: int = tokenize(vocab, data, size, address, room, False, False)
        return count

    return Tokenizer(
        vocabulary,
        file.metadata.strings("tokenizer.ggml.tokens").raw(),
        raw,
        own_space=own_space,
        lossless=native.vocab_type(vocab) == _BPE,
    )
