"""One running generation: tokens, sampler, text, limits, and the account of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .answer import AnswerText
from .handle import Outbox
from .job import Job, MakeError, Work, clock
from .late_text import LateText
from .lookup import Lookup
from .probs import check_amount, recorder
from .request import (
    Chunk,
    Completion,
    FinishReason,
    GenerationRequest,
    Progress,
    Timings,
    TokenProbs,
    Usage,
)
from .room import Room
from .triggered import ShownPieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..backends.base import Runtime
    from ..sampling import Constraint
    from .choices import Choices
    from .post import Post
    from .probs import ProbsRecorder
    from .samplers import Samplers

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
        samplers: Samplers,
        *,
        post: Post,
        submitted: float,
        reuse: bool,
        lora: tuple[float, ...] = (),
        lookup: int = 0,
        constraint: Constraint | None = None,
        choices: Choices | None = None,
    ) -> None:
        super().__init__(Outbox[Completion](post), submitted=submitted, timeout_s=request.timeout_s)
        params, vocabulary = request.params, runtime.vocabulary
        self.request = request
        self.kind = request.kind
        self.prompt = self._prompt = prompt
        self.lora = lora
        self._reuse = reuse
        self._choices = choices
        self._eog = vocabulary.eog
        self._constraint = constraint
        self._sampler = samplers.make(params, constraint)
        self._sampler.accept_prompt(prompt)
        self._answer = AnswerText(
            ShownPieces(vocabulary.pieces, dict(request.shown))
            if request.shown
            else vocabulary.pieces,
            params.stop,
            strip=request.strip_leading_space,
            n_indent=params.n_indent,
        )
        self._lookup: Lookup | None = None
        self._drafted = self._accepted = 0
        if lookup:
            self._lookup = Lookup(lookup)
            self._lookup.extend(prompt)
        self._room = Room(request, len(prompt), runtime)
        self._time_limit_s = max(params.t_max_predict_ms, 0) / 1000
        self._probs: ProbsRecorder | None = None
        if params.n_probs > 0:
            check_amount(params.n_probs, vocabulary.n_vocab, self._room.limit)
            self._probs = recorder(params, vocabulary)
        self._letters = post.letters
        self._listens = self._sampler.listens or self._lookup is not None
        self._late: LateText | None = None
        if not self._needs_text():
            self._late = LateText(self._answer, self.outbox)
            self._say_late = self._late.token
        self._token_ids: list[int] = []
        self._told = 0  # how many of the token ids have left in chunks
        self._texts: list[str] = []
        self._finish_reason: FinishReason | None = None
        self._tail = ""  # text of the last chunk
        self._slot = -1
        self._taken = False
        self._cached = self._evaluated = 0
        self._told_evaluated = -1  # how much of the prompt the reader knows to be evaluated
        self._started: float | None = None
        self._first_token: float | None = None

    @property
    def job(self) -> Job:
        return self

    @property
    def waiting(self) -> bool:
        return not self._taken

    @property
    def finished(self) -> bool:
        return self._finish_reason is not None

    @property
    def id_slot(self) -> int:
        return self.request.id_slot if self._choices is None else self._choices.id_slot

    @property
    def reuse(self) -> bool:
        """What one choice has evaluated the others use, also when the cache is not to be used."""
        return self._reuse or (self._choices is not None and self._choices.slot >= 0)

    @property
    def donor(self) -> int | None:
        return None if self._choices is None else self._choices.donor

    def take(self) -> Work:
        self._taken = True
        return self

    def put_back(self, work: Work) -> None:  # noqa: ARG002 -- it is this one
        self._taken = False

    def seated(self, slot: int) -> None:
        self._slot = slot
        if self._choices is not None:
            self._choices.seated(slot)

    def start(self, cached: int) -> None:
        if self._first_token is not None:  # it goes on: the account of the prompt is closed
            return
        self._cached = self._evaluated = cached
        if self._started is None:
            self._started = clock()
        self._tell_progress()

    def prefilled(self, held: int) -> None:
        if self._first_token is None:  # else what was lost is evaluated again
            self._evaluated = held
            self._tell_progress()

    def resume(self, tokens: list[int]) -> None:
        self.prompt = tokens

    def shifted(self, evaluated: int) -> None:
        assert self.discard is not None
        self._room.shifted(self.discard, evaluated)
        self.discard = None

    def out_of_room(self) -> bool:
        self._room.crowded()
        return self._ended("length", self._flush())

    def advance(self, runtime: Runtime, slot: int) -> bool:
        if self._first_token is None and self._begin():
            return True
        return self.follow(runtime.logits(slot))

    def draft(self, most: int) -> list[int]:
        if self._lookup is None:
            return []
        return self._lookup.draft(min(most, self._room.until - len(self._token_ids) - 1))

    def verify(self, rows: NDArray[np.float32], drafted: Sequence[int]) -> bool:
        assert self._lookup is not None
        accepted, done = 0, self.follow(rows[0])
        while accepted < len(drafted) and not done and self.next_token == drafted[accepted]:
            accepted += 1
            done = self.follow(rows[accepted])
        self.refused = len(drafted) - accepted
        self._drafted += len(drafted)
        self._accepted += accepted
        self._lookup.judged(accepted)
        return done

    def follow(self, logits: NDArray[np.float32]) -> bool:
        """Sample one token, let its text out. True at the end of the answer."""
        token = self._sampler.sample(logits)
        if self._first_token is None:
            self._first_token = clock()
        self.next_token = token
        self._token_ids.append(token)
        if self._listens:
            self._sampler.accept((token,))
            if self._lookup is not None:
                self._lookup.extend((token,))
        if self._late is None:
            return self._say(token, logits)
        if token in self._eog:
            return self._ended("stop", "")
        if len(self._token_ids) >= self._room.until:
            self.discard = self._room.make(len(self._token_ids))
            if self.discard is None:
                self.outbox.later(self._late.last, token)
                return self._ended("length", "")
        self._letters.append((self._say_late, token))
        return False

    def _say(self, token: int, logits: NDArray[np.float32]) -> bool:
        """Make the text of a token, which may end the answer, and let it out."""
        if self._probs is not None:
            self._probs.sampled(logits, token, self._sampler.last)
        if token in self._eog:
            return self._ended("stop", self._answer.flush())
        text = self._answer.feed(token)
        if self._answer.ended is not None:
            return self._ended(self._answer.ended, text)
        if self._constraint is not None and self._constraint.finished:
            return self._ended("stop", text + self._answer.flush())
        if len(self._token_ids) >= self._room.until:
            self.discard = self._room.make(len(self._token_ids))
            if self.discard is None:
                return self._ended("length", text + self._answer.flush())
        if self._time_limit_s and self._too_late(text):
            return self._ended("length", text + self._answer.flush())
        if self._probs is not None:
            self._probs.sent(text, inside_character=self._answer.inside_character)
        if text:
            self._put(text)
        return False

    def spent(self) -> Timings | None:
        return None if self._started is None or self.kind == "warm_up" else self._timings()

    def complete(self) -> None:
        if self._late is not None:
            self.outbox.later(self._late.end, self._completion())
            return
        self._texts.append(self._tail)
        whole = self._completion()
        self.outbox.put(
            Chunk(
                text=self._tail,
                token_ids=self._untold(),
                probs=self._untold_probs(),
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
        if self._late is not None:
            self.outbox.later(self._late.break_off, (make, self._completion()))
            return
        if self.finished:  # its slot could not be given back
            text = self._tail
        else:
            text = self._answer.flush()
            if self._probs is not None:
                self._probs.end(text, stopped=False)
        if text or self._told < len(self._token_ids):
            self._put(text)
        self.outbox.finish(make(self._completion()))

    def _needs_text(self) -> bool:
        """Whether the loop has to know the text as it comes: it may end the answer, or goes with
        numbers of the moment."""
        params = self.request.params
        return (
            bool(params.stop)
            or params.n_indent > 0
            or self._constraint is not None
            or self._probs is not None
            or self._time_limit_s > 0
            or self.request.timings_per_token
        )

    def _flush(self) -> str:
        """The text held back; "" where it is made on delivery."""
        return self._answer.flush() if self._late is None else ""

    def _begin(self) -> bool:
        """The prompt is evaluated. True when that is all that was asked for, or allowed."""
        self._evaluated = len(self._prompt)
        if self._choices is not None:
            self._choices.evaluated()
        self._tell_progress()
        if self._room.limit == 0:
            return self._ended("length", "")
        return (
            self._constraint is not None and self._constraint.finished and self._ended("stop", "")
        )

    def _too_late(self, text: str) -> bool:
        """Whether the time is over at the end of a line; text is not cut inside one."""
        first = self._first_token
        return "\n" in text and first is not None and clock() - first > self._time_limit_s

    def _ended(self, reason: FinishReason, text: str) -> bool:
        # The text decides also when only the flushed rest of it met its end.
        self._finish_reason, self._tail = self._answer.ended or reason, text
        if self._probs is not None:
            self._probs.end(text, stopped=self._answer.stop is not None)
        return True

    def _tell_progress(self) -> None:
        request = self.request
        if not request.return_progress or self._evaluated <= self._told_evaluated:
            return  # not asked for, or it was set back and catches up
        assert self._started is not None
        self._told_evaluated = self._evaluated
        progress = Progress(
            total=len(self._prompt),
            cached=self._cached,
            processed=self._evaluated,
            time_s=clock() - self._started,
        )
        timings = self._timings() if request.timings_per_token else None
        self.outbox.put(Chunk(text="", progress=progress, timings=timings))

    def _put(self, text: str) -> None:
        self._texts.append(text)
        timings = self._timings() if self.request.timings_per_token else None
        ids, probs = self._untold(), self._untold_probs()
        self.outbox.put_made(partial(Chunk, text=text, token_ids=ids, timings=timings, probs=probs))

    def _untold(self) -> tuple[int, ...]:
        ids = tuple(self._token_ids[self._told :])
        self._told = len(self._token_ids)
        return ids

    def _untold_probs(self) -> tuple[TokenProbs, ...]:
        return () if self._probs is None else self._probs.untold()

    def _is_whole(self) -> bool:
        """Whether the text is all that its constraint asks for: its last token may be followed by
        the end, and nothing was cut off after the sampler."""
        constraint = self._constraint
        return constraint is None or (self._answer.ended is None and constraint.may_end)

    def _completion(self) -> Completion:
        whole = self._is_whole()
        cut = () if whole else ("the answer was cut before its grammar or schema was complete",)
        return Completion(
            text="".join(self._texts),
            prompt_token_ids=tuple(self._prompt),
            token_ids=tuple(self._token_ids),
            finish_reason=self._finish_reason,
            stop=self._answer.stop if self._finish_reason else None,
            usage=self._usage(),
            timings=self._timings(),
            slot=self._slot,
            seed=self._sampler.seed,
            tokens_cached=self._held(),
            truncated=self._room.truncated,
            probs=() if self._probs is None else self._probs.entries,
            complete=whole,
            notes=self.request.notes + self._room.notes() + cut,
        )

    def _held(self) -> int:
        """Tokens in the slot: the last sampled one is never fed."""
        return self._evaluated + max(len(self._token_ids) - 1, 0) - self._room.dropped

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self._prompt),
            completion_tokens=len(self._token_ids),
            cached_tokens=self._cached,
        )

    def _timings(self) -> Timings:
        now = clock()
        started = now if self._started is None else self._started
        first = now if self._first_token is None else self._first_token
        return Timings(
            queue_s=started - self.submitted,
            prefill_s=first - started,
            decode_s=now - first,
            cache_n=self._cached,
            prompt_n=self._evaluated - self._cached,
            predicted_n=len(self._token_ids),
            draft_n=self._drafted,
            draft_n_accepted=self._accepted,
        )
