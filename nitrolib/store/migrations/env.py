"""What alembic runs a migration in: the connection that the opening store holds."""

from alembic import context

from nitrolib.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by making it anew
)
context.run_migrations()
