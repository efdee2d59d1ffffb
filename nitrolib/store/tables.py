"""The tables of the store.

`sequence` orders rows that were made within one second, and is what pages are cut by. JSON is kept
as text with every character outside ASCII escaped, which both databases take whatever it holds.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

__all__ = ["assistants", "message_files", "messages", "metadata", "responses", "runs", "threads"]

# SQLite numbers rows by itself only in a column of the type INTEGER.
Whole = BigInteger().with_variant(Integer(), "sqlite")
Id = String(128)


class Json(TypeDecorator[Any]):
    """A JSON value in a text column."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:  # noqa: ARG002
        return None if value is None else json.dumps(value, allow_nan=False, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else json.loads(value)


class JsonList(Json):
    """A JSON array, read as a tuple."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        return tuple(super().process_result_value(value, dialect) or ())


metadata = MetaData(
    naming_convention={
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


def _table(name: str, *columns: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("sequence", Whole, primary_key=True, autoincrement=True),
        Column("id", Id, nullable=False, unique=True),
        Column("created_at", Whole, nullable=False),
        *columns,
        sqlite_autoincrement=True,  # a number is never given again
    )


def _thread_id() -> Column[Any]:
    owner = ForeignKey("threads.id", ondelete="CASCADE")
    return Column("thread_id", Id, owner, nullable=False)


def _needed(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


threads = _table(
    "threads",
    _needed("title", Text),
    _needed("assistants", JsonList),
    Column("model_id", Text),
    _needed("settings", Json),
    _needed("parameters", Json),
    _needed("metadata", Json),
)

messages = _table(
    "messages",
    _thread_id(),
    _needed("role", Text),
    _needed("content", JsonList),
    Column("assistant_id", Text),
    Column("run_id", Text),
    Column("chat_completion_id", Text),
    _needed("status", Text),
    Column("completed_at", Whole),
    _needed("metadata", Json),
)
Index(None, messages.c.thread_id, messages.c.sequence)

message_files = Table(
    "message_files",
    metadata,
    Column("sequence", Whole, primary_key=True, autoincrement=True),
    Column(
        "message_id",
        Id,
        ForeignKey("messages.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("id", Id, nullable=False),
    Column("created_at", Whole, nullable=False),
    sqlite_autoincrement=True,
)
Index(None, message_files.c.message_id, message_files.c.id, unique=True)

assistants = _table(
    "assistants",
    _needed("name", Text),
    Column("description", Text),
    _needed("instructions", Text),
    Column("model", Text),
    _needed("models", JsonList),
    _needed("avatar", Text),
    _needed("tools", JsonList),
    _needed("events", Json),
    _needed("parameters", Json),
    _needed("metadata", Json),
)

runs = _table(
    "runs",
    _thread_id(),
    _needed("assistant_id", Text),
    _needed("status", Text),
    _needed("model", Text),
    _needed("instructions", Text),
    _needed("parameters", Json),
    _needed("metadata", Json),
    Column("started_at", Whole),
    Column("expires_at", Whole),
    Column("cancelled_at", Whole),
    Column("failed_at", Whole),
    Column("completed_at", Whole),
    Column("last_error", Json),
    Column("incomplete_details", Json),
    Column("usage", Json),
    _needed("notes", JsonList),
)
Index(None, runs.c.thread_id, runs.c.sequence)

responses = _table(
    "responses",
    _needed("model", Text),
    Column("previous_id", Id),
    _needed("input", JsonList),
    _needed("output", JsonList),
    _needed("body", Json),
    _needed("metadata", Json),
)
