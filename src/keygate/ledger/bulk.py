"""Many rows in one statement. Statements of many rows cost half of what one execution per row does, and on SQLite the
interpreter's lock is taken once per statement instead of once per row, so that a busy event loop does not starve the writer. There the
statement goes straight to the driver: SQLAlchemy copies the parameters three times on their way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

_SIZES = (64, 16, 4, 1)  # few sizes, so that every statement is compiled once; none keeps the interpreter's lock for long
_ARRAY = 500  # rows of one PostgreSQL statement: encoding them takes about a millisecond of the event loop
_MAX_VARIABLES = 32_766  # SQLite's limit since 3.32

Row = tuple[object, ...]


class Bulk:
    """An insert into `table` of `columns`. `types` are PostgreSQL's, for its arrays; `conflict` ends the statement (`ON CONFLICT …`)."""

    def __init__(self, table: str, columns: Sequence[str], types: Sequence[str], *, conflict: str = "") -> None:
        self._table = table
        self._columns = ", ".join(f'"{column}"' for column in columns)
        self._row = f"({', '.join('?' * len(columns))})"
        arrays = ", ".join(f"${index}::{kind}[]" for index, kind in enumerate(types, 1))
        self._conflict = conflict
        self._postgresql = f"INSERT INTO {table} ({self._columns}) SELECT * FROM unnest({arrays}) {conflict}"  # noqa: S608  (names of ours)
        self._sizes = tuple(size for size in _SIZES if size * len(columns) <= _MAX_VARIABLES)
        self._sqlite = lru_cache(len(_SIZES))(self._values)

    def _values(self, rows: int) -> str:
        return f"INSERT INTO {self._table} ({self._columns}) VALUES {', '.join([self._row] * rows)} {self._conflict}"  # noqa: S608  (as above)

    async def insert(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        if not rows:
            return
        if connection.dialect.name == "postgresql":
            for start in range(0, len(rows), _ARRAY):
                columns = zip(*rows[start : start + _ARRAY], strict=True)
                await connection.exec_driver_sql(self._postgresql, tuple(list(column) for column in columns))
            return
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None  # noqa: S101  (the connection is open)
        start = 0
        for size in self._sizes:
            while len(rows) - start >= size:
                flat: list[object] = []
                for row in rows[start : start + size]:
                    flat += row
                try:
                    await (await driver.execute(self._sqlite(size), flat)).close()
                except sqlite3.Error as error:
                    raise _as_sqlalchemy(error) from error
                start += size


def _as_sqlalchemy(error: sqlite3.Error) -> Exception:
    return sa.exc.DBAPIError.instance(None, None, error, sqlite3.Error, hide_parameters=True)
