"""Messages of threads, and the files that belong to them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..errors import InvalidRequest, NotFound
from . import tables
from .ids import check_id, is_id
from .records import Message, MessageFile
from .rows import AT_ONCE, Rows
from .threads import see_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping
    from sqlalchemy.engine import Connection
    from typing_extensions import Required, TypedDict, Unpack

    from .records import Json, Order, Page

    class Changes(TypedDict, total=False):
        content: Sequence[Json]
        assistant_id: str | None
        run_id: str | None
        chat_completion_id: str | None
        status: str
        completed_at: int | None
        metadata: Json

    class Fields(Changes, total=False):
        id: str | None
        created_at: int | None
        role: Required[str]
        file_ids: Sequence[str]

    _New = tuple[dict[str, Any], tuple[str, ...]]  # a row but for its thread, the ids of files


__all__ = ["Messages"]


class Messages(Rows[Message]):
    """The messages of a store; each belongs to a thread."""

    kind = "message"
    prefix = "msg"
    record = Message
    table = tables.messages
    fixed = Rows.fixed | {"thread_id", "role", "file_ids"}

    def create(self, thread_id: str, **fields: Unpack[Fields]) -> Message:
        """A new message at the end of a thread. Raises NotFound for an unknown thread, Conflict for
        an `id` that is taken."""
        return self._create(thread_id, [self._new(fields)])[0]

    def create_many(self, thread_id: str, messages: Sequence[Fields]) -> tuple[Message, ...]:
        """New messages at the end of a thread, in their order: all of them, or none.

        Raises as `create` does; an InvalidRequest names its field with the place of the message,
        such as `messages/3/metadata`.
        """
        made = [self._new(one, f"messages/{index}/") for index, one in enumerate(messages)]
        return self._create(thread_id, made)

    def _new(self, fields: Fields, place: str = "") -> _New:
        files = _check_files(fields.get("file_ids", ()), place)
        return self._row({**fields, "file_ids": files}, place), files

    def _create(self, thread_id: str, made: Sequence[_New]) -> tuple[Message, ...]:
        with self._database.write() as connection:
            see_thread(connection, thread_id, hold=True)
            ids = self._insert_all(connection, [{**row, "thread_id": thread_id} for row, _ in made])
            files = [
                {"id": file, "message_id": row["id"], "created_at": self._now()}
                for row, row_files in made
                for file in row_files
            ]
            if files:
                connection.execute(sa.insert(tables.message_files), files)
            return tuple(self._records(connection, list(self._rows(connection, ids))))

    def get(self, thread_id: str, message_id: str) -> Message:
        """One message of a thread. Raises NotFound, of the thread where it is unknown."""
        with self._database.read() as connection:
            see_thread(connection, thread_id)
            return self._find(connection, message_id, self.table.c.thread_id == thread_id)

    def list(
        self,
        thread_id: str,
        *,
        limit: int | None = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
        run_id: str | None = None,
    ) -> Page[Message]:
        """Part of a thread's messages, or of those of one run. A *limit* of None is no limit.
        Raises NotFound for an unknown thread."""
        where = [self.table.c.thread_id == thread_id]
        if run_id is not None:
            where.append(self.table.c.run_id == (run_id if is_id(run_id) else ""))
        with self._database.read() as connection:
            see_thread(connection, thread_id)
            return self._page(connection, limit, order, after, before, *where)

    def ids(self, thread_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The ids of all messages of each of *thread_ids*, oldest first."""
        found: dict[str, list[str]] = {thread_id: [] for thread_id in thread_ids}
        columns = self.table.c
        with self._database.read() as connection:
            for start in range(0, len(thread_ids), AT_ONCE):
                some = list(thread_ids[start : start + AT_ONCE])
                query = sa.select(columns.thread_id, columns.id).where(columns.thread_id.in_(some))
                for thread_id, message_id in connection.execute(query.order_by(columns.sequence)):
                    found[thread_id].append(message_id)
        return {thread_id: tuple(ids) for thread_id, ids in found.items()}

    def update(self, thread_id: str, message_id: str, **changes: Unpack[Changes]) -> Message:
        """Change one message of a thread and return it. Raises NotFound."""
        with self._database.write() as connection:
            see_thread(connection, thread_id, hold=True)
            return self._change(
                connection, message_id, changes, self.table.c.thread_id == thread_id
            )

    def delete(self, thread_id: str, message_id: str) -> None:
        """Delete the message of a thread. Raises NotFound."""
        with self._database.write() as connection:
            see_thread(connection, thread_id, hold=True)
            self._remove(connection, message_id, self.table.c.thread_id == thread_id)

    def files(self, thread_id: str, message_id: str) -> tuple[MessageFile, ...]:
        """The files of one message, in the order they were given. Raises NotFound."""
        with self._database.read() as connection:
            see_thread(connection, thread_id)
            self._find(connection, message_id, self.table.c.thread_id == thread_id)
            return tuple(_files(connection, [message_id])[message_id])

    def file(self, thread_id: str, message_id: str, file_id: str) -> MessageFile:
        """One file of the message. Raises NotFound."""
        for file in self.files(thread_id, message_id):
            if file.id == file_id:
                return file
        raise NotFound("file", file_id)

    def _records(self, connection: Connection, rows: Sequence[RowMapping]) -> Sequence[Message]:
        files = _files(connection, [row["id"] for row in rows])
        return [
            Message(**self._values(row), file_ids=tuple(file.id for file in files[row["id"]]))
            for row in rows
        ]


def _check_files(file_ids: Sequence[str], place: str) -> tuple[str, ...]:
    field = f"{place}file_ids"
    files = tuple(check_id(file, f"{field}/{index}") for index, file in enumerate(file_ids))
    if len(set(files)) < len(files):
        raise InvalidRequest(f"{field} names a file twice", field=field, allowed="each file once")
    return files


def _files(connection: Connection, ids: Sequence[str]) -> dict[str, list[MessageFile]]:
    """The files of each of the messages *ids*, in their order."""
    found: dict[str, list[MessageFile]] = defaultdict(list)
    columns = tables.message_files.c
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        query = sa.select(columns.id, columns.message_id, columns.created_at)
        query = query.where(columns.message_id.in_(some)).order_by(columns.sequence)
        for row in connection.execute(query).mappings():
            found[row["message_id"]].append(MessageFile(**row))
    return found
