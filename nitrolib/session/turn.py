"""Turn: one running answer of a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..engine.request import Chunk
from ..errors import Cancelled, NitroError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ..engine import Generation
    from ..engine.request import Completion
    from .plan import Plan
    from .session import ChatSession


class Turn(Iterator[Chunk]):
    """One running turn: iterate it for chunks, or wait for its `result()`.

    The history changes when the answer is whole: as the last chunk is handed out, or as `result`
    returns. Leaving before that (`close()`, the end of a `with`, dropping the turn) cancels the
    answer, and the history stays as it was; `keep()` ends the answer too, and what there is of it
    becomes the answer in the history.
    """

    def __init__(
        self, session: ChatSession, ticket: object, generation: Generation, plan: Plan
    ) -> None:
        self._session = session
        self._ticket = ticket
        self._generation = generation
        self._plan = plan
        self._chunks: Iterator[Chunk] | None = None

    def __next__(self) -> Chunk:
        if self._chunks is None:
            self._chunks = iter(self._generation)
        try:
            chunk = next(self._chunks)
        except (StopIteration, NitroError):  # Ctrl-C leaves the turn running, for `keep`
            self.close()
            raise
        if chunk.finish_reason is not None:
            self._commit(self._generation.result())
        return chunk

    def result(self, timeout: float | None = None) -> Completion:
        """Wait for the whole answer, however much of it was read. Raises TimeoutError after
        `timeout` seconds (the turn goes on), and what the generation ended with."""
        try:
            completion = self._generation.result(timeout)
        except NitroError:
            self.close()
            raise
        self._commit(completion)
        return completion

    def keep(self) -> Completion | None:
        """End the answer now and keep what there is of it in the history. None, and an unchanged
        history, if there was no text yet."""
        self._generation.cancel()
        try:
            completion: Completion | None = self._generation.result()
        except Cancelled as error:
            completion = error.partial
        except NitroError:
            self.close()
            raise
        if completion is None or not completion.text:
            self.close()
            return None
        self._commit(completion)
        return completion

    def close(self) -> None:
        """Cancel the answer unless it is whole. Safe to call twice."""
        self._generation.cancel()
        self._session._release(self._ticket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # May run in any thread: cancelling only sets down a message, and the lock is reentrant.
        if not sys.is_finalizing():
            self.close()

    def _commit(self, completion: Completion) -> None:
        self._session._release(self._ticket, self._plan.answered(completion))
