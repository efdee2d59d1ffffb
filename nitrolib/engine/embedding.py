"""Embedding jobs: prompts that are only evaluated, through the same queue and slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .handle import Outbox
from .job import Job, MakeError, Work, clock
from .request import Embeddings, Timings

if TYPE_CHECKING:
    from ..backends.base import Runtime

__all__ = ["EmbeddingJob"]


class EmbeddingJob(Job):
    """One embed call: any number of inputs in one place of the queue. Each input that starts sends
    the rest behind what waits already, so a long list fills free slots and starves nobody."""

    def __init__(
        self, inputs: list[list[int]], *, submitted: float, timeout_s: float | None
    ) -> None:
        super().__init__(Outbox[Embeddings](), submitted=submitted, timeout_s=timeout_s)
        self._inputs = inputs
        self._taken = 0
        self._returned: list[Work] = []
        self._vectors: dict[int, tuple[float, ...]] = {}
        self._started: float | None = None

    @property
    def waiting(self) -> bool:
        return bool(self._returned) or self._taken < len(self._inputs)

    @property
    def finished(self) -> bool:
        return len(self._vectors) == len(self._inputs)

    def take(self) -> Work:
        if self._started is None:
            self._started = clock()
        if self._returned:
            return self._returned.pop()
        index, self._taken = self._taken, self._taken + 1
        return EmbeddingWork(self, index, self._inputs[index])

    def put_back(self, work: Work) -> None:
        self._returned.append(work)

    def receive(self, index: int, vector: tuple[float, ...]) -> None:
        self._vectors[index] = vector

    def spent(self) -> Timings | None:
        if self._started is None:
            return None
        return Timings(
            queue_s=self._started - self.submitted,
            prefill_s=clock() - self._started,
            decode_s=0.0,
            prompt_n=sum(len(self._inputs[index]) for index in self._vectors),
        )

    def complete(self) -> None:
        self.outbox.finish(
            Embeddings(
                vectors=tuple(self._vectors[index] for index in range(len(self._inputs))),
                prompt_tokens=sum(len(tokens) for tokens in self._inputs),
            )
        )

    def end(self, make: MakeError) -> None:
        self.outbox.finish(make(None))


class EmbeddingWork(Work):
    """One input of an embed call. It is evaluated from the beginning and leaves no record: a
    backend may keep embeddings apart from the KV cache of generations."""

    output = "embedding"
    leaves_record = False

    def __init__(self, job: EmbeddingJob, index: int, prompt: list[int]) -> None:
        self._job = job
        self._index = index
        self.prompt = prompt

    @property
    def job(self) -> Job:
        return self._job

    def start(self, cached: int) -> None:
        assert cached == 0, "an embedding is evaluated whole"

    def advance(self, runtime: Runtime, slot: int) -> bool:
        self._job.receive(self._index, tuple(runtime.embed(slot).tolist()))
        return True
