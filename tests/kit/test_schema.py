"""Migrations and tables agree, on both databases; upgrades are safe to run from several processes at once."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from keygate.errors import Conflict, InvalidInput, StartRefused
from keygate.kit.database import open_database
from keygate.schema import backup, check, scripts, upgrade, whole_schema


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


async def test_processes_that_upgrade_at_once_wait_for_each_other(empty):
    databases = [open_database(empty) for _ in range(3)]
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
