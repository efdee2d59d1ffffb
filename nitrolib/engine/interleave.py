"""interleave and paced: several generations are read at once, each chunk when it comes."""

from __future__ import annotations

from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .generation import Generation
    from .request import Chunk

__all__ = ["interleave", "paced"]


def interleave(generations: Sequence[Generation]) -> Iterator[tuple[int, Chunk]]:
    """Chunks of the choices of one request, with the index of their generation, as they come.

    Each generation is read once, as by iterating it, and ends as it does then; the first error of
    any of them is raised. Leaving early cancels them all. No thread and no event loop is needed:
    whatever puts a chunk says whose it is.
    """
    if len(generations) == 1:
        for chunk in generations[0]:
            yield 0, chunk
        return
    for found in paced(generations, None):
        if found is not None:
            yield found


def paced(
    generations: Sequence[Generation], silence_s: float | None
) -> Iterator[tuple[int, Chunk] | None]:
    """As `interleave`, and None after every *silence_s* seconds in which nothing came."""
    news: SimpleQueue[int] = SimpleQueue()
    reading = set(range(len(generations)))
    try:
        for index, generation in enumerate(generations):
            generation._begin_reading()
            generation._outbox.waker = partial(news.put, index)
            news.put(index)  # chunks that came before the waker did
        while reading:
            try:
                index = news.get(timeout=silence_s)
            except Empty:
                yield None
                continue
            while index in reading:
                try:
                    found = generations[index]._next(block=False)
                except Empty:
                    break
                if found is None:
                    reading.remove(index)
                else:
                    yield index, found
    finally:
        for generation in generations:
            generation.cancel()
