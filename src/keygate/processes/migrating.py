"""Tables at a start, in a process of its own: what making or migrating them leaves behind would stay in the server for its whole life.

    python -m keygate.processes.migrating DIRECTORY

The caller holds the data directory's lock. Ends with 0; or with 3, and the sentence for the operator on standard output.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import sqlalchemy as sa

from keygate import schema
from keygate.config import Settings
from keygate.errors import StartRefused, Unavailable
from keygate.kit.database import Database
from keygate.processes import logs
from keygate.processes.store import open_store, unusable

_SECONDS = 3_600.0  # for a whole migration, waiting for another process's included
_REFUSED = 3


async def bring_up_to_date(settings: Settings, directory: Path) -> None:
    """Migrates the database where it is not of this version; a new one gets its tables at once. Raises `StartRefused`."""
    store = open_store(settings, directory)
    try:
        if await schema.is_current(store):
            return
    except Unavailable:  # the log has the cause
        raise StartRefused(unusable(store)) from None
    finally:
        await store.close()
    command = (sys.executable, "-m", "keygate.processes.migrating", str(directory))
    child = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    try:
        told, _ = await asyncio.wait_for(child.communicate(), _SECONDS)
    except BaseException:
        if child.returncode is None:
            child.kill()
            await child.wait()
        raise
    if child.returncode:
        raise StartRefused(told.decode(errors="replace").strip() or "the database can't be brought to this version; the log has the cause")


async def _upgrade(store: Database) -> None:
    try:
        if not await schema.create(store):
            await schema.upgrade(store)
    except Unavailable:  # the log has the cause
        raise StartRefused(unusable(store)) from None
    except sa.exc.DatabaseError as error:
        raise StartRefused(f"the database can't be brought to this version: {error.orig}") from error
    finally:
        await store.close()


def main(directory: str) -> int:
    settings = Settings()
    logs.configure(level=settings.log_level, form=settings.log_format)
    try:
        asyncio.run(_upgrade(open_store(settings, Path(directory))))
    except StartRefused as error:
        print(error.detail)  # noqa: T201  (for the server, which tells the operator)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
