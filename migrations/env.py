"""Run by Alembic, always with a connection that `keygate.schema` has opened."""

from __future__ import annotations

from alembic import context

from keygate.schema import whole_schema

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=whole_schema(),
    compare_type=True,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite rebuilds a table to change it
    transactional_ddl=True,
)
context.run_migrations()
