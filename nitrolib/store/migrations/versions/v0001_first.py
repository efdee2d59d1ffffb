"""Threads, messages and their files, assistants with the built-in one, runs, responses."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ID = sa.String(128)


def upgrade() -> None:
    _create(
        "threads",
        _needed("title", sa.Text),
        _needed("assistants", sa.Text),
        sa.Column("model_id", sa.Text),
        _needed("settings", sa.Text),
        _needed("parameters", sa.Text),
        _needed("metadata", sa.Text),
    )
    _create(
        "messages",
        _needed("thread_id", ID),
        _needed("role", sa.Text),
        _needed("content", sa.Text),
        sa.Column("assistant_id", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.Column("chat_completion_id", sa.Text),
        _needed("status", sa.Text),
        sa.Column("completed_at", WHOLE),
        _needed("metadata", sa.Text),
        _owner("messages", "thread_id", "threads"),
    )
    op.create_index("ix_messages_thread_id_sequence", "messages", ["thread_id", "sequence"])
    op.create_table(
        "message_files",
        sa.Column("sequence", WHOLE, autoincrement=True, nullable=False),
        _needed("message_id", ID),
        _needed("id", ID),
        _needed("created_at", WHOLE),
        sa.PrimaryKeyConstraint("sequence", name="pk_message_files"),
        _owner("message_files", "message_id", "messages"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_message_files_message_id_id", "message_files", ["message_id", "id"], unique=True
    )
    _create(
        "assistants",
        _needed("name", sa.Text),
        sa.Column("description", sa.Text),
        _needed("instructions", sa.Text),
        sa.Column("model", sa.Text),
        _needed("models", sa.Text),
        _needed("avatar", sa.Text),
        _needed("tools", sa.Text),
        _needed("events", sa.Text),
        _needed("parameters", sa.Text),
        _needed("metadata", sa.Text),
    )
    _create(
        "runs",
        _needed("thread_id", ID),
        _needed("assistant_id", sa.Text),
        _needed("status", sa.Text),
        _needed("model", sa.Text),
        _needed("instructions", sa.Text),
        _needed("parameters", sa.Text),
        _needed("metadata", sa.Text),
        sa.Column("started_at", WHOLE),
        sa.Column("expires_at", WHOLE),
        sa.Column("cancelled_at", WHOLE),
        sa.Column("failed_at", WHOLE),
        sa.Column("completed_at", WHOLE),
        sa.Column("last_error", sa.Text),
        sa.Column("incomplete_details", sa.Text),
        sa.Column("usage", sa.Text),
        _needed("notes", sa.Text),
        _owner("runs", "thread_id", "threads"),
    )
    op.create_index("ix_runs_thread_id_sequence", "runs", ["thread_id", "sequence"])
    _create(
        "responses",
        _needed("model", sa.Text),
        sa.Column("previous_id", ID),
        _needed("input", sa.Text),
        _needed("output", sa.Text),
        _needed("body", sa.Text),
        _needed("metadata", sa.Text),
    )
    _built_in_assistant()


def downgrade() -> None:
    for name in ("responses", "runs", "assistants", "message_files", "messages", "threads"):
        op.drop_table(name)


def _create(name: str, *parts: sa.schema.SchemaItem) -> None:
    op.create_table(
        name,
        sa.Column("sequence", WHOLE, autoincrement=True, nullable=False),
        _needed("id", ID),
        _needed("created_at", WHOLE),
        *parts,
        sa.PrimaryKeyConstraint("sequence", name=f"pk_{name}"),
        sa.UniqueConstraint("id", name=f"uq_{name}_id"),
        sqlite_autoincrement=True,
    )


def _needed(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _owner(table: str, column: str, owner: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], [f"{owner}.id"], name=name, ondelete="CASCADE")


def _built_in_assistant() -> None:
    names = (
        "id", "created_at", "name", "description", "instructions", "models", "avatar", "tools",
        "events", "parameters", "metadata",
    )  # fmt: skip
    values = (
        "jan", int(time.time()), "Jan", "The assistant that is always there", "",
        '[{"model_id":"*"}]', "", "[]", '{"in":[],"out":[]}', "{}", "{}",
    )  # fmt: skip
    table = sa.table("assistants", *(sa.column(name) for name in names))
    op.execute(table.insert().values(dict(zip(names, values, strict=True))))
