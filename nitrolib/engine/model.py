"""One loaded model: the runtime, its scheduler, and the checks that every request passes first."""

from __future__ import annotations

import logging
import os
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ..errors import ContextOverflow, InvalidRequest, ModelNotLoaded, NitroError, Unsupported
from ..prompt import ChatTemplate, Prompt, PromptTemplate, encode
from ..sampling import SamplingParams
from ..text import Detokenizer
from .choices import Choices, check_count, each
from .gate import Gate
from .generation import Generation
from .job import clock
from .lora import Adapters
from .request import CacheCleared, GenerationRequest
from .samplers import Samplers
from .scheduler import Scheduler, StopReason
from .sequence import GenerationSequence
from .slot_state import SlotStates
from .status import ModelStatus
from .texts import TextEvaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backends.base import LoadOptions, Runtime
    from .cleaning import CleaningPolicy
    from .counters import Counters
    from .handle import Handle
    from .request import Embeddings, Reranking

__all__ = ["LoadedModel"]

log = logging.getLogger(__name__)


class LoadedModel:
    """A runtime at work. Owns it: `close` ends everything. Every method from any thread."""

    def __init__(
        self,
        path: str,
        options: LoadOptions,
        runtime: Runtime,
        cleaning: CleaningPolicy,
        *,
        max_queue: int,
        counters: Counters,
    ) -> None:
        self.path = path
        self.options = options
        self.runtime = runtime
        self.cleaning = cleaning
        self._pid = os.getpid()
        self._gate = Gate()
        self._samplers = Samplers(runtime)
        self.adapters = Adapters(runtime)
        self._notes = tuple(runtime.report.notes)
        self.scheduler = Scheduler(
            runtime,
            cleaning,
            max_queue=max_queue,
            cont_batching=options.cont_batching,
            cells=options.ctx_len if options.shared_context else None,
            lookup=options.lookup,
            counters=counters,
            before_close=self._before_close,
        )
        self.slot_states = SlotStates(runtime, self.scheduler, len(self.adapters.status()))
        self._texts = TextEvaluation(self, counters, max_queue=max_queue)

    def warm_up(self) -> None:
        """Run one short hidden completion. Its failure is a note, not an error."""
        if "generate" not in self.runtime.capabilities:
            return
        request = GenerationRequest(
            prompt=Prompt.plain("Hello"), params=SamplingParams(max_tokens=2), kind="warm_up"
        )
        try:
            self.submit(request)[0].result()
            self.scheduler.clear_idle()  # a first prompt must not find a prefix nobody sent
        except NitroError as error:
            log.warning("the warm-up failed: %s", error)
            self._notes += (f"the warm-up failed: {error}",)

    def close(self, reason: StopReason) -> None:
        """End all requests with Cancelled(reason), wait for callers inside, free everything."""
        if not self.forked:
            self._texts.stop(reason)
        self.scheduler.stop(reason)
        self._samplers.forget()

    def _before_close(self) -> None:
        """In the scheduler's thread, when nothing runs in the slots any more."""
        self._texts.stop("shutdown")
        self._gate.close()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that loaded the model."""
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Raise ModelNotLoaded in a forked child: threads do not survive a fork."""
        if self.forked:
            raise ModelNotLoaded(
                f"the model was loaded by process {self._pid}, and a fork does not take it along: "
                "make an Engine in this process"
            )

    # ---- requests --------------------------------------------------------------------------

    def submit(
        self, request: GenerationRequest, n: int = 1, keep_alive: object = None
    ) -> tuple[Generation, ...]:
        """Queue `n` answers to one prompt, all of them or none."""
        submitted = clock()
        with self._gate.entered():
            self._check_generates()
            check_count(n, self.scheduler.places)
            self._check_slot(request.id_slot)
            prompt = self.prompt_ids(request.prompt)
            choices = Choices(request, self.runtime) if n > 1 else None
            lora = self.adapters.scales(request.lora)
            start = self._samplers.compile(request)
            sequences = [
                GenerationSequence(
                    one,
                    prompt,
                    self.runtime,
                    self._samplers,
                    post=self.scheduler.post,
                    submitted=submitted,
                    reuse=one.cache_prompt and self.options.caching,
                    lora=lora,
                    lookup=self.options.lookup if "rows" in self.runtime.capabilities else 0,
                    constraint=None if start is None else start(),
                    choices=choices,
                )
                for one in each(request, n)
            ]
            generations = tuple(
                Generation(one.request, one.outbox, partial(self.scheduler.cancel, one), keep_alive)
                for one in sequences
            )
            self.scheduler.submit(*sequences)
        return generations

    def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        timeout_s: float | None,
        keep_alive: object = None,
    ) -> Handle[Embeddings]:
        with self._gate.entered():
            return self._texts.embed(inputs, timeout_s, keep_alive)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        timeout_s: float | None,
        keep_alive: object = None,
    ) -> Handle[Reranking]:
        with self._gate.entered():
            return self._texts.rerank(query, documents, timeout_s, keep_alive)

    def counts(self) -> tuple[int, int]:
        """How much runs (slots, and calls beside them) and how many requests wait."""
        slots, texts = self.scheduler.counts(), self._texts.counts()
        return slots[0] + texts[0], slots[1] + texts[1]

    def clear_cache(self) -> CacheCleared:
        cleared, busy = self.scheduler.clear_idle()
        return CacheCleared(cleared=cleared, busy=busy)

    # ---- text and tokens -------------------------------------------------------------------

    def prompt_ids(self, prompt: Prompt | Sequence[int], field: str = "prompt") -> list[int]:
        """The ids of a prompt that fits. Raises InvalidRequest (empty, id out of range) or
        ContextOverflow."""
        limit = self.runtime.n_ctx
        if isinstance(prompt, Prompt):
            self._check_bytes(prompt)
            ids = self.encode(prompt)
        else:
            ids = self.checked_ids(prompt, field)
        if not ids:
            raise InvalidRequest(
                f"{field} has no tokens", field=field, value=prompt, allowed="at least one token"
            )
        if len(ids) + 1 > limit:
            raise ContextOverflow(prompt_tokens=len(ids), limit=limit)
        return ids

    def encode(self, prompt: Prompt, *, continues: bool = False) -> list[int]:
        vocabulary, tokenize = self.runtime.vocabulary, self.runtime.tokenize
        with self._gate.entered():
            return encode(prompt, vocabulary, tokenize, continues=continues)

    def detokenize(self, ids: Sequence[int]) -> str:
        detokenizer = Detokenizer(self.runtime.vocabulary.pieces)
        text = "".join(map(detokenizer.feed, self.checked_ids(ids, "ids")))
        text += detokenizer.finish()
        # SentencePiece puts a space before a text; taking it away again makes the round trip whole.
        return text.removeprefix(" ") if self.runtime.vocabulary.add_space_prefix else text

    @cached_property
    def chat_template(self) -> ChatTemplate | PromptTemplate:
        """The model's own template from the file, else the plain Nitro one."""
        own = ChatTemplate.from_model(self.runtime.info, self.runtime.vocabulary)
        return PromptTemplate() if own is None else own

    @cached_property
    def _longest_piece(self) -> int:
        """Bytes of text that one token can stand for at most."""
        vocabulary = self.runtime.vocabulary
        pieces = max(map(len, vocabulary.pieces), default=0)
        special = max((len(text.encode()) for text in vocabulary.special), default=0)
        return max(pieces, special, 4)  # an unknown token may stand for any one character

    def _check_bytes(self, prompt: Prompt) -> None:
        """Refuse what cannot fit without tokenizing it: megabytes take seconds, and cannot be
        interrupted."""
        least = self.fewest_tokens(*(one.text for one in prompt.segments))
        if least + 1 > self.runtime.n_ctx:
            raise ContextOverflow(prompt_tokens=least, limit=self.runtime.n_ctx, at_least=True)

    def fewest_tokens(self, *texts: str) -> int:
        """Tokens that some texts together have at least, reckoned from their length. Only where
        every byte of a text goes into a token, which holds for models that generate."""
        size = sum(len(one.encode("utf-8", "surrogatepass")) for one in texts)
        return -(-size // self._longest_piece)

    def checked_ids(self, ids: Sequence[int], field: str) -> list[int]:
        """A list of token ids that exist. Raises InvalidRequest naming the first that does not."""
        n_vocab = self.runtime.vocabulary.n_vocab
        for one in ids:
            if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < n_vocab:
                raise InvalidRequest(
                    f"{field} holds {one!r}, which is no token id of this model",
                    field=field,
                    value=one,
                    allowed=f"whole numbers from 0 to {n_vocab - 1}",
                )
        return list(ids)

    # ---- checks ----------------------------------------------------------------------------

    def _check_slot(self, id_slot: int) -> None:
        if id_slot >= self.runtime.n_seq:
            raise InvalidRequest(
                f"id_slot {id_slot} does not exist",
                field="id_slot",
                value=id_slot,
                allowed=f"-1, or 0 to {self.runtime.n_seq - 1}",
            )

    def _check_generates(self) -> None:
        if "generate" not in self.runtime.capabilities:
            raise Unsupported(
                "this model generates no text: it makes embeddings or scores",
                field="prompt",
                allowed="embeddings or scores",
            )

    # ---- status ----------------------------------------------------------------------------

    def status(self) -> ModelStatus:
        info, report, options = self.runtime.info, self.runtime.report, self.options
        slots = tuple(slot.status() for slot in self.scheduler.slots)
        return ModelStatus(
            path=self.path,
            name=info.name or os.path.basename(self.path),
            architecture=info.architecture,
            provisional=options.provisional,
            backend=report.backend,
            library=report.library,
            threads=report.threads,
            gpu_layers=report.gpu_layers,
            memory_bytes=report.memory_bytes,
            n_ctx=self.runtime.n_ctx,
            n_ctx_train=info.n_ctx_train,
            n_vocab=self.runtime.vocabulary.n_vocab,
            n_embd=info.n_embd,
            n_parallel=self.runtime.n_seq,
            cont_batching=options.cont_batching,
            embedding=options.embedding,
            caching=options.caching,
            clean_cache_threshold=options.clean_cache_threshold,
            chats_since_clean=self.cleaning.chats_since_clean,
            cleanings=self.cleaning.cleanings,
            notes=self._notes,
            slots=slots,
            reason=report.reason,
            shared_batch="shared_batch" in self.runtime.capabilities,
            capabilities=tuple(sorted(self.runtime.capabilities)),
            tokens_cached=sum(slot.cached_tokens for slot in slots),
            lora=self.adapters.status(),
        )
