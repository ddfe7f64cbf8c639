"""`make migration m="…"`: writes the next revision from the difference between code and migrations. Read it before committing it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from keygate.kit.database import open_database
from keygate.revisions import configuration
from keygate.schema import scripts, upgrade


async def write(message: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        database = open_database(data_dir=Path(directory))
        await upgrade(database)
        async with database.unit() as work:
            await work.connection.run_sync(_revision, message)
        await database.close()


def _revision(connection: sa.Connection, message: str) -> None:
    config = configuration(scripts(), connection)
    known = len(list(ScriptDirectory.from_config(config).walk_revisions()))
    command.revision(config, message=message, autogenerate=True, rev_id=f"{known + 1:04d}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit('say what changes: make migration m="what changes"')
    asyncio.run(write(sys.argv[1].strip()))
