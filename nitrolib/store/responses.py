"""Responses of the Responses API, each going on from another or from none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..errors import NotFound
from . import tables
from .records import StoredResponse
from .rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Required, TypedDict, Unpack

    from .records import Json, Order, Page

    class Changes(TypedDict, total=False):
        output: Sequence[Json]
        body: Json
        metadata: Json

    class Fields(Changes, total=False):
        id: str | None
        created_at: int | None
        model: Required[str]
        previous_id: str | None
        input: Sequence[Json]


__all__ = ["Responses"]


class Responses(Rows[StoredResponse]):
    """The responses of a store."""

    kind = "response"
    prefix = "resp"
    record = StoredResponse
    table = tables.responses
    fixed = Rows.fixed | {"model", "previous_id", "input"}

    def create(self, **fields: Unpack[Fields]) -> StoredResponse:
        """A new response. Raises Conflict for an `id` that is taken, NotFound where there is no
        response `previous_id`."""
        previous = fields.get("previous_id")
        with self._database.write() as connection:
            if previous is not None:
                self._find(connection, previous)
            return self._find(connection, self._insert(connection, fields))

    def get(self, response_id: str) -> StoredResponse:
        """One response. Raises NotFound."""
        with self._database.read() as connection:
            return self._find(connection, response_id)

    def chain(self, response_id: str) -> tuple[StoredResponse, ...]:
        """A response and all it goes on from, oldest first. Raises NotFound, also for one of
        them that was deleted: without it the conversation would be another one."""
        columns = self.table.c
        with self._database.read() as connection:
            self._find(connection, response_id)
            links = sa.select(columns.id, columns.previous_id).where(columns.id == response_id)
            chain = links.cte("chain", recursive=True)
            chain = chain.union(
                sa.select(columns.id, columns.previous_id).where(columns.id == chain.c.previous_id)
            )
            query = sa.select(self.table).where(columns.id.in_(sa.select(chain.c.id)))
            rows = connection.execute(query.order_by(columns.sequence)).mappings().all()
            found = tuple(self._records(connection, rows))
        if found[0].previous_id is not None:
            raise NotFound("response", found[0].previous_id)
        return found

    def list(
        self,
        *,
        limit: int | None = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
    ) -> Page[StoredResponse]:
        """Part of the responses; a *limit* of None is no limit."""
        with self._database.read() as connection:
            return self._page(connection, limit, order, after, before)

    def update(self, response_id: str, **changes: Unpack[Changes]) -> StoredResponse:
        """Change one response and return it. Raises NotFound."""
        with self._database.write() as connection:
            return self._change(connection, response_id, changes)

    def delete(self, response_id: str) -> None:
        """Delete the response; those that go on from it stay, and have no chain any more.
        Raises NotFound."""
        with self._database.write() as connection:
            self._remove(connection, response_id)
