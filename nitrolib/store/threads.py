"""Threads, and their being there for what belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..errors import NotFound
from . import tables
from .ids import is_id
from .records import Thread
from .rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection
    from typing_extensions import TypedDict, Unpack

    from .records import Json, Order, Page

    class Changes(TypedDict, total=False):
        title: str
        assistants: Sequence[Json]
        model_id: str | None
        settings: Json
        parameters: Json
        metadata: Json

    class Fields(Changes, total=False):
        id: str | None
        created_at: int | None


__all__ = ["Threads", "see_thread"]


class Threads(Rows[Thread]):
    """The threads of a store."""

    kind = "thread"
    prefix = "thread"
    record = Thread
    table = tables.threads

    def create(self, **fields: Unpack[Fields]) -> Thread:
        """A new thread. Raises Conflict for an `id` that is taken."""
        with self._database.write() as connection:
            return self._find(connection, self._insert(connection, fields))

    def get(self, thread_id: str) -> Thread:
        """One thread. Raises NotFound."""
        with self._database.read() as connection:
            return self._find(connection, thread_id)

    def list(
        self,
        *,
        limit: int | None = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
    ) -> Page[Thread]:
        """Part of the threads; a *limit* of None is no limit. See `Rows` for the paging."""
        with self._database.read() as connection:
            return self._page(connection, limit, order, after, before)

    def update(self, thread_id: str, **changes: Unpack[Changes]) -> Thread:
        """Change one thread and return it. Raises NotFound."""
        with self._database.write() as connection:
            return self._change(connection, thread_id, changes)

    def delete(self, thread_id: str) -> None:
        """Delete the thread with its messages and runs. Raises NotFound."""
        with self._database.write() as connection:
            self._remove(connection, thread_id)


def see_thread(connection: Connection, thread_id: str, *, hold: bool = False) -> None:
    """Raise NotFound where there is no thread *thread_id*.

    hold: it stays there until the transaction ends, and no other transaction holds it meanwhile.
    """
    if is_id(thread_id):
        query = sa.select(tables.threads.c.sequence).where(tables.threads.c.id == thread_id)
        if hold:  # in SQLite a transaction that writes is the only one
            query = query.with_for_update()
        if connection.execute(query).scalar_one_or_none() is not None:
            return
    raise NotFound("thread", thread_id)
