"""Brings a database to the form that this version reads."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..errors import StorageError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection

    from .database import Database

__all__ = ["upgrade"]

log = logging.getLogger(__name__)

_LOCK = 0x6E697472  # of all stores: "nitr"


def upgrade(database: Database) -> None:
    """Run the migrations that *database* has not had. Any number of processes may do it at once:
    one does it, the others wait and find it done.

    Raises StorageError (reason "version") for a database that a later version wrote.
    """
    alembic = logging.getLogger("alembic")
    if alembic.level == logging.NOTSET:  # it tells every step, plugins included
        alembic.setLevel(logging.WARNING)
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config()
    script = ScriptDirectory.from_config(config)
    newest = script.get_current_head()
    with database.read() as connection:
        if _version(connection) == newest:
            return
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _version(connection)
        if found is not None and found not in {one.revision for one in script.walk_revisions()}:
            raise StorageError(
                f"the store is of version {found}, and this nitrolib reads up to {newest}",
                reason="version",
            )
        log.info("the store goes from version %s to %s", found or "none", newest)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "migrations")
    # A percent sign in the path would be taken for the start of a variable.
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config


def _version(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()
