"""Assistants, the built-in one among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Forbidden
from . import tables
from .records import Assistant
from .rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypedDict, Unpack

    from .records import Json, Order, Page

    class Changes(TypedDict, total=False):
        name: str
        description: str | None
        instructions: str
        model: str | None
        models: Sequence[Json]
        avatar: str
        tools: Sequence[Json]
        events: Json
        parameters: Json
        metadata: Json

    class Fields(Changes, total=False):
        id: str | None
        created_at: int | None


__all__ = ["BUILT_IN", "Assistants"]

BUILT_IN = "jan"  # there from the first migration on


class Assistants(Rows[Assistant]):
    """The assistants of a store."""

    kind = "assistant"
    prefix = "asst"
    record = Assistant
    table = tables.assistants

    def create(self, **fields: Unpack[Fields]) -> Assistant:
        """A new assistant. Raises Conflict for an `id` that is taken."""
        with self._database.write() as connection:
            return self._find(connection, self._insert(connection, fields))

    def get(self, assistant_id: str) -> Assistant:
        """One assistant. Raises NotFound."""
        with self._database.read() as connection:
            return self._find(connection, assistant_id)

    def list(
        self,
        *,
        limit: int | None = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
    ) -> Page[Assistant]:
        """Part of the assistants; a *limit* of None is no limit."""
        with self._database.read() as connection:
            return self._page(connection, limit, order, after, before)

    def update(self, assistant_id: str, **changes: Unpack[Changes]) -> Assistant:
        """Change one assistant and return it. Raises NotFound."""
        with self._database.write() as connection:
            return self._change(connection, assistant_id, changes)

    def delete(self, assistant_id: str) -> None:
        """Delete the assistant. Raises NotFound, and Forbidden for the built-in one."""
        if assistant_id == BUILT_IN:
            raise Forbidden(
                f"the assistant {assistant_id!r} is built in and stays",
                kind="assistant",
                id=assistant_id,
            )
        with self._database.write() as connection:
            self._remove(connection, assistant_id)
