"""The database: one engine, short transactions, and what must happen after a commit.

SQLite (WAL) and PostgreSQL are the same to every caller. All SQL stands in `repository.py` files; they take the connection
of a unit of work. Tables register on `metadata`; every row carries its `organization_id`.

What the database refuses becomes an error of ours on the way out of `unit()` and `read()`: a value that it can't store is
`InvalidInput`, a broken constraint `Conflict`, a lock that isn't had in time or a server that is away `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc as sa_errors
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from keygate.errors import Conflict, InvalidInput, StartRefused, Unavailable

T = TypeVar("T")

WAIT_SECONDS = 15  # for a lock or a connection: longer than any transaction of ours, shorter than a caller's patience
STATEMENT_SECONDS = 60
READERS = 8

_log = logging.getLogger(__name__)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """An index over the rows for which `where` holds. SQLAlchemy is told the condition by `keygate.schema`, where tables are made or
    compared: it takes one for each kind of database, and loads every kind that is named (two mebibytes each)."""
    return sa.Index(name, *columns, unique=unique, info={"where": where})


class UnitOfWork:
    """One transaction. `connection` runs the SQL; `after_commit` callbacks run, in order, once the commit has succeeded
    and before the caller gets its answer (so a revoked key is out of the gateway when the API says so)."""

    def __init__(self, connection: AsyncConnection, organization_id: str | None = None) -> None:
        self.connection = connection
        self.organization_id = organization_id  # whose changes wait for this one to end
        self._after_commit: list[Callable[[], Awaitable[None]]] = []

    def after_commit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Every callback runs, also after one that failed. A failure is logged, and the block then ends with `Unavailable`:
        the change is stored, but nobody may be told that it holds everywhere. So what is done there must be safe to repeat."""
        self._after_commit.append(callback)

    async def run_after_commit(self) -> None:
        failed = False
        for callback in self._after_commit:
            try:
                await callback()
            except Exception:  # noqa: BLE001  (the callbacks are other areas'; the rest must still run)
                failed = True
                _log.exception("the change is stored, but a step after the commit failed")
        if failed:
            raise Unavailable("The change is stored, but not every part of KeyGate has taken it up; repeat the call to be sure")


class Database:
    """Promises: a unit of work commits whole or not at all; on SQLite writers queue (BEGIN IMMEDIATE) and never see 'database is locked'.

    `engine` writes; `readers`, where given, reads. On SQLite the writing pool holds a single connection, which is the queue.
    """

    def __init__(self, engine: AsyncEngine, *, readers: AsyncEngine | None = None) -> None:
        self.engine = engine
        self._readers = readers or engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writing: set[asyncio.Task[Any] | None] = set()
        self._queues: dict[str, asyncio.Lock] = {}

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def unit(self, organization_id: str | None = None) -> AsyncIterator[UnitOfWork]:
        """A write transaction: committed when the block ends, rolled back when it raises. Units do not nest: a task that opens a
        second one inside the first would wait for itself, so it gets a RuntimeError. A commit that has begun is finished, with
        its `after_commit` callbacks, even where the caller is cancelled.

        Units that name the same organisation run one after another, on PostgreSQL as on SQLite: from the first statement to the last
        nobody else changes what such a unit has read, and whatever it locks, no two of them wait for each other in a circle. All that is
        audited does so (ADR 0006)."""
        task = asyncio.current_task()
        if task in self._writing:
            raise RuntimeError("a unit of work inside a unit of work; pass `work` on, or end the first one before")
        self._writing.add(task)
        try:
            with _translated():
                async with self._turn(organization_id), _connected(self.engine) as connection:
                    transaction = await connection.begin()
                    work = UnitOfWork(connection, organization_id)
                    try:
                        if organization_id is not None:
                            await lock(connection, f"organization:{organization_id}")
                        yield work
                    except BaseException:
                        await _finished(transaction.rollback())
                        raise
                    await _finished(transaction.commit())
        finally:
            self._writing.discard(task)
        await _finished(work.run_after_commit())

    @asynccontextmanager
    async def _turn(self, organization_id: str | None) -> AsyncIterator[None]:
        """Changes of one organisation wait here first: at the database each would hold one of the connections that all others need."""
        if organization_id is None:
            yield
            return
        queue = self._queues.setdefault(organization_id, asyncio.Lock())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await queue.acquire()
        except TimeoutError:
            raise Unavailable("The database has more to do than it can; try again in a moment") from None
        try:
            yield
        finally:
            queue.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading: one consistent snapshot; the database refuses to write on it."""
        with _translated():
            async with _connected(self._readers) as connection, connection.begin():
                yield connection

    async def close(self) -> None:
        await self._readers.dispose()
        await self.engine.dispose()


def open_database(url: str | None = None, *, data_dir: Path | None = None) -> Database:
    """`sqlite:///…`, `postgres://…`, `postgresql://…` (drivers chosen here), or nothing: `keygate.db` in the data directory.

    Opens no connection yet. Raises `StartRefused` for an address that can't be used.
    """
    if not url:
        if data_dir is None:
            raise StartRefused("KEYGATE_DATABASE_URL is not set, and there is no data directory to put keygate.db into")
        return _open_sqlite(data_dir / "keygate.db")
    try:
        address = sa.make_url(url)
    except sa_errors.ArgumentError:
        raise StartRefused(
            "KEYGATE_DATABASE_URL is not a database URL; write sqlite:///path or postgresql://user:password@host/name"
        ) from None
    kind = address.get_backend_name()
    if kind == "sqlite":
        if address.database in {None, "", ":memory:"}:
            raise StartRefused(
                "KEYGATE_DATABASE_URL: a database in memory would be lost at a stop; name a file, sqlite:////path/keygate.db"
            )
        return _open_sqlite(Path(str(address.database)))
    if kind in {"postgres", "postgresql"}:
        return _open_postgresql(address)
    raise StartRefused(
        "KEYGATE_DATABASE_URL: this kind of address is not supported; use sqlite:///path or postgresql://user:password@host/name"
    )


async def insert_or_ignore(connection: AsyncConnection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Inserts one row. False where a unique key is taken already; the transaction goes on as if nothing had been tried."""
    statement = _insert(connection, table).values(values).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def upsert(
    connection: AsyncConnection,
    table: sa.Table,
    values: dict[str, Any] | list[dict[str, Any]],
    *,
    key: tuple[str, ...],
    update: dict[str, Any] | tuple[str, ...],
) -> None:
    """Inserts, or where the unique `key` columns are taken updates: named columns take the new row's values; a mapping gives
    expressions (`{"spent_nano": table.c.spent_nano + excluded…}` are written as callables of the excluded row's columns)."""
    rows = values if isinstance(values, list) else [values]
    if not rows:
        return
    statement = _insert(connection, table)
    changes = (
        {name: statement.excluded[name] for name in update}
        if isinstance(update, tuple)
        else {name: value(statement.excluded) if callable(value) else value for name, value in update.items()}
    )
    await connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changes), rows)


async def lock(connection: AsyncConnection, name: str) -> None:
    """Holds the lock of this name until the transaction ends. On SQLite a unit of work has the whole database to itself already.
    Changes of one organisation need none of their own: `unit(organization_id)` has that organisation's."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))


def _insert(connection: AsyncConnection, table: sa.Table) -> Any:
    # The two dialects' inserts have the same methods but no common type.
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415  (either dialect is loaded only where it is used)

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415  (as above)

    return postgresql.insert(table)


def _open_sqlite(path: Path) -> Database:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StartRefused(f"The database file {path} can't be opened: {error.strerror}") from None
    address = sa.URL.create("sqlite+aiosqlite", database=str(path))
    rollbacks: set[asyncio.Future[None]] = set()  # held until they are done

    def engine(begin: str, *, connections: int, query_only: bool) -> AsyncEngine:
        made = create_async_engine(
            address,
            hide_parameters=True,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=WAIT_SECONDS,
            poolclass=sa.AsyncAdaptedQueuePool,
            connect_args={"timeout": WAIT_SECONDS},
        )

        def prepare(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver begins nothing by itself
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            if query_only:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()

        def start(connection: sa.Connection) -> None:
            connection.exec_driver_sql(begin)

        def let_go(connection: Any, *_: Any) -> None:
            # Somebody was cancelled in the middle of a statement. SQLite keeps a closed connection, its transaction and its lock for as
            # long as a statement of it is known, here to the traceback: until the garbage is collected.
            rollback = asyncio.ensure_future(connection.driver_connection.rollback())  # waits in the driver's queue before its close
            rollbacks.add(rollback)
            rollback.add_done_callback(rolled_back)

        def rolled_back(rollback: asyncio.Future[None]) -> None:
            rollbacks.discard(rollback)
            if not rollback.cancelled() and (error := rollback.exception()) is not None:
                _log.info("a connection that was given up could not be rolled back: %s", type(error).__name__)

        sa.event.listen(made.sync_engine, "connect", prepare)
        sa.event.listen(made.sync_engine, "begin", start)
        sa.event.listen(made.sync_engine, "invalidate", let_go)
        return made

    return Database(
        engine("BEGIN IMMEDIATE", connections=1, query_only=False),
        readers=engine("BEGIN", connections=READERS, query_only=True),
    )


def _open_postgresql(address: sa.URL) -> Database:
    query = dict(address.query)
    settings = {
        "application_name": str(query.pop("application_name", "keygate")),
        "statement_timeout": f"{STATEMENT_SECONDS}s",
        "lock_timeout": f"{WAIT_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS}s",
    }
    connect: dict[str, Any] = {"timeout": WAIT_SECONDS, "command_timeout": STATEMENT_SECONDS + 5, "server_settings": settings}
    if "connect_timeout" in query:
        connect["timeout"] = float(str(query.pop("connect_timeout")))
    if "sslmode" in query:  # libpq's word, in most providers' URLs; the driver calls it ssl
        connect["ssl"] = query.pop("sslmode")
    unknown = set(query) - {"host", "port", "ssl"}
    if unknown:
        raise StartRefused(f"KEYGATE_DATABASE_URL: the parameter {min(unknown)} is not supported; leave it out")
    return Database(
        create_async_engine(
            address.set(drivername="postgresql+asyncpg", query=query),
            hide_parameters=True,
            pool_size=5,
            max_overflow=15,
            pool_timeout=WAIT_SECONDS,
            pool_pre_ping=True,
            connect_args=connect,
        )
    )


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    connection = engine.connect()
    try:
        await connection.start()
    except (OSError, sa_errors.DBAPIError) as error:  # the PostgreSQL driver lets socket errors through as they are
        cause = getattr(error, "orig", error)
        _log.warning("the database can't be reached: %s", cause.__cause__ or cause)
        raise Unavailable("The database can't be reached; try again in a moment") from error
    try:
        yield connection
    finally:
        await _finished(connection.close())


async def _finished(step: Coroutine[Any, Any, T]) -> T:
    """Runs `step` to its end even where the caller is cancelled meanwhile; the cancellation is passed on afterwards."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


@contextmanager
def _translated() -> Iterator[None]:
    # Where the driver's message may quote a value (drivers do, whatever hide_parameters says), it is neither chained nor logged.
    try:
        yield
    except (sa_errors.DataError, OverflowError, UnicodeEncodeError):
        raise _unstorable() from None
    except sa_errors.IntegrityError as error:
        cause = getattr(error.orig, "__cause__", None)
        _log.info("a constraint refused a change: %s", getattr(cause, "constraint_name", None) or type(error.orig).__name__)
        raise Conflict("This is taken already, or refers to something that is gone; read it again and repeat the change") from None
    except sa_errors.TimeoutError as error:
        raise Unavailable("The database has more to do than it can; try again in a moment") from error
    except sa_errors.ProgrammingError:
        raise
    except sa_errors.DBAPIError as error:
        # the PostgreSQL driver's own checks (integer out of range, NUL in text) come as a bare error around its DataError
        cause = getattr(error.orig, "__cause__", None)
        if any(kind.__name__ == "DataError" for kind in type(cause).__mro__):
            raise _unstorable() from None
        if (isinstance(error.orig, sqlite3.Error) and "disk is full" in str(error.orig)) or type(cause).__name__ == "DiskFullError":
            _log.error("the disk of the database is full; nothing can be changed until there is room again")
            raise Unavailable("The disk of the database is full; nothing was changed") from error
        _log.exception("the database did not do its part")
        raise Unavailable("The database did not answer in time; try again in a moment") from error


def _unstorable() -> InvalidInput:
    return InvalidInput("A value can't be stored: a number above 64 bits, or a character that text can't hold")
