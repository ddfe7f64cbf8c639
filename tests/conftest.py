"""What every test may ask for: `database` (each test runs on SQLite and on PostgreSQL), `clock`, `audit`,
`people` (the services of identities), `started` (an organisation with its owner), `owner` (that owner as an actor)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import asyncpg
import pytest
from tests.postgresql import PostgresServer

import keygate
from keygate.audit import AuditService, HeadsFile, Signer
from keygate.audit.repository import AuditRepository
from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.identities import Actor, ActorKind, NoListener, NoPublisher, Passwords, Role, Started
from keygate.identities.wiring import Identities, identities
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database, open_database
from keygate.kit.secret import Secret
from keygate.schema import whole_schema

_LONGEST = tuple(f"tests/{folder}/" for folder in ("silence", "drills", "newuser", "sdks", "contract", "hostile", "issued_keys"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no core is idle while another finishes a long file."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))


def pytest_report_header() -> str:
    return f"request path: {keygate.FORM}"


@pytest.fixture
def clock() -> ManualClock:
    """Stands at 2026-01-01T00:00:00Z until `clock.advance(seconds)`."""
    return ManualClock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server per test process; `.url(database)` is its address."""
    server = PostgresServer()
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


_SHAPE = "SELECT array_agg(concat_ws(' ', relname, oid, relnatts) ORDER BY oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace"


class Emptied:
    """One PostgreSQL database with every table, emptied for each test: a sixth of the work of copying one. A test that changes its
    tables, or leaves somebody connected, has spoilt it, and the next test gets another copy."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server, self._template = server, template
        self._name: str | None = None
        self._shape: list[str] = []

    async def url(self) -> str:
        if self._name is None or not await self._emptied(self._name):
            self._name = f"test_{uuid4().hex}"
            await _execute(self._server.url(), f"CREATE DATABASE {self._name} TEMPLATE {self._template} STRATEGY FILE_COPY")
            connection = await asyncpg.connect(self._server.url(self._name))
            self._shape = await connection.fetchval(_SHAPE)
            await connection.close()
        return self._server.url(self._name)

    async def _emptied(self, name: str) -> bool:
        connection = await asyncpg.connect(self._server.url(name))
        try:
            others = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", name)
            if others or await connection.fetchval(_SHAPE) != self._shape:
                return False
            tables = await connection.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
            deletes = "; ".join(f'DELETE FROM "{table[0]}"' for table in tables)
            await connection.execute(f"SET session_replication_role = replica; {deletes}")  # no foreign key looks
        finally:
            await connection.close()
        return True


@pytest.fixture(scope="session")
def emptied(postgres_server, postgres_template) -> Emptied:
    return Emptied(postgres_server, postgres_template)


@pytest.fixture
async def postgres_url(emptied) -> str:
    """A PostgreSQL database with every table, and nothing in it."""
    return await emptied.url()


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


@pytest.fixture
def audit(database, clock, tmp_path) -> AuditService:
    """The real audit log, with its heads in the test's directory."""
    return AuditService(database, AuditRepository(), signer=Signer(b"s" * 32), digest_key=b"d" * 32, heads=HeadsFile(tmp_path), clock=clock)


@pytest.fixture
def people(database, audit, clock) -> Identities:
    """The services of identities; nobody listens to changes, and passwords are hashed cheaply."""
    return identities(
        database,
        audit=audit,
        clock=clock,
        publisher=NoPublisher(),
        holders=NoListener(),
        outbox=EventOutbox(database=database, repository=EventRepository(), clock=clock),
        policies=None,
        passwords=Passwords(memory_kib=8, passes=1),
    )


OWNER_PASSWORD = "correct horse battery"  # of the `started` owner, owner@example.com


@pytest.fixture
async def started(people) -> Started:
    """The organisation, and its first owner `owner@example.com`."""
    made = await people.users.bootstrap(organization_name="Example", email="owner@example.com", password=Secret(OWNER_PASSWORD))
    assert made is not None
    return made


@pytest.fixture
def owner(started) -> Actor:
    """The first owner as an actor, signed in."""
    user = started.owner
    return Actor(kind=ActorKind.USER, id=user.id, organization_id=user.organization_id, role=Role.OWNER, user_id=user.id)
