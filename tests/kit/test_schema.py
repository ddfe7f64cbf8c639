"""Migrations and tables agree, on both databases; upgrades are safe to run from several processes at once."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from keygate.errors import Conflict, InvalidInput, StartRefused
from keygate.kit.database import Database, open_database
from keygate.schema import backup, check, create, scripts, upgrade, whole_schema


@pytest.fixture
async def bare_postgres_url(postgres_url):
    database = open_database(postgres_url)
    async with database.unit() as work:
        await work.connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        await work.connection.execute(sa.text("CREATE SCHEMA public"))
    await database.close()
    return postgres_url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path):
    """The address of a database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    return request.getfixturevalue("bare_postgres_url")


def _revisions() -> list[Path]:
    return sorted((scripts() / "versions").glob("*.py"))


async def test_migrations_make_exactly_the_tables_of_the_code(empty):
    database = open_database(empty)
    assert (await check(database)).pending == bool(_revisions())
    revision = await upgrade(database) or None
    report = await check(database)
    assert report.drift == ()
    assert report.ok
    assert report.current == report.head == revision
    assert (await upgrade(database) or None) == revision
    await database.close()


async def _made(database: Database) -> dict[str, set[str]]:
    """Everything that the database itself says of each table, in words."""
    async with database.read() as connection:
        if database.is_sqlite:
            rows = (await connection.execute(sa.text("SELECT tbl_name, type, sql FROM sqlite_master WHERE sql IS NOT NULL"))).all()
        else:
            rows = (await connection.execute(sa.text(_OF_POSTGRESQL))).all()
    found: dict[str, set[str]] = {}
    for table, kind, text in rows:
        lines = text.splitlines() if kind == "table" else [text]
        found.setdefault(table, set()).update(f"{kind} {' '.join(line.replace(',', ' ').split())}" for line in lines)
    return found


_OF_POSTGRESQL = """
SELECT table_name, 'column', concat_ws(' ', column_name, data_type, character_maximum_length, is_nullable, column_default, collation_name)
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT conrelid::regclass::text, 'constraint', conname || ' ' || pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT tablename, 'index', indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT event_object_table, 'trigger', trigger_name FROM information_schema.triggers
"""


async def _emptied(database: Database) -> None:
    async with database.unit() as work:
        for table in await work.connection.run_sync(lambda connection: sa.inspect(connection).get_table_names()):
            await work.connection.execute(sa.text(f"DROP TABLE {table}" + ("" if database.is_sqlite else " CASCADE")))


async def test_a_new_database_is_made_as_migrations_make_it(empty):
    database = open_database(empty)
    assert await create(database)
    at_once, report = await _made(database), await check(database)
    assert report.ok
    await _emptied(database)
    assert await upgrade(database) == report.current
    assert await _made(database) == at_once
    assert len(at_once) > 30
    assert not await create(database), "where something stands, nothing is made"
    await database.close()


async def test_processes_that_upgrade_at_once_wait_for_each_other(empty):
    databases = [open_database(empty) for _ in range(6)]
    assert sorted(await asyncio.gather(*(create(database) for database in databases))) == [False] * 5 + [True]
    assert (await check(databases[0])).ok
    await _emptied(databases[0])
    revisions = await asyncio.gather(*(upgrade(database) for database in databases))
    assert len(set(revisions)) == 1
    assert (await check(databases[0])).ok
    for database in databases:
        await database.close()


async def test_a_table_that_was_changed_by_hand_is_reported(empty):
    database = open_database(empty)
    await upgrade(database)
    async with database.unit() as work:
        await work.connection.execute(sa.text("CREATE TABLE stray (id INTEGER)"))
    report = await check(database)
    assert not report.ok
    assert "stray" in report.drift[0]
    await database.close()


async def test_a_database_of_a_newer_version_refuses_the_start(empty):
    database = open_database(empty)
    await upgrade(database)
    async with database.unit() as work:
        await work.connection.execute(sa.text("DELETE FROM alembic_version"))
        await work.connection.execute(sa.text("INSERT INTO alembic_version VALUES ('9999')"))
    with pytest.raises(StartRefused, match="9999"):
        await upgrade(database)
    await database.close()


async def test_a_backup_is_whole_while_others_write_and_is_nobody_elses_to_read(tmp_path):
    database = open_database(data_dir=tmp_path)
    await upgrade(database)
    async with database.unit() as work:
        await work.connection.execute(sa.text("CREATE TABLE kept (id INTEGER)"))
        await work.connection.execute(sa.text("INSERT INTO kept VALUES (1)"))
    async with database.unit() as work:
        await work.connection.execute(sa.text("INSERT INTO kept VALUES (2)"))
        await backup(database, tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT id FROM kept").fetchall() == [(1,)]
    copy.close()
    assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0
    with pytest.raises(Conflict):
        await backup(database, tmp_path / "copy.db")
    await database.close()


async def test_a_backup_of_postgresql_names_its_own_tool(postgres_url, tmp_path):
    database = open_database(postgres_url)
    with pytest.raises(InvalidInput, match="pg_dump"):
        await backup(database, tmp_path / "copy.db")
    await database.close()


NODE_STATE = {"journal_checkpoints", "budget_slices", "ledger_counters"}  # keyed by node and budget, not by a caller's organisation


def test_every_row_carries_its_organisation():
    without = {table.name for table in whole_schema().tables.values() if "organization_id" not in table.c}
    assert without <= {"organizations"} | NODE_STATE


def test_money_and_times_are_64_bit():
    for table in whole_schema().tables.values():
        for column in table.columns:
            if column.name.endswith(("_ns", "_nano")) or column.name == "sequence":
                assert isinstance(column.type, sa.BigInteger), f"{table.name}.{column.name}"


def test_names_fit_postgresql():
    for table in whole_schema().tables.values():
        for named in (table, *table.indexes, *table.constraints):
            assert len(str(named.name)) <= 63, named.name
