"""Every table of KeyGate on one `metadata`, and how a database gets and keeps this shape.

An area's tables are found by their file name (`tables.py`), so a new one can't be forgotten. Revisions stand in `migrations/`, beside
`src/` in the source tree and inside the package once installed.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from keygate.errors import Conflict, InvalidInput, StartRefused
from keygate.kit.database import Database, lock, metadata

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """How a database stands against this version. `drift` names differences between tables and code; `damage` what the database itself
    finds wrong with its file (SQLite)."""

    current: str | None
    head: str | None
    drift: tuple[str, ...]
    damage: tuple[str, ...]

    @property
    def pending(self) -> bool:
        return self.current != self.head

    @property
    def ok(self) -> bool:
        return not (self.pending or self.drift or self.damage)


_VERSION = "alembic_version"  # the table in which Alembic notes the revision
_DIALECTS = ("sqlite", "postgresql")


def whole_schema(dialects: Sequence[str] = _DIALECTS) -> sa.MetaData:
    """Imports every `tables.py` of the package, in a stable order, and returns the metadata they registered on, for these dialects."""
    root = Path(__file__).parent
    for path in sorted(root.rglob("tables.py")):
        importlib.import_module(".".join(("keygate", *path.relative_to(root).with_suffix("").parts)))
    for table in metadata.tables.values():
        for index in table.indexes:
            if "where" in index.info:  # of `partial_index`
                for kind in dialects:
                    index.dialect_kwargs[f"{kind}_where"] = sa.text(index.info["where"])
    return metadata


def scripts() -> Path:
    """The directory of the migrations."""
    package = Path(__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parents[1] / "migrations"


async def is_current(database: Database) -> bool:
    """Whether a database has this version's shape, as far as its revision tells."""
    async with database.read() as connection:
        current = await connection.run_sync(_current)
    return current is not None and current == _newest()


async def create(database: Database) -> bool:
    """Makes all tables of this version in a database that holds none, one process at a time. False where there is something already:
    then `upgrade` is for it. What migrations would make, column for column (a test compares them), in a fraction of their time."""
    async with _alone(database) as connection:
        return await connection.run_sync(_create)


def _create(connection: sa.Connection) -> bool:
    if sa.inspect(connection).get_table_names():
        return False
    whole_schema((connection.dialect.name,)).create_all(connection, checkfirst=False)
    version = sa.Table(_VERSION, sa.MetaData(), sa.Column("version_num", sa.String(32), nullable=False))
    version.append_constraint(sa.PrimaryKeyConstraint("version_num", name=f"{_VERSION}_pkc"))  # as Alembic makes it
    version.create(connection)
    connection.execute(version.insert().values(version_num=_newest()))
    return True


async def upgrade(database: Database) -> str:
    """Brings a database to this version, whole or not at all, one process at a time. Returns the revision it then has. Raises
    `StartRefused` for a database that a newer KeyGate has written."""
    if await is_current(database):
        return _newest()
    async with _alone(database) as connection:
        return str(await connection.run_sync(_revisions().upgrade, scripts()))


def _current(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION):
        return None
    return connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(_VERSION))).scalar_one_or_none()


def _newest() -> str:
    """Files of revisions are named after them, and revisions are numbered (`migrations/new.py`)."""
    return max((path.name.partition("_")[0] for path in (scripts() / "versions").glob("[0-9]*.py")), default="")


def _revisions() -> ModuleType:
    from keygate import revisions  # noqa: PLC0415  (a start on a current database does without Alembic)

    return revisions


async def check(database: Database) -> SchemaReport:
    """Compares; changes nothing."""
    async with database.read() as connection:
        current, head, drift = await connection.run_sync(_revisions().compare, scripts(), whole_schema())
        damage: tuple[str, ...] = ()
        if database.is_sqlite:
            found = await connection.exec_driver_sql("PRAGMA quick_check(20)")
            damage = tuple(row[0] for row in found if row[0] != "ok")
    return SchemaReport(current=current, head=head, drift=drift, damage=damage)


async def backup(database: Database, path: Path) -> None:
    """A consistent copy of a SQLite database while others use it, in a new file that only its owner may read."""
    if not database.is_sqlite:
        raise InvalidInput("This database is PostgreSQL: back it up with `pg_dump --format=custom --file=keygate.dump` and its URL")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise Conflict(f"{path} exists already; name a new file") from None
    except OSError as error:
        raise InvalidInput(f"{path} can't be written: {error.strerror}") from None
    await asyncio.to_thread(_copy, str(database.engine.url.database), path)


def _copy(source: str, target: Path) -> None:
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        if new.execute("SELECT 1 FROM sqlite_master WHERE name = 'budget_slices'").fetchone():
            new.execute("DELETE FROM budget_slices")  # a permission to spend is the running gateway's; a copy asks for its own
            new.commit()


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction that no other migration runs beside. SQLite: BEGIN IMMEDIATE, with foreign keys checked at the end instead of
    enforced, because tables are rebuilt there. PostgreSQL: an advisory lock."""
    if not database.is_sqlite:
        async with database.unit() as work:
            await work.connection.execute(sa.text("SET LOCAL lock_timeout = '10min'"))
            await work.connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            await lock(work.connection, "keygate:migrations")
            yield work.connection
        return
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute("PRAGMA foreign_keys=OFF")
        try:
            async with connection.begin():
                yield connection
                broken = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).first()
                if broken is not None:
                    raise StartRefused(f"The migration would leave broken references in {broken[0]}; nothing was changed")
        finally:
            await driver.execute("PRAGMA foreign_keys=ON")
