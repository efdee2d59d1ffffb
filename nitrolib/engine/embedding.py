"""Jobs over texts that are only evaluated: embeddings, and scores of documents for a query."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .handle import Outbox
from .job import Job, MakeError, Work, clock
from .request import Embeddings, Reranking, Timings

if TYPE_CHECKING:
    from ..backends.base import Runtime

__all__ = ["EmbeddingJob", "RerankJob", "TextWork", "TextsJob"]

R = TypeVar("R")


class TextsJob(Job, Generic[R]):
    """One call: any number of texts in one place of the queue. Each text that starts sends the rest
    behind what waits already, so a long list fills free slots and starves nobody."""

    def __init__(
        self, inputs: list[list[int]], *, submitted: float, timeout_s: float | None
    ) -> None:
        super().__init__(Outbox[Any](), submitted=submitted, timeout_s=timeout_s)
        self._inputs = inputs
        self._taken = 0
        self._returned: list[Work] = []
        self._results: dict[int, R] = {}
        self._started: float | None = None

    @property
    def waiting(self) -> bool:
        return bool(self._returned) or self._taken < len(self._inputs)

    @property
    def finished(self) -> bool:
        return len(self._results) == len(self._inputs)

    @property
    def next_length(self) -> int:
        """Tokens of the text that `take` gives next."""
        if self._returned:
            return len(self._returned[-1].prompt)
        return len(self._inputs[self._taken])

    def take(self) -> TextWork[R]:
        if self._started is None:
            self._started = clock()
        if self._returned:
            return self._returned.pop()  # type: ignore[return-value]  # nothing else is put back
        index, self._taken = self._taken, self._taken + 1
        return TextWork(self, index, self._inputs[index])

    def put_back(self, work: Work) -> None:
        self._returned.append(work)

    def receive(self, index: int, result: R) -> None:
        self._results[index] = result

    def spent(self) -> Timings | None:
        if self._started is None:
            return None
        return Timings(
            queue_s=self._started - self.submitted,
            prefill_s=clock() - self._started,
            decode_s=0.0,
            prompt_n=sum(len(self._inputs[index]) for index in self._results),
        )

    def complete(self) -> None:
        results = [self._results[index] for index in range(len(self._inputs))]
        self.outbox.finish(self._whole(results, sum(map(len, self._inputs))))

    def end(self, make: MakeError) -> None:
        self.outbox.finish(make(None))

    @abstractmethod
    def _whole(self, results: list[R], prompt_tokens: int) -> object:
        """What the caller gets."""


class EmbeddingJob(TextsJob[tuple[float, ...]]):
    """A vector for each text."""

    def _whole(self, results: list[tuple[float, ...]], prompt_tokens: int) -> Embeddings:
        return Embeddings(vectors=tuple(results), prompt_tokens=prompt_tokens)


class RerankJob(TextsJob[float]):
    """A score for each pair of the query and a document."""

    def _whole(self, results: list[float], prompt_tokens: int) -> Reranking:
        return Reranking(scores=tuple(results), prompt_tokens=prompt_tokens)


class TextWork(Work, Generic[R]):
    """One text of a call. It is evaluated from the beginning and leaves no record: a backend may
    keep embeddings apart from the KV cache of generations."""

    output = "embedding"
    leaves_record = False

    def __init__(self, job: TextsJob[R], index: int, prompt: list[int]) -> None:
        self._job = job
        self._index = index
        self.prompt = prompt

    @property
    def job(self) -> TextsJob[R]:
        return self._job

    def start(self, cached: int) -> None:
        assert cached == 0, "an embedding is evaluated whole"

    def receive(self, result: R) -> None:
        self._job.receive(self._index, result)

    def advance(self, runtime: Runtime, slot: int) -> bool:
        self.receive(tuple(runtime.embed(slot).tolist()))  # type: ignore[arg-type]  # only these
        return True
