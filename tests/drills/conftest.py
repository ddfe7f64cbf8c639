"""The stores that drills run on; and each drill's line, printed when all have run."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from tests.drills.figures import FOLDER

_BEGAN = time.time()


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, str]]:
    """The environment that names an empty database: the default one in the data directory, or one on a PostgreSQL server."""
    if request.param == "sqlite":
        yield {}
        return
    server = request.getfixturevalue("postgres_server")
    name = f"drill_{uuid4().hex}"
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        yield {"KEYGATE_DATABASE_URL": server.url(name)}
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for path in sorted(FOLDER.glob("*.json")):
        if path.stat().st_mtime >= _BEGAN:
            record = json.loads(path.read_text())
            terminalreporter.write_line(f"drill {record['drill']}: {record['line']}")
