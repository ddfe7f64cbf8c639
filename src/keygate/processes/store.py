"""The database that the settings name. Light: a start makes or migrates it in a process that loads little else."""

from __future__ import annotations

from pathlib import Path

from keygate.config import Settings
from keygate.kit.database import Database, open_database


def open_store(settings: Settings, directory: Path) -> Database:
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    return open_database(url, data_dir=directory)


def unusable(database: Database) -> str:
    """What to tell where a database can't be opened; the log has the cause."""
    if database.is_sqlite:
        return f"the file {database.engine.url.database} can't be used: it is damaged, or no SQLite database; restore it from a backup"
    return "the database can't be used; is its server up, and is KEYGATE_DATABASE_URL right?"
