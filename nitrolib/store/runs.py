"""Runs of threads: one at a time is answered, and its end is written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..errors import Conflict
from . import tables
from .records import ACTIVE, Run
from .rows import Rows
from .threads import see_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.engine import Connection
    from typing_extensions import Required, TypedDict, Unpack

    from .records import Json, Order, Page

    class Changes(TypedDict, total=False):
        status: str
        model: str
        metadata: Json
        started_at: int | None
        expires_at: int | None
        cancelled_at: int | None
        failed_at: int | None
        completed_at: int | None
        last_error: Json | None
        incomplete_details: Json | None
        usage: Json | None
        notes: Sequence[str]

    class Fields(Changes, total=False):
        id: str | None
        created_at: int | None
        assistant_id: Required[str]
        instructions: str
        parameters: Json


__all__ = ["Runs"]


class Runs(Rows[Run]):
    """The runs of a store; each belongs to a thread."""

    kind = "run"
    prefix = "run"
    record = Run
    table = tables.runs
    fixed = Rows.fixed | {"thread_id", "assistant_id", "instructions", "parameters"}

    def create(self, thread_id: str, **fields: Unpack[Fields]) -> Run:
        """A new run of a thread. Raises NotFound for an unknown thread, and Conflict while another
        run of the thread is active (`id` names it) or where the `id` is taken.

        A run that should have ended long ago (`expires_at`), as one whose server was killed, is
        active no more: it becomes "expired".
        """
        with self._database.write() as connection:
            see_thread(connection, thread_id, hold=True)
            active = self._active(connection, thread_id)
            if active is not None:
                raise Conflict(
                    f"the thread {thread_id!r} is being answered by the run {active!r}",
                    kind="run",
                    id=active,
                )
            return self._find(
                connection, self._insert(connection, {**fields, "thread_id": thread_id})
            )

    def get(self, thread_id: str, run_id: str) -> Run:
        """One run of a thread. Raises NotFound, of the thread where it is unknown."""
        with self._database.read() as connection:
            see_thread(connection, thread_id)
            return self._find(connection, run_id, self.table.c.thread_id == thread_id)

    def list(
        self,
        thread_id: str,
        *,
        limit: int | None = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
    ) -> Page[Run]:
        """Part of a thread's runs; a *limit* of None is no limit. Raises NotFound for an unknown
        thread."""
        with self._database.read() as connection:
            see_thread(connection, thread_id)
            where = self.table.c.thread_id == thread_id
            return self._page(connection, limit, order, after, before, where)

    def update(
        self,
        thread_id: str,
        run_id: str,
        *,
        only_if: Collection[str] | None = None,
        **changes: Unpack[Changes],
    ) -> Run:
        """Change one run of a thread and return it. Raises NotFound, and Conflict where its status
        is none of *only_if*: the fact `status` says which it is."""
        with self._database.write() as connection:
            see_thread(connection, thread_id, hold=True)
            where = self.table.c.thread_id == thread_id
            if only_if is not None:
                status = self._find(connection, run_id, where).status
                if status not in only_if:
                    raise Conflict(
                        f"the run {run_id!r} is {status}", kind="run", id=run_id, status=status
                    )
            return self._change(connection, run_id, changes, where)

    def active(self, thread_id: str) -> str | None:
        """The id of the run that the thread is being answered by; None is none."""
        with self._database.write() as connection:
            see_thread(connection, thread_id, hold=True)
            return self._active(connection, thread_id)

    def _active(self, connection: Connection, thread_id: str) -> str | None:
        columns, now = self.table.c, self._now()
        mine: Any = (columns.thread_id == thread_id) & columns.status.in_(ACTIVE)
        late = sa.update(self.table).where(mine, columns.expires_at <= now)
        connection.execute(late.values(status="expired"))
        found: str | None = connection.execute(
            sa.select(columns.id).where(mine).order_by(columns.sequence).limit(1)
        ).scalar_one_or_none()
        return found
