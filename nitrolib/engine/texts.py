"""TextEvaluation: the calls that only evaluate texts, their checks, and where they run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from ..errors import ContextOverflow, InvalidRequest, Unsupported
from ..prompt import Prompt
from .embedding import EmbeddingJob, RerankJob
from .handle import Handle
from .job import clock
from .lane import EmbeddingLane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backends.base import Embedder, EmbeddingRuntime
    from .counters import Counters
    from .model import LoadedModel
    from .request import Embeddings, Reranking
    from .scheduler import StopReason

__all__ = ["TextEvaluation"]


class TextEvaluation:
    """Embeddings and scores of one loaded model. Where the runtime has an embedder they are made
    in a lane of their own, else in the slots of generations. Every method from any thread that is
    inside the model's gate."""

    def __init__(self, model: LoadedModel, counters: Counters, *, max_queue: int) -> None:
        self._model = model
        self._can = model.runtime.capabilities
        self._lane: EmbeddingLane | None = None
        if "embedder" in self._can:
            runtime = cast("EmbeddingRuntime", model.runtime)
            self._lane = EmbeddingLane(runtime, counters, places=runtime.n_seq + max_queue)

    def embed(
        self, inputs: Sequence[str | Sequence[int]], timeout_s: float | None, keep_alive: object
    ) -> Handle[Embeddings]:
        """Queue one call. Raises as `Engine.submit_embed`."""
        submitted = clock()
        self._check_embedding()
        lane = self._lane
        embedder = None if lane is None else lane.embedder()
        tokens = [self._ids(f"input[{n}]", one, embedder) for n, one in enumerate(inputs)]
        job = EmbeddingJob(tokens, submitted=submitted, timeout_s=timeout_s)
        home = self._model.scheduler if lane is None else lane
        handle: Handle[Embeddings] = Handle(job.outbox, partial(home.cancel, job), keep_alive)
        home.submit(job)
        return handle

    def rerank(
        self, query: str, documents: Sequence[str], timeout_s: float | None, keep_alive: object
    ) -> Handle[Reranking]:
        """Queue one call. Raises as `Engine.submit_rerank`."""
        submitted = clock()
        if self._lane is None or "rank" not in self._can:
            raise Unsupported(
                "this model gives no scores of documents", field="query", allowed="no reranking"
            )
        if not documents:
            raise InvalidRequest(
                "documents is empty",
                field="documents",
                value=documents,
                allowed="at least one document",
            )
        embedder = self._lane.embedder()
        asked = self._text_ids("query", query, embedder.n_batch)
        pairs = [
            self._pair(embedder, asked, f"documents[{n}]", one) for n, one in enumerate(documents)
        ]
        job = RerankJob(pairs, submitted=submitted, timeout_s=timeout_s)
        cancel = partial(self._lane.cancel, job)
        handle: Handle[Reranking] = Handle(job.outbox, cancel, keep_alive)
        self._lane.submit(job)
        return handle

    def counts(self) -> tuple[int, int]:
        """How many calls are evaluated beside the slots, and how many wait for that."""
        return (0, 0) if self._lane is None else self._lane.counts()

    def stop(self, reason: StopReason) -> None:
        """End what runs beside the slots. Safe to call twice."""
        if self._lane is not None:
            self._lane.stop(reason)

    def _check_embedding(self) -> None:
        allowed = self._model.options.embedding
        if not allowed or not self._can & {"embed", "embedder"}:
            reason = "this backend" if allowed else "loading with embedding=False"
            raise Unsupported(
                f"embeddings are ruled out by {reason}", field="input", allowed="no embeddings"
            )

    def _ids(self, field: str, one: str | Sequence[int], embedder: Embedder | None) -> list[int]:
        """Ids of one input; errors name it."""
        if isinstance(one, str) and not one:
            raise InvalidRequest(f"{field} is empty", field=field, value=one, allowed="some text")
        if embedder is None:
            return self._slot_ids(field, one)
        if isinstance(one, str):
            ids = embedder.framed(self._text_ids(field, one, embedder.n_batch))
        else:
            ids = self._model.checked_ids(one, field)
        _check_length(field, ids, embedder.n_batch)
        return ids

    def _slot_ids(self, field: str, one: str | Sequence[int]) -> list[int]:
        try:
            return self._model.prompt_ids(Prompt.plain(one) if isinstance(one, str) else one, field)
        except ContextOverflow as error:
            raise ContextOverflow(
                prompt_tokens=error.prompt_tokens,
                limit=error.limit,
                at_least=error.at_least,
                field=field,
            ) from None

    def _text_ids(self, field: str, text: str, limit: int) -> list[int]:
        """Plain ids of a text that may fit."""
        if not isinstance(text, str) or not text:
            raise InvalidRequest(
                f"{field} must be a text, got {text!r}"[:200],
                field=field,
                value=text,
                allowed="some text",
            )
        if "generate" in self._can and (least := self._model.fewest_tokens(text)) > limit:
            raise ContextOverflow(
                prompt_tokens=least, limit=limit, at_least=True, field=field, answered=False
            )
        return self._model.runtime.tokenize(text)

    def _pair(self, embedder: Embedder, query: list[int], field: str, document: str) -> list[int]:
        pair = embedder.pair(query, self._text_ids(field, document, embedder.n_batch))
        _check_length(field, pair, embedder.n_batch)
        return pair


def _check_length(field: str, ids: list[int], limit: int) -> None:
    if not ids:
        raise InvalidRequest(
            f"{field} has no tokens", field=field, value=ids, allowed="at least one token"
        )
    if len(ids) > limit:
        raise ContextOverflow(prompt_tokens=len(ids), limit=limit, field=field, answered=False)
