"""Generation: the handle of one running generation, to iterate, wait for, or cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, NitroError
from .handle import Handle, Outbox, ended_by_caller, fresh
from .request import Chunk, Completion, GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AsyncChunkIterator", "ChunkIterator", "Generation"]


class Generation(Handle[Completion]):
    """One generation. `for chunk in generation` (or `async for`) reads it as it comes; `result()`
    gives the whole Completion at any time, before, after and beside reading.

    Chunks that came before the reading began are not lost. It is read once: a second `iter()`
    raises InvalidRequest, because leaving the first loop early has already cancelled the rest.

    How iteration ends: normally after the chunk with `finish_reason`; quietly when the caller
    cancelled; else with the error that `result()` raises too.
    """

    def __init__(
        self,
        request: GenerationRequest,
        outbox: Outbox[Completion],
        cancel: Callable[[], None],
        keep_alive: object = None,
    ) -> None:
        super().__init__(outbox, cancel, keep_alive)
        self.request = request
        self._read = False

    def __iter__(self) -> ChunkIterator:
        self._begin_reading()
        return ChunkIterator(self)

    def __aiter__(self) -> AsyncChunkIterator:
        self._begin_reading()
        return AsyncChunkIterator(self)

    def _begin_reading(self) -> None:
        if self._read:
            raise InvalidRequest(
                "a generation is read once; result() gives the whole of it at any time",
                field="generation",
            )
        self._read = True

    def _next(self, block: bool) -> Chunk | None:
        """The next chunk; None at the end. Raises the generation's error, or queue.Empty."""
        if block and self._outbox.chunks.empty():
            self._check_process()
        chunk = self._outbox.chunks.get(block)
        if chunk is not None:
            return chunk
        outcome = self._outbox.outcome
        if isinstance(outcome, NitroError) and not ended_by_caller(outcome):
            raise fresh(outcome)
        return None


class ChunkIterator(Iterator[Chunk]):
    """Reads a Generation. `close()`, or dropping it, cancels what has not ended; unlike with a
    generator this holds before the first `next()` too."""

    def __init__(self, generation: Generation) -> None:
        self._generation: Generation | None = generation

    def __next__(self) -> Chunk:
        if self._generation is None:
            raise StopIteration
        try:
            chunk = self._generation._next(block=True)
        except NitroError:
            self._generation = None
            raise
        if chunk is None:
            self._generation = None
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Stop reading; the generation is cancelled unless it is done."""
        generation, self._generation = self._generation, None
        if generation is not None:
            generation.cancel()

    def __del__(self) -> None:
        self.close()


class AsyncChunkIterator(AsyncIterator[Chunk]):
    """Reads a Generation inside an event loop. The scheduler wakes the loop; no thread waits."""

    def __init__(self, generation: Generation) -> None:
        self._generation: Generation | None = generation
        self._chunks = generation._outbox.chunks
        import asyncio  # costs more to import than the whole engine, and few need it

        self._ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        generation._outbox.waker = partial(loop.call_soon_threadsafe, self._ready.set)

    async def __anext__(self) -> Chunk:
        while self._generation is not None:
            try:
                chunk = self._generation._next(block=False)
            except Empty:
                await self._wait()
                continue
            except NitroError:
                self._generation = None
                raise
            if chunk is not None:
                return chunk
            self._generation = None
        raise StopAsyncIteration

    async def _wait(self) -> None:
        # Clear, then look: a chunk put after the look wakes us, one put before it is seen.
        self._ready.clear()
        if self._chunks.empty():
            await self._ready.wait()

    async def aclose(self) -> None:
        """Stop reading; the generation is cancelled unless it is done."""
        self._close()

    def _close(self) -> None:
        generation, self._generation = self._generation, None
        if generation is not None:
            generation.cancel()

    def __del__(self) -> None:
        self._close()
