"""Running what a request asks of a model, for as long as its client is there.

Every route that generates or embeds goes through here: the engine gets its requests, the client's
connection is watched, and in the end, however it comes, everything is given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from nitrolib.errors import InvalidRequest

from . import sse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flask import Response

    from nitrolib.engine import Generation
    from nitrolib.engine.handle import Handle
    from nitrolib.engine.request import Completion, Embeddings, GenerationRequest, Reranking

    from .service import Lease

__all__ = ["Run", "embed", "rerank"]

T = TypeVar("T")


class Run:
    """Answers that are being generated for the current request.

    lease: the model, which the run gives back when it ends, and at once where it cannot begin.
    requests: one, or several that run side by side.
    n: answers to each of them; the prompt of each is evaluated once.

    Raises as Engine.submit_choices does, and InvalidRequest for more answers than could ever wait:
    all of them are queued, or none.

    generations: their handles; those of the first request come first.
    """

    def __init__(
        self,
        lease: Lease,
        requests: GenerationRequest | Sequence[GenerationRequest],
        n: int = 1,
    ) -> None:
        from flask import request

        from .service import service

        self._lease = lease
        several: Sequence[GenerationRequest] = (
            requests if isinstance(requests, (list, tuple)) else (cast("Any", requests),)
        )
        self.generations: tuple[Generation, ...] = ()
        try:
            _check_amount(lease, len(several) * n)
            for one in several:
                self.generations = (*self.generations, *lease.engine.submit_choices(one, n))
            self._watch = service().watcher.watch(request.environ, self.cancel)
        except BaseException:
            self.cancel()
            lease.close()
            raise

    def cancel(self) -> None:
        """End what still runs. May be called from any thread."""
        for generation in self.generations:
            generation.cancel()

    def close(self) -> None:
        """Give everything back; safe to call twice."""
        self._watch.close()
        self.cancel()
        self._lease.close()

    def results(self) -> list[Completion]:
        """The whole answers, in the order of `generations`; the run is over then."""
        try:
            return [generation.result() for generation in self.generations]
        finally:
            self.close()

    def stream(
        self,
        events: Iterator[Mapping[str, Any]],
        *,
        encode: Callable[[Mapping[str, Any]], bytes] = sse.encode,
        done: bytes = sse.DONE,
        after: Callable[[], object] | None = None,
    ) -> Response:
        """A response that streams *events*, made of what `generations` bring. When it is over, in
        whatever way, *after* is called and the run ends."""

        def release() -> None:
            try:
                self.close()
            finally:
                if after is not None:
                    after()

        return sse.respond(events, release, encode=encode, done=done)


def embed(lease: Lease, inputs: Any) -> Embeddings:
    """The vectors of *inputs*, in one of the engine's four forms; the lease is given back."""
    return _waited(lease, lambda: lease.engine.submit_embed(inputs))


def rerank(lease: Lease, query: str, documents: Sequence[str]) -> Reranking:
    """How well each document answers the query; the lease is given back."""
    return _waited(lease, lambda: lease.engine.submit_rerank(query, documents))


def _waited(lease: Lease, submit: Callable[[], Handle[T]]) -> T:
    from flask import request

    from .service import service

    with lease:
        job = submit()
        with service().watcher.watch(request.environ, job.cancel), job:
            return job.result()


def _check_amount(lease: Lease, answers: int) -> None:
    status = lease.engine.status()
    most = status.max_queue + (status.model.n_parallel if status.model is not None else 1)
    if answers > most:
        raise InvalidRequest(
            f"{answers} answers are asked for at once, and {most} can run or wait",
            field="n",
            value=answers,
            allowed=f"at most {most} answers in one request",
        )
