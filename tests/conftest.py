"""What every test may ask for: `database` (each test runs on SQLite and on PostgreSQL), `clock`, `postgres_server`."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from keygate.kit.clock import ManualClock
from keygate.kit.database import Database, open_database
from keygate.schema import whole_schema


def _load_postgresql() -> type:
    spec = importlib.util.spec_from_file_location("keygate_tests_postgresql", Path(__file__).with_name("postgresql.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.PostgresServer


@pytest.fixture
def clock() -> ManualClock:
    """Stands at 2026-01-01T00:00:00Z until `clock.advance(seconds)`."""
    return ManualClock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[object]:
    """One server per test process; `.url(database)` is its address."""
    server = _load_postgresql()()
    yield server
    server.stop()


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _create_tables(url: str, *before: tuple[str, str]) -> None:
    async def create() -> None:
        for where, statement in before:
            await _execute(where, statement)
        database = open_database(url)
        async with database.unit() as work:
            await work.connection.run_sync(whole_schema().create_all)
        await database.close()

    with ThreadPoolExecutor(1) as thread:  # a loop of its own, whatever the test's loop is doing
        thread.submit(asyncio.run, create()).result()


@pytest.fixture(scope="session")
def postgres_template(postgres_server) -> str:
    """The name of a database with every table, to copy from."""
    _create_tables(postgres_server.url("keygate_template"), (postgres_server.url(), "CREATE DATABASE keygate_template"))
    return "keygate_template"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory) -> bytes:
    """A SQLite file with every table."""
    path = tmp_path_factory.mktemp("template") / "keygate.db"
    _create_tables(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
async def postgres_url(postgres_server, postgres_template) -> AsyncIterator[str]:
    """A fresh PostgreSQL database with every table."""
    name = f"test_{uuid4().hex}"
    await _execute(postgres_server.url(), f"CREATE DATABASE {name} TEMPLATE {postgres_template} STRATEGY FILE_COPY")
    yield postgres_server.url(name)
    await _execute(postgres_server.url(), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path, sqlite_template) -> str:
    """The address of a fresh database with every table; for tests that start processes. PostgreSQL is started at first use."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    path = tmp_path / "keygate.db"
    path.write_bytes(sqlite_template)
    return f"sqlite:///{path}"


@pytest.fixture
async def database(database_url) -> AsyncIterator[Database]:
    """A fresh database with every table, and nothing in it. Parametrised: the test runs on SQLite and on PostgreSQL."""
    opened = open_database(database_url)
    yield opened
    await opened.close()
