"""Loading a model: verify, reckon, decide about the GPU, open, describe."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from ...errors import ModelFileError
from ...gguf import LLAMA_CPP, Vocabulary, open_gguf, verify_file
from .. import memory
from ..base import RuntimeReport
from ..threads import choose_threads, process_budget
from . import bindings
from .adapters import open_adapters, verify_adapters
from .devices import plan_layers
from .embedder import EmbedderPlan
from .encoder import EncoderRuntime
from .model import Context, Loaded
from .opening import ModelPlan, generation_params, open_context, open_model
from .plan import choose_pooling, is_encoder, memory_plan, sizes
from .runtime import LlamaCppRuntime
from .stopping import Stopper
from .text import Tokenizer

if TYPE_CHECKING:
    from ...gguf import GGUFFile
    from ..base import LoadOptions
    from ..handle import Handle
    from .bindings import Native
    from .plan import Sizes

_BPE = 2  # llama_vocab_type


def load(
    path: str | os.PathLike[str], options: LoadOptions, file: GGUFFile | None = None
) -> LlamaCppRuntime | EncoderRuntime:
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
    pooling = choose_pooling(options, file)
    lora = verify_adapters(options.lora, info)
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
    report = RuntimeReport(
        backend=bindings.PACKAGE,
        library=f"{native.version} {layers.device}",
        threads=threads,
        gpu_layers=layers.layers,
        memory_bytes=needs.total,
        notes=(*found.notes, *notes, *layers.notes, *((tight,) if tight else ())),
    )
    causal = file.metadata.flag(f"{info.architecture}.attention.causal") is not False
    causal = causal and not is_encoder(info)
    try:
        adapters = open_adapters(native, model, lora)
        vocabulary = _completed(native, model, vocabulary)
        tokenizer = _tokenizer(native, model, vocabulary, file, own_space)
        context = _context(native, model, plan, found, threads, adapters) if causal else None
    except BaseException:
        model.close()
        raise
    embedder = EmbedderPlan(
        path=path,
        info=info,
        options=options,
        threads=threads,
        pooling=pooling,
        causal=causal,
        n_ctx=found.n_ctx,
        adapters=adapters,
    )
    loaded = Loaded(
        native=native,
        info=info,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        report=report,
        options=options,
        n_ctx=found.n_ctx,
        model=model,
        identity=info.identity if options.mmap else None,
        context=context,
        embedder=embedder if options.embedding else None,
    )
    return EncoderRuntime(loaded) if context is None else LlamaCppRuntime(loaded, context)


def _context(
    native: Native,
    model: Handle,
    plan: ModelPlan,
    found: Sizes,
    threads: int,
    adapters: tuple[int, ...],
) -> Context:
    """The context in which the model generates."""
    recurrent = bool(native.model_is_recurrent(model.address))
    recurrent = recurrent or bool(native.model_is_hybrid(model.address))
    if recurrent:
        # Each sequence that there may be takes a state of its own: no more than are needed.
        found = dataclasses.replace(found, n_outputs=plan.options.n_parallel)
    stopper = Stopper(native.c.ggml_abort_callback)
    params = generation_params(native, plan.options, found, threads, stopper)
    handle = open_context(native, model, params, plan.path)
    if not native.memory(handle.address):
        handle.close()
        raise ModelFileError(
            f"{plan.path}: {plan.info.architecture} has no KV cache, so it does not generate",
            path=plan.path,
            key="general.architecture",
            unsupported=True,
        )
    return Context(
        handle=handle,
        stopper=stopper,
        sizes=found,
        adapters=adapters,
        whole=recurrent,
        slides=native.model_n_swa(model.address) > 0,
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

    def raw(data: bytes, size: int, address: int, room: int) -> int:
        count: int = tokenize(vocab, data, size, address, room, False, False)
        return count

    return Tokenizer(
        vocabulary,
        file.metadata.strings("tokenizer.ggml.tokens").raw(),
        raw,
        own_space=own_space,
        byte_level=native.vocab_type(vocab) == _BPE,
    )
