"""`Store`: everything that is kept between requests, behind one object."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from ..errors import StorageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from .assistants import Assistants
    from .database import Database
    from .messages import Messages
    from .responses import Responses
    from .runs import Runs
    from .threads import Threads

__all__ = ["Store"]


class Store:
    """Threads, messages, assistants, runs and responses in a database.

    Open one with `Store.open`; use it from any thread; a context manager that closes it. A call
    that returned has its effect on the disk: it is there after the process is killed. Every call
    raises StorageError where the database fails; the fact `reason` is "space", "busy", "damaged",
    "access", "version", "driver" or "database".
    """

    threads: Threads
    messages: Messages
    assistants: Assistants
    runs: Runs
    responses: Responses

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        from .assistants import Assistants
        from .messages import Messages
        from .responses import Responses
        from .runs import Runs
        from .threads import Threads

        self._database = database
        self.threads = Threads(database, clock)
        self.messages = Messages(database, clock)
        self.assistants = Assistants(database, clock)
        self.runs = Runs(database, clock)
        self.responses = Responses(database, clock)

    @classmethod
    def open(cls, url: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> Self:
        """Open the store *url*, making it or bringing it up to date where that is needed.

        url: the path of a SQLite file (a `Path`), `sqlite:///folder/file.db`, or
            `postgresql://user:password@host/name`.
        clock: what tells the time, in seconds since 1970.

        Open it after a fork, not before. Raises InvalidRequest (field "url"), and StorageError
        where the database cannot be used or the packages of the extra "store" are missing.
        """
        try:
            from .database import Database
            from .upgrade import upgrade
        except ImportError as error:
            raise StorageError(
                "keeping threads needs the extra: pip install 'nitrolib[store]'", reason="driver"
            ) from error
        database = Database(url)
        try:
            upgrade(database)
        except BaseException:
            database.close()
            raise
        return cls(database, clock)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What this thread does to the store in this block happens as one: all of it, or, where the
        block raises, nothing. Others wait to write meanwhile, so keep it short."""
        with self._database.write():
            yield

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
