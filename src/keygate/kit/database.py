"""The database: one engine, short transactions, and what must happen after a commit.

SQLite (WAL) and PostgreSQL are the same to every caller. All SQL stands in `repository.py` files; they take the connection
of a unit of work. Tables register on `metadata`; every row carries its `organization_id`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

if TYPE_CHECKING:
    from pathlib import Path

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UnitOfWork:
    """One transaction. `connection` runs the SQL; `after_commit` callbacks run, in order, once the commit has succeeded
    and before the caller gets its answer (so a revoked key is out of the gateway when the API says so)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._after_commit: list[Callable[[], Awaitable[None]]] = []

    def after_commit(self, callback: Callable[[], Awaitable[None]]) -> None:
        self._after_commit.append(callback)


class Database:
    """Promises: a unit of work commits whole or not at all; on SQLite writers queue (BEGIN IMMEDIATE) and never see 'database is locked'."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[UnitOfWork]:
        """A write transaction: committed when the block ends, rolled back when it raises."""
        raise NotImplementedError  # area A builds this
        yield

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading: one consistent snapshot, nothing written."""
        raise NotImplementedError  # area A builds this
        yield

    async def close(self) -> None:
        await self.engine.dispose()


def open_database(url: str, *, data_dir: Path | None = None) -> Database:
    """`sqlite:///…`, `postgres://…`, `postgresql://…` (drivers chosen here), or nothing: `keygate.db` in the data directory."""
    raise NotImplementedError  # area A builds this
