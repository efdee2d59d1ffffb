"""The clients of LocalLab, sync and async, behind one face: what a test does, it does with both.

To be imported in the main thread: the client's own import asks for an event loop there.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

with warnings.catch_warnings():  # an alias that the client uses is deprecated by websockets
    warnings.simplefilter("ignore", DeprecationWarning)
    locallab_client: Any = pytest.importorskip("locallab_client")

__all__ = ["KINDS", "AsyncFace", "Face", "SyncFace"]


class Face(Protocol):
    """One client."""

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """What a method returns."""

    def stream(self, method: str, *args: Any, **options: Any) -> Iterator[Any]:
        """What a streaming method yields; closing it leaves the stream."""

    def close(self) -> None: ...


class SyncFace:
    def __init__(self, url: str) -> None:
        self._client = locallab_client.SyncLocalLabClient(url)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        return getattr(self._client, method)(*args, **options)

    def stream(self, method: str, *args: Any, **options: Any) -> Iterator[Any]:
        yield from getattr(self._client, method)(*args, **options)

    def close(self) -> None:
        self._client.close()


class AsyncFace:
    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = locallab_client.LocalLabClient(url)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(getattr(self._client, method)(*args, **options))

    def stream(self, method: str, *args: Any, **options: Any) -> Iterator[Any]:
        chunks = getattr(self._client, method)(*args, **options)
        try:
            while (chunk := self._loop.run_until_complete(_next(chunks))) is not _END:
                yield chunk
        finally:
            self._loop.run_until_complete(chunks.aclose())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


_END = object()


async def _next(chunks: Any) -> Any:
    return await anext(chunks, _END)


KINDS = {"sync": SyncFace, "async": AsyncFace}
