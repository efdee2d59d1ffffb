"""A database: its connections, its transactions, and its failures as nitrolib's own errors.

SQLite keeps a write-ahead log and waits for the disk at every commit, so what was acknowledged is
there after the process is killed or the power goes; one writer works at a time beside any number of
readers. PostgreSQL does the same by itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..errors import InvalidRequest, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL, Connection, Engine

__all__ = ["Database"]

BUSY_S = 30  # how long a writer waits for those of other processes
CONNECTIONS = 8  # kept open; as many again while they are needed
_WRITING = "nitrolib_writing"  # the execution option of connections that will write


class Database:
    """One database, to be used from any thread. Raises InvalidRequest (field "url") for a URL that
    is neither of SQLite nor of PostgreSQL, StorageError where there is none that can be used."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = _parse(url)
        self._engine = _engine(self.url)
        self._process = os.getpid()
        self._here = threading.local()
        # SQLite makes writers poll for each other; those of one process stand in line instead.
        self._line = threading.RLock() if self.is_sqlite else contextlib.nullcontext()

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database until the block ends."""
        outer = self._current()
        if outer is not None:
            yield outer
            return
        with self._mapped(), self._connect().connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: committed where the block ends well, undone where it raises. A block
        inside another of the same thread is part of the outer one."""
        outer = self._current()
        if outer is not None:
            yield outer
            return
        with self._line, self._mapped(), self._connect().connect() as raw:
            connection = raw.execution_options(**{_WRITING: True})
            with connection.begin():
                self._here.connection = connection
                try:
                    yield connection
                finally:
                    self._here.connection = None

    def close(self) -> None:
        """Close the connections. They open again where the database is used again."""
        self._engine.dispose()

    def _current(self) -> Connection | None:
        """The connection of the transaction that this thread is in."""
        found: Connection | None = getattr(self._here, "connection", None)
        return found

    def _connect(self) -> Engine:
        if os.getpid() != self._process:  # a fork: the connections are the parent's
            self._engine.dispose(close=False)
            self._process = os.getpid()
        return self._engine

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise _storage_error(error, self.url) from error


def _parse(url: str | os.PathLike[str]) -> URL:
    if not isinstance(url, str):  # a path may hold characters that mean something in a URL
        return sa.URL.create("sqlite", database=os.fspath(url))
    try:
        parsed = sa.make_url(url)
    except (SQLAlchemyError, ValueError):
        # The text may hold a password: it is not repeated.
        raise _refused("is not the URL of a database") from None
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise _refused(f"names a database of the kind {kind!r}")
    if parsed.database in (None, "", ":memory:"):
        raise _refused("names no file")
    return parsed.set(drivername="sqlite")


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"the URL of the store {why}",
        field="url",
        allowed="sqlite:///path/to/file, or postgresql://user:password@host/name",
    )


def _engine(url: URL) -> Engine:
    common: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": CONNECTIONS}
    if url.get_backend_name() == "postgresql":
        try:
            return sa.create_engine(url, pool_pre_ping=True, **common)
        except ImportError as error:
            raise StorageError(
                "a store in PostgreSQL needs the package psycopg: pip install 'psycopg[binary]'",
                reason="driver",
            ) from error
    path = os.path.abspath(url.database or "")
    _make_file(path)
    connect = {"timeout": BUSY_S, "check_same_thread": False}
    engine = sa.create_engine(url.set(database=path), connect_args=connect, **common)
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _make_file(path: str) -> None:
    """Conversations are their owner's: the file is made before SQLite does, for its owner alone."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error}", reason="access") from error


def _prepare(connection: Any, _record: Any) -> None:
    """Set up a new connection to SQLite."""
    connection.isolation_level = None  # transactions begin where _begin says so
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout={BUSY_S * 1000}")
        _log_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA fullfsync=ON")  # macOS: through the disk's own cache
        cursor.execute("PRAGMA foreign_keys=ON")
    finally:
        cursor.close()


def _log_ahead(cursor: sqlite3.Cursor) -> None:
    """Turn the write-ahead log on. It stays on, in the file; two processes that do it at once are
    told "locked" without the usual waiting."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if str(mode).lower() != "wal":  # a network disk, for instance
            raise sqlite3.OperationalError("there can be no write-ahead log here")
        return


def _begin(connection: Connection) -> None:
    """Writers take their turn at the beginning: one that starts as a reader may have to give up."""
    writing = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


_SQLITE = {
    "SQLITE_FULL": "space",
    "SQLITE_BUSY": "busy",
    "SQLITE_LOCKED": "busy",
    "SQLITE_CORRUPT": "damaged",
    "SQLITE_NOTADB": "damaged",
    "SQLITE_READONLY": "access",
    "SQLITE_CANTOPEN": "access",
}
_SQLITE_WORDS = {
    "full": "space",
    "locked": "busy",
    "malformed": "damaged",
    "not a database": "damaged",
    "readonly": "access",
    "unable to open": "access",
}
_POSTGRES = {
    "53100": "space",  # disk_full
    "55P03": "busy",  # lock_not_available
    "40P01": "busy",  # deadlock_detected
    "40001": "busy",  # serialization_failure
    "XX001": "damaged",
    "42501": "access",
    "28P01": "access",
    "28000": "access",
}


def _storage_error(error: SQLAlchemyError, url: URL) -> StorageError:
    """*error* as nitrolib's; its `reason` is "space", "busy", "damaged", "access" or "database"."""
    cause = getattr(error, "orig", None)
    reason = "busy" if isinstance(error, PoolTimeout) else _reason(cause)
    name = url.render_as_string(hide_password=True)
    told = str(cause or error).strip().partition("\n")[0]
    return StorageError(f"the store {name} failed: {told}", reason=reason)


def _reason(cause: object) -> str:
    if isinstance(cause, sqlite3.Error):
        name = getattr(cause, "sqlite_errorname", "")  # from Python 3.11 on
        for start, reason in _SQLITE.items():
            if name.startswith(start):
                return reason
        words = str(cause)
        return next((why for word, why in _SQLITE_WORDS.items() if word in words), "database")
    state = str(getattr(cause, "sqlstate", None) or "")
    return _POSTGRES.get(state, "database")
