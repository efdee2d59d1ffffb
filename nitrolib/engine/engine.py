"""Engine: the face. Loads one model at a time and runs requests on it, from any thread."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..backends.base import LoadOptions, Runtime
from ..errors import InvalidRequest, ModelAlreadyLoaded, ModelNotLoaded
from ..prompt.message import Prompt, Segment
from ..sampling import SamplingParams
from .chat import ContextPolicy, MessageLike, Template, chat_request
from .cleaning import CacheCleaningPolicy, CleaningPolicy
from .counters import Counters
from .job import refuse_in_loop
from .model import LoadedModel
from .request import (
    CacheCleared,
    Completion,
    Embeddings,
    GenerationRequest,
    Reranking,
    check_timeout,
)
from .status import EngineStatus, ModelStatus

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ..gguf import Vocabulary
    from .generation import Generation
    from .handle import Handle
    from .scheduler import StopReason
    from .slot_state import SlotState

__all__ = ["Engine"]

PromptLike = str | Prompt | Sequence[int]
Loader = Callable[[str, LoadOptions, str], Runtime]


class Engine:
    """A local model to generate with.

        with Engine.open("model.gguf") as engine:
            for chunk in engine.stream("Once upon a time"):
                print(chunk.text, end="")

    Every method may be called from any thread. Several engines may live in one process. After a
    fork the child makes its own: a loaded model is not taken along, and using it there raises
    ModelNotLoaded.

    max_queue: requests that may wait beyond those that fill the slots; one more is Overloaded.
        0 is no waiting.
    cleaning: decides when the KV cache is cleaned; None is
        CacheCleaningPolicy(options.clean_cache_threshold), new for each load.
    loader: makes the Runtime from path, options and backend name; None is `nitrolib.backends.load`.
    """

    def __init__(
        self,
        *,
        max_queue: int = 64,
        cleaning: CleaningPolicy | None = None,
        loader: Loader | None = None,
    ) -> None:
        if isinstance(max_queue, bool) or not isinstance(max_queue, int) or max_queue < 0:
            raise InvalidRequest(
                f"max_queue must be a whole number of at least 0, got {max_queue!r}",
                field="max_queue",
                value=max_queue,
                allowed="a whole number of at least 0",
            )
        self.max_queue = max_queue
        self._cleaning = cleaning
        self._counters = Counters()
        self._loader = loader or _load
        self._lifecycle = threading.Lock()  # held by load, unload and close; status needs none
        self._model: LoadedModel | None = None
        self._loading = False
        self._closed = False
        self._abandon: weakref.finalize[..., Engine] | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        options: LoadOptions | None = None,
        backend: str = "auto",
        **engine: Any,
    ) -> Self:
        """Make an engine and load a model; keyword arguments are those of Engine. Raises as `load`
        does."""
        made = cls(**engine)
        made.load(path, options, backend)
        return made

    # ---- the model -------------------------------------------------------------------------

    def load(
        self,
        path: str | os.PathLike[str],
        options: LoadOptions | None = None,
        backend: str = "auto",
    ) -> ModelStatus:
        """Load a model, warm it up, and return its status. Loads are serialised.

        A loaded model that is provisional gives way, whatever comes of the new load. Raises
        ModelAlreadyLoaded when another is loaded, ModelFileError, InvalidRequest, ModelLoadError
        and its kinds; after a failed load the engine is empty and usable.
        """
        refuse_in_loop()
        options = LoadOptions() if options is None else options
        path = os.fspath(path)
        with self._lifecycle:
            self._check_may_load()
            self._loading = True
            try:
                self._drop("unload")
                self._take(path, options, backend)
            finally:
                self._loading = False
            return self._current().status()

    def unload(self) -> bool:
        """Free the model. Running and waiting requests end with Cancelled(reason="unload"), whose
        `partial` is what there was. False when nothing was loaded."""
        refuse_in_loop()
        with self._lifecycle:
            return self._drop("unload")

    def close(self) -> None:
        """Unload, and refuse further loads. Requests end with Cancelled(reason="shutdown"). Safe to
        call twice."""
        refuse_in_loop()
        with self._lifecycle:
            self._closed = True
            self._drop("shutdown")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- generating ------------------------------------------------------------------------

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request and return its handle at once. Everything about it is checked here.

        Raises ModelNotLoaded, InvalidRequest (empty prompt, token id or slot that does not exist,
        a bad parameter), Unsupported, ContextOverflow, Overloaded.
        """
        return self._current().submit(request, keep_alive=self)[0]

    def submit_choices(self, request: GenerationRequest, n: int) -> tuple[Generation, ...]:
        """Queue `n` answers to one prompt, which is evaluated once; their handles in order.

        Choice j has the seed of the request plus j, unless that is a fresh draw. They take n places
        in the queue: all of them or none. The first to run evaluates the prompt and the others go
        on from what its slot then holds, one after another (side by side where the backend copies
        sequences), also with `cache_prompt` False; only a prompt that the slot has lost, to a shift
        or a failure, is evaluated again. Each handle is a generation of its own: ending one leaves
        the others. `Usage.of_choices` adds their usages up.

        Raises as `submit` does, and InvalidRequest for an `n` that can never be queued.
        """
        return self._current().submit(request, n, keep_alive=self)

    def stream(
        self, prompt: PromptLike, params: SamplingParams | None = None, **fields: Any
    ) -> Generation:
        """Continue a prompt; iterate what is returned. Other fields are those of GenerationRequest.

        A str is plain text: BOS is added as the model wants it, and nothing in it becomes a control
        token. A Prompt and token ids are taken as they are.
        """
        return self.submit(_request(prompt, params, fields))

    def complete(
        self, prompt: PromptLike, params: SamplingParams | None = None, **fields: Any
    ) -> Completion:
        """Continue a prompt and wait for the whole of it; see `stream`."""
        with self.stream(prompt, params, **fields) as generation:
            return generation.result()

    def chat(
        self,
        messages: Sequence[MessageLike],
        params: SamplingParams | None = None,
        template: Template | None = None,
        context_policy: ContextPolicy = "error",
        **fields: Any,
    ) -> Completion:
        """Answer a conversation and wait for the whole answer.

        messages: Message objects, or mappings with "role" and "content".
        template: None is the model's own chat template, else (the file has none) PromptTemplate().
            Its stop strings are added to those of `params`.
        context_policy: "error" raises ContextOverflow for a conversation that does not fit;
            "drop_oldest_turns" leaves out the oldest messages, system messages and the last one
            excepted, until the prompt fits, and says so in `Completion.notes`; "shift" is for an
            answer that outgrows the context, see `GenerationRequest`.
        """
        request = self.chat_request(messages, params, template, context_policy, **fields)
        with self.submit(request) as generation:
            return generation.result()

    def chat_request(
        self,
        messages: Sequence[MessageLike],
        params: SamplingParams | None = None,
        template: Template | None = None,
        context_policy: ContextPolicy = "error",
        **fields: Any,
    ) -> GenerationRequest:
        """The request that `chat` runs, to be submitted when wanted (streaming)."""
        params = SamplingParams() if params is None else params
        return chat_request(self._current(), messages, params, template, context_policy, fields)

    def embed(
        self,
        inputs: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]],
        timeout_s: float | None = None,
    ) -> Embeddings:
        """Vectors for one input (text or token ids) or several, in their order.

        Raises as `submit` does, with the index of a bad input; Unsupported when the model was
        loaded without embeddings; DeadlineExceeded after `timeout_s` seconds.
        """
        with self.submit_embed(inputs, timeout_s) as handle:
            return handle.result()

    def submit_embed(
        self,
        inputs: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]],
        timeout_s: float | None = None,
    ) -> Handle[Embeddings]:
        """`embed` without the waiting: a handle with `result`, `cancel` and `done`."""
        check_timeout(timeout_s)
        return self._current().embed(_inputs(inputs), timeout_s, keep_alive=self)

    def rerank(
        self, query: str, documents: Sequence[str], timeout_s: float | None = None
    ) -> Reranking:
        """How well each document answers a query: one score a document, in their order.

        Raises Unsupported for a model that was not trained to score, InvalidRequest (field
        "query", "documents" or "documents[i]"), ContextOverflow for a document that does not fit
        together with the query, Overloaded, DeadlineExceeded after `timeout_s` seconds.
        """
        with self.submit_rerank(query, documents, timeout_s) as handle:
            return handle.result()

    def submit_rerank(
        self, query: str, documents: Sequence[str], timeout_s: float | None = None
    ) -> Handle[Reranking]:
        """`rerank` without the waiting: a handle with `result`, `cancel` and `done`."""
        check_timeout(timeout_s)
        if isinstance(documents, str):
            raise InvalidRequest(
                "documents must be several texts, got one",
                field="documents",
                value=documents[:200],
                allowed="a sequence of texts",
            )
        return self._current().rerank(query, list(documents), timeout_s, keep_alive=self)

    # ---- text, state -----------------------------------------------------------------------

    def tokenize(
        self,
        text: str,
        special: bool = False,
        add_bos: bool = False,
        space_prefix: bool = True,
    ) -> list[int]:
        """Token ids of a text. With `special` the texts of control tokens become those tokens; with
        `add_bos` BOS goes in front, where the model wants one. Without `space_prefix` the text
        goes on from text before it, and no space is put in front."""
        prompt = Prompt((Segment(text, special=special),), add_bos=add_bos)
        return self._current().encode(prompt, continues=not space_prefix)

    def prompt_ids(self, prompt: PromptLike) -> list[int]:
        """Token ids of a prompt, as `stream` takes it. Raises InvalidRequest for one without tokens
        and for an id out of range, ContextOverflow for one that leaves no room for an answer."""
        return self._current().prompt_ids(_request(prompt, None, {}).prompt)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of token ids, without the one space that the tokenizer put before it. Control tokens
        have no text; broken UTF-8 becomes U+FFFD. Raises InvalidRequest for an id out of range."""
        return self._current().detokenize(_ints(ids, "ids"))

    @property
    def vocabulary(self) -> Vocabulary:
        """The loaded model's tokens. Raises ModelNotLoaded."""
        return self._current().runtime.vocabulary

    @property
    def chat_template(self) -> Template:
        """What `chat` uses when no template is given: the model's own from its file, else
        PromptTemplate(). Raises ModelNotLoaded, and ModelFileError for one that is broken."""
        return self._current().chat_template

    def clear_cache(self) -> CacheCleared:
        """Empty the KV cache of all idle slots now. Busy slots are not touched; the answer says
        which. The count of chats since the last cleaning starts anew."""
        return self._current().clear_cache()

    def save_slot(self, slot: int) -> SlotState:
        """What an idle slot has evaluated, to be kept and restored into any slot of the same model
        loaded with the same options. Raises InvalidRequest for a slot that does not exist, Conflict
        for one at work, and Unsupported where the backend cannot."""
        return self._current().slot_states.save(slot)

    def restore_slot(self, slot: int, state: SlotState) -> None:
        """Make an idle slot hold what was saved, for prompts that begin so. Raises as `save_slot`,
        and InvalidRequest (field "state") for a state that does not fit: the slot is empty then."""
        self._current().slot_states.restore(slot, state)

    def erase_slot(self, slot: int) -> int:
        """Empty an idle slot. Returns how many tokens it held. Raises InvalidRequest and Conflict
        as `save_slot`."""
        return self._current().slot_states.erase(slot)

    def set_lora_scales(self, scales: Sequence[tuple[int, float]]) -> None:
        """Set with what strength LoRA adapters act on requests that name none: pairs of an
        adapter's number and its strength; 0 for those not named. Holds for requests submitted from
        now on. Raises Unsupported where no adapter was loaded, and InvalidRequest."""
        self._current().adapters.set(scales)

    def status(self) -> EngineStatus:
        """What the engine does now. Answers at once, during a load too."""
        model = self._model
        if model is not None and model.forked:
            model = None
        running, waiting = (0, 0) if model is None else model.counts()
        return EngineStatus(
            model=None if model is None else model.status(),
            loading=self._loading,
            running=running,
            waiting=waiting,
            max_queue=self.max_queue,
            counters=self._counters.snapshot(),
        )

    # ---- inside ----------------------------------------------------------------------------

    def _current(self) -> LoadedModel:
        model = self._model
        if model is None:
            raise ModelNotLoaded(
                "a model is being loaded" if self._loading else "no model is loaded"
            )
        model.check_process()
        return model

    def _check_may_load(self) -> None:
        if self._closed:
            raise ModelNotLoaded("the engine is closed and loads no more models")
        model = self._model
        if model is None:
            return
        model.check_process()
        if not model.options.provisional:
            raise ModelAlreadyLoaded(f"{model.path} is loaded; unload it first", path=model.path)

    def _take(self, path: str, options: LoadOptions, backend: str) -> None:
        runtime = self._loader(path, options, backend)
        cleaning = self._cleaning
        if cleaning is None:
            cleaning = CacheCleaningPolicy(options.clean_cache_threshold)
        try:
            cleaning.reset()
            model = LoadedModel(
                path, options, runtime, cleaning, max_queue=self.max_queue, counters=self._counters
            )
        except BaseException:
            runtime.close()
            raise
        # An engine that is dropped without close() must not leave a thread and a model behind.
        abandon = weakref.finalize(self, model.scheduler.stop_soon, "shutdown")
        abandon.atexit = False  # the scheduler sees to the interpreter's exit itself
        try:
            if options.warm_up:
                model.warm_up()
        except BaseException:
            model.close("unload")
            raise
        self._model, self._abandon = model, abandon

    def _drop(self, reason: StopReason) -> bool:
        model, self._model = self._model, None
        if model is None:
            return False
        if self._abandon is not None:
            self._abandon.detach()
        model.close(reason)
        model.cleaning.reset()
        return True


def _load(path: str, options: LoadOptions, backend: str) -> Runtime:
    from .. import backends

    return backends.load(path, options, backend)


def _request(
    prompt: PromptLike, params: SamplingParams | None, fields: dict[str, Any]
) -> GenerationRequest:
    if isinstance(prompt, str):
        made: Prompt | tuple[int, ...] = Prompt.plain(prompt)
    elif isinstance(prompt, Prompt):
        made = prompt
    else:
        made = tuple(_ints(prompt, "prompt"))
    return GenerationRequest(
        prompt=made, params=SamplingParams() if params is None else params, **fields
    )


def _ints(ids: Sequence[int], field: str) -> list[int]:
    """Plain ints, of numpy integers too."""
    try:
        return [one if isinstance(one, bool) else operator.index(one) for one in ids]
    except TypeError:
        raise InvalidRequest(
            f"{field} must be text or token ids, got {ids!r}"[:200],
            field=field,
            value=ids,
            allowed="text, or a sequence of whole numbers",
        ) from None


def _inputs(
    inputs: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]],
) -> list[str | list[int]]:
    """All four forms of embedding input as a list of texts or id lists."""
    if isinstance(inputs, str):
        return [inputs]
    several: list[Any] = list(inputs)
    if not several:
        raise InvalidRequest(
            "input is empty", field="input", value=inputs, allowed="at least one input"
        )
    if all(isinstance(one, int) or hasattr(one, "__index__") for one in several):
        return [_ints(several, "input[0]")]
    texts = sum(isinstance(one, str) for one in several)
    if 0 < texts < len(several):
        raise InvalidRequest(
            "input mixes texts and token ids",
            field="input",
            value=inputs,
            allowed="texts only, or token ids only",
        )
    if texts:
        return several
    return [_ints(one, f"input[{index}]") for index, one in enumerate(several)]
