"""An engine without a model, for the adapter's unit tests: scripted answers, recorded requests."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from nitrolib.backends.base import LoadOptions
from nitrolib.engine.chat import chat_request
from nitrolib.engine.choices import check_count, each
from nitrolib.engine.generation import Generation
from nitrolib.engine.handle import Handle, Outbox
from nitrolib.engine.request import (
    Chunk,
    Completion,
    Embeddings,
    EngineStatus,
    FinishReason,
    GenerationRequest,
    ModelStatus,
    Progress,
    Reranking,
    SlotStatus,
    Timings,
    TokenProb,
    TokenProbs,
    Usage,
)
from nitrolib.engine.slot_state import SlotState
from nitrolib.errors import (
    ContextOverflow,
    ModelAlreadyLoaded,
    ModelNotLoaded,
    NitroError,
    Unsupported,
)
from nitrolib.prompt import PromptTemplate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nitrolib.prompt import Prompt

USAGE = Usage(prompt_tokens=90, completion_tokens=13, cached_tokens=7)
TIMINGS = Timings(queue_s=0.0, prefill_s=0.1, decode_s=0.2, cache_n=7, prompt_n=83, predicted_n=13)
PROGRESS = Progress(total=90, cached=7, processed=50, time_s=0.25)


def model_status(path: str = "fake.gguf", options: LoadOptions | None = None) -> ModelStatus:
    """Status of a model loaded with *options*."""
    options = options or LoadOptions()
    slots = (SlotStatus(slot=0, state="idle", cached_tokens=0),) * options.n_parallel
    return ModelStatus(
        path=path,
        name="fake",
        architecture="llama",
        provisional=options.provisional,
        backend="fake",
        library="none",
        threads=options.threads or 1,
        gpu_layers=0,
        memory_bytes=0,
        n_ctx=options.ctx_len // options.n_parallel,
        n_ctx_train=2048,
        n_vocab=32000,
        n_embd=3,
        n_parallel=options.n_parallel,
        cont_batching=options.cont_batching,
        embedding=options.embedding,
        caching=options.caching,
        clean_cache_threshold=options.clean_cache_threshold,
        chats_since_clean=0,
        cleanings=0,
        notes=(),
        slots=slots,
    )


class FakeEngine:
    """Set what happens next, then look at what was asked.

    pieces, finish_reason, truncated: the answer of every generation.
    room: the context, in characters, for prompts that are cut to fit.
    special: names of control tokens, by id from 256 on.
    states: what the slots hold.
    refuse: raised by submit. fail: raised after the pieces. load_error: raised by load.
    requests, embeds, loads: what came in.
    """

    def __init__(self, *, loaded: bool = True) -> None:
        self.model: ModelStatus | None = model_status() if loaded else None
        self.pieces: tuple[str, ...] = ("Hello", " there")
        self.finish_reason: FinishReason = "stop"
        self.truncated = False
        self.room = 2048
        self.special = {"<s>": 256}
        self.states: dict[int, SlotState] = {}
        self.notes: tuple[str, ...] = ()
        self.load_notes: tuple[str, ...] = ()
        self.refuse: Exception | None = None
        self.fail: Exception | None = None
        self.load_error: NitroError | None = None
        self.requests: list[GenerationRequest] = []
        self.generations: list[FakeGeneration] = []
        self.embeds: list[Any] = []
        self.loads: list[tuple[str, LoadOptions, str]] = []
        self.closed = False

    def load(self, path: str, options: LoadOptions, backend: str) -> ModelStatus:
        self.loads.append((path, options, backend))
        if self.model is not None and not self.model.provisional:
            raise ModelAlreadyLoaded("loaded", path=self.model.path)
        self.model = None
        if self.load_error is not None:
            raise self.load_error
        self.model = replace(model_status(path, options), notes=self.load_notes)
        return self.model

    def unload(self) -> bool:
        had, self.model = self.model is not None, None
        return had

    def close(self) -> None:
        self.closed = True

    def status(self) -> EngineStatus:
        return EngineStatus(model=self.model, loading=False, running=0, waiting=0, max_queue=64)

    @property
    def chat_template(self) -> PromptTemplate:
        """Nitro's prompts, as of a file without a template."""
        if self.model is None:
            raise ModelNotLoaded
        return PromptTemplate()

    @property
    def vocabulary(self) -> SimpleNamespace:
        """A byte for every token below 256, and the control tokens of `special`."""
        if self.model is None:
            raise ModelNotLoaded
        pieces = [bytes([byte]) for byte in range(256)]
        return SimpleNamespace(
            pieces=[*pieces, *[b""] * len(self.special)],
            special=self.special,
            n_vocab=256 + len(self.special),
            bos=256,
            eos=None,
            eog=frozenset({256}),
            add_bos=True,
        )

    def chat_request(
        self, messages: Any, params: Any, template: Any, context_policy: Any, **fields: Any
    ) -> GenerationRequest:
        """The engine's own, with a token for every character of the prompt."""
        if self.model is None:
            raise ModelNotLoaded
        model: Any = SimpleNamespace(prompt_ids=self._prompt_ids)
        return chat_request(model, messages, params, template, context_policy, fields)

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        ids = [ord(one) for one in prompt.text]
        if len(ids) >= self.room:
            raise ContextOverflow(prompt_tokens=len(ids), limit=self.room)
        return ids

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        if self.model is None:
            raise ModelNotLoaded
        return self._prompt_ids(prompt)

    def tokenize(
        self, text: str, special: bool = False, add_bos: bool = False, space_prefix: bool = True
    ) -> list[int]:
        names = "|".join(map(re.escape, self.special)) if special else "$."
        ids = [256] if add_bos else []
        for part in re.split(f"({names})", text):
            ids += [self.special[part]] if special and part in self.special else part.encode()
        return ids

    def detokenize(self, ids: list[int]) -> str:
        return bytes(ids).decode()

    def submit_choices(self, request: GenerationRequest, n: int) -> tuple[FakeGeneration, ...]:
        if self.model is None:
            raise ModelNotLoaded
        if self.refuse is not None:
            raise self.refuse
        check_count(n, 64)
        if request.lora and not self.model.lora:
            raise Unsupported("no LoRA adapters were loaded with this model", field="lora")
        self.requests.append(request)
        made = tuple(
            FakeGeneration(self, replace(one, notes=request.notes + self.notes))
            for one in each(request, n)
        )
        self.generations += made
        return made

    def submit_embed(self, inputs: Any) -> FakeEmbedding:
        if self.model is None:
            raise ModelNotLoaded
        if self.refuse is not None:
            raise self.refuse
        self.embeds.append(inputs)
        one = isinstance(inputs, str) or isinstance(inputs[0], int)
        return FakeEmbedding(1 if one else len(inputs))

    def save_slot(self, slot: int) -> SlotState:
        if self.refuse is not None:
            raise self.refuse
        return self.states.get(slot, SlotState((), b""))

    def restore_slot(self, slot: int, state: SlotState) -> None:
        self.states[slot] = state

    def erase_slot(self, slot: int) -> int:
        return len(self.states.pop(slot, SlotState((), b"")).tokens)

    def set_lora_scales(self, scales: tuple[tuple[int, float], ...]) -> None:
        assert self.model is not None
        given = dict(scales)
        made = tuple(replace(one, scale=given.get(one.id, 0.0)) for one in self.model.lora)
        self.model = replace(self.model, lora=made)

    def submit_rerank(self, query: str, documents: list[str]) -> FakeReranking:
        """The longer the document, the better."""
        if self.refuse is not None:
            raise self.refuse
        self.embeds.append((query, documents))
        return FakeReranking(documents)


class FakeGeneration(Generation):
    """The scripted answer, all of it there at once; `cancelled` as soon as somebody let it go."""

    def __init__(self, engine: FakeEngine, request: GenerationRequest) -> None:
        super().__init__(request, Outbox(), lambda: None)
        self.engine = engine
        self.cancelled = False
        for chunk in self._chunks():
            self._outbox.put(chunk)
        if engine.fail is None:
            self._outbox.finish(self._completion())
        else:
            self._outbox.finish(cast("NitroError", engine.fail))

    def cancel(self) -> None:
        self.cancelled = True

    def result(self, timeout: float | None = None) -> Completion:
        self._raise_unexpected()
        return super().result(timeout)

    def _next(self, block: bool) -> Chunk | None:
        chunk = super()._next(block)
        if chunk is None:
            self._raise_unexpected()
        return chunk

    def _raise_unexpected(self) -> None:
        """The real engine's outcomes are all NitroErrors."""
        if self.engine.fail is not None and not isinstance(self.engine.fail, NitroError):
            raise self.engine.fail

    def _chunks(self) -> Iterator[Chunk]:
        engine, request = self.engine, self.request
        every = TIMINGS if request.timings_per_token else None
        if request.return_progress:
            yield Chunk(text="", progress=PROGRESS, timings=every)
        for index, piece in enumerate(engine.pieces):
            probs = self._probs()[index : index + 1]
            yield Chunk(text=piece, token_ids=(index,), timings=every, probs=probs)
        if engine.fail is None:
            yield Chunk(text="", finish_reason=engine.finish_reason, usage=USAGE, timings=TIMINGS)

    def _completion(self) -> Completion:
        engine = self.engine
        return Completion(
            text="".join(engine.pieces),
            prompt_token_ids=(256, 80),
            token_ids=tuple(range(len(engine.pieces))),
            finish_reason=engine.finish_reason,
            stop=None,
            usage=USAGE,
            timings=TIMINGS,
            slot=0,
            seed=self.request.params.seed % 2**32,
            truncated=engine.truncated,
            probs=self._probs(),
            notes=self.request.notes,
        )

    def _probs(self) -> tuple[TokenProbs, ...]:
        """An entry for every piece; the others have the bytes of one character and a half."""
        params = self.request.params
        if params.n_probs == 0:
            return ()
        after = params.post_sampling_probs
        number = {"prob": 0.25} if after else {"logprob": -0.25}
        other = {"logprob": None, "prob": None, **number}
        piece = b"a\xc3"
        top = tuple(TokenProb(id=255 - one, piece=piece, **other) for one in range(params.n_probs))
        return tuple(
            TokenProbs(id=index, text=piece, top=top, **number)
            for index, piece in enumerate(self.engine.pieces)
        )


class FakeEmbedding(Handle[Embeddings]):
    def __init__(self, count: int) -> None:
        super().__init__(Outbox(), lambda: None)
        vectors = tuple((0.6, -0.8, float(index)) for index in range(count))
        self._outbox.finish(Embeddings(vectors=vectors, prompt_tokens=4 * count))


class FakeReranking(Handle[Reranking]):
    def __init__(self, documents: list[str]) -> None:
        super().__init__(Outbox(), lambda: None)
        scores = tuple(float(len(one)) for one in documents)
        self._outbox.finish(Reranking(scores=scores, prompt_tokens=4 * len(documents)))
