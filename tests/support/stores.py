"""Stores for tests: in a file of SQLite, and, where a server is named, in PostgreSQL."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from typing import TYPE_CHECKING

from nitrolib.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# postgresql://user:password@host/name of a server where schemas may be made and dropped.
POSTGRESQL = os.environ.get("NITRO_TEST_DATABASE_URL")
KINDS = ("sqlite", "postgresql") if POSTGRESQL else ("sqlite",)
_numbers = itertools.count()


@contextlib.contextmanager
def store_url(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of *kind*; one of PostgreSQL is dropped at the end."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / f'store-{next(_numbers)}.db'}"
        return
    import psycopg

    assert POSTGRESQL is not None
    schema = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            mark = "&" if "?" in POSTGRESQL else "?"
            yield f"{POSTGRESQL}{mark}options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float = 1_700_000_000.5) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def opened(kind: str, folder: Path, clock: Clock | None = None) -> Iterator[Store]:
    """An empty store of *kind*."""
    with store_url(kind, folder) as url, Store.open(url, clock=clock or Clock()) as store:
        yield store
