"""One running generation: tokens, sampler, detokenizer, stop matcher, and the account of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..sampling import Sampler
from ..text import Detokenizer, StopMatcher
from .handle import Outbox
from .job import Job, MakeError, Work, clock
from .request import Chunk, Completion, FinishReason, GenerationRequest, Timings, Usage

if TYPE_CHECKING:
    from ..backends.base import Runtime

__all__ = ["GenerationSequence"]


class GenerationSequence(Job, Work):
    """The job and the work of one GenerationRequest. Made in the caller's thread, so that a bad
    parameter is raised there; from then on used by the scheduler thread alone."""

    output = "logits"

    def __init__(
        self,
        request: GenerationRequest,
        prompt: list[int],
        runtime: Runtime,
        *,
        submitted: float,
        reuse: bool,
    ) -> None:
        super().__init__(
            Outbox[Completion](),
            submitted=submitted,
            timeout_s=request.timeout_s,
            id_slot=request.id_slot,
        )
        params, vocabulary = request.params, runtime.vocabulary
        self.request = request
        self.kind = request.kind
        self.prompt = prompt
        self.reuse = reuse
        self._eog = vocabulary.eog
        self._sampler = Sampler(
            params,
            vocabulary.n_vocab,
            runtime.n_ctx,
            tuple(vocabulary.eog) if params.ignore_eos else (),
        )
        self._sampler.accept(prompt)
        self._detokenizer = Detokenizer(vocabulary.pieces)
        self._matcher = StopMatcher(params.stop)
        # A prompt of P tokens leaves n_ctx - P: the last sampled token need not be fed.
        room = runtime.n_ctx - len(prompt)
        self._limit = room if params.max_tokens is None else min(params.max_tokens, room)
        self._strip = request.strip_leading_space
        self._token_ids: list[int] = []
        self._told = 0  # how many of the token ids have left in chunks
        self._texts: list[str] = []
        self._finish_reason: FinishReason | None = None
        self._tail = ""  # text of the last chunk
        self._slot = -1
        self._cached = 0
        self._started: float | None = None
        self._first_token: float | None = None

    @property
    def job(self) -> Job:
        return self

    @property
    def waiting(self) -> bool:
        return self._started is None

    @property
    def finished(self) -> bool:
        return self._finish_reason is not None

    def take(self) -> Work:
        return self

    def start(self, slot: int, cached: int) -> None:
        self._slot, self._cached = slot, cached
        self._started = clock()

    def advance(self, runtime: Runtime, slot: int) -> bool:
        """Sample one token, let its text out. True at an end token, a stop string, the limit."""
        token = self._sampler.sample(runtime.logits(slot))
        if self._first_token is None:
            self._first_token = clock()
        self._sampler.accept((token,))
        self.next_token = token
        self._token_ids.append(token)
        if token in self._eog:
            return self._ended("stop", self._flush())
        text = self._visible(self._matcher.feed(self._detokenizer.feed(token)))
        if self._matcher.matched is not None:
            return self._ended("stop", text)
        if len(self._token_ids) >= self._limit:
            return self._ended("length", text + self._flush())
        if text:
            self._put(text)
        return False

    def complete(self) -> None:
        self._texts.append(self._tail)
        whole = self._completion()
        self.outbox.put(
            Chunk(
                text=self._tail,
                token_ids=self._untold(),
                finish_reason=whole.finish_reason,
                stop=whole.stop,
                usage=whole.usage,
                timings=whole.timings,
            )
        )
        self.outbox.finish(whole)

    def end(self, make: MakeError) -> None:
        """Held-back text goes out first, so that the partial Completion is the join of its chunks
        here too."""
        if self._started is None:
            self.outbox.finish(make(None))
            return
        text = "" if self._matcher.matched is not None else self._flush()
        if text or self._told < len(self._token_ids):
            self._put(text)
        self.outbox.finish(make(self._completion()))

    def _ended(self, reason: FinishReason, text: str) -> bool:
        if self._matcher.matched is not None:  # also when only the flushed rest completed it
            reason = "stop"
        self._finish_reason, self._tail = reason, text
        return True

    def _flush(self) -> str:
        """The text held back by half characters and possible stop strings."""
        text = self._matcher.feed(self._detokenizer.finish())
        if self._matcher.matched is None:
            text += self._matcher.finish()
        return self._visible(text)

    def _visible(self, text: str) -> str:
        if self._strip and text:
            text = text.lstrip()
            self._strip = not text
        return text

    def _put(self, text: str) -> None:
        self._texts.append(text)
        self.outbox.put(Chunk(text=text, token_ids=self._untold()))

    def _untold(self) -> tuple[int, ...]:
        ids = tuple(self._token_ids[self._told :])
        self._told = len(self._token_ids)
        return ids

    def _completion(self) -> Completion:
        return Completion(
            text="".join(self._texts),
            prompt_token_ids=tuple(self.prompt),
            token_ids=tuple(self._token_ids),
            finish_reason=self._finish_reason,
            stop=self._matcher.matched if self._finish_reason else None,
            usage=self._usage(),
            timings=self._timings(),
            slot=self._slot,
            notes=self.request.notes,
        )

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=len(self._token_ids),
            cached_tokens=self._cached,
        )

    def _timings(self) -> Timings:
        now = clock()
        started = now if self._started is None else self._started
        first = now if self._first_token is None else self._first_token
        return Timings(
            queue_s=started - self.submitted, prefill_s=first - started, decode_s=now - first
        )
