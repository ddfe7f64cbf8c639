"""Migrations, run by Alembic. Loading it takes a tenth of a second and ten mebibytes, so only `schema` imports it, and only where there is
something to migrate or to compare.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from keygate.errors import StartRefused


def configuration(scripts: Path, connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration; no alembic.ini is needed."""
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: sa.Connection, scripts: Path) -> str:
    """Brings the database to the newest revision and returns it. Raises `StartRefused` for a revision that is not known here."""
    config = configuration(scripts, connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise StartRefused(
            f"The database has the revision {current}, which this version does not know; start the newer KeyGate, or restore a backup"
        )
    command.upgrade(config, "head")
    return MigrationContext.configure(connection).get_current_revision() or ""


def compare(connection: sa.Connection, scripts: Path, tables: sa.MetaData) -> tuple[str | None, str | None, tuple[str, ...]]:
    """The database's revision, the newest one, and what differs between the database and `tables`."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    head = ScriptDirectory.from_config(configuration(scripts)).get_current_head()
    drift = tuple(_describe(difference) for difference in compare_metadata(context, tables))
    return context.get_current_revision(), head, drift


def _describe(difference: Any) -> str:
    flat = difference[0] if isinstance(difference, list) else difference
    return " ".join(str(part) for part in flat if isinstance(part, str | sa.Table | sa.Column | sa.Index))[:300]
