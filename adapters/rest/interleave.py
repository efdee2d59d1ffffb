"""Reads several generations at once, each chunk when it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nitrolib.engine import Generation
    from nitrolib.engine.request import Chunk

__all__ = ["interleave"]


def interleave(generations: Sequence[Generation]) -> Iterator[tuple[int, Chunk]]:
    """Chunks with the index of their generation, in the order in which they come. The first error
    of any of them is raised. They are not cancelled here: the handles are the caller's."""
    if len(generations) > 1:
        yield from _together(generations)
    else:
        for chunk in generations[0]:
            yield 0, chunk


def _together(generations: Sequence[Generation]) -> Iterator[tuple[int, Chunk]]:
    """One event loop waits for all of them, and no thread but this one."""
    loop = asyncio.new_event_loop()
    arrived: asyncio.Queue[tuple[int, Chunk] | BaseException | None] = asyncio.Queue()

    async def read(index: int, generation: Generation) -> None:
        try:
            async for chunk in generation:
                arrived.put_nowait((index, chunk))
        except Exception as error:  # noqa: BLE001 - raised where the chunks are read
            arrived.put_nowait(error)
        else:
            arrived.put_nowait(None)

    readers = [loop.create_task(read(index, one)) for index, one in enumerate(generations)]
    reading = len(readers)
    try:
        while reading:
            found = loop.run_until_complete(arrived.get())
            if isinstance(found, BaseException):
                raise found
            if found is None:
                reading -= 1
            else:
                yield found
    finally:
        for reader in readers:
            reader.cancel()
        loop.run_until_complete(asyncio.gather(*readers, return_exceptions=True))
        loop.close()
