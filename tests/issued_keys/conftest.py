"""One running KeyGate for a file of tests, beside a sandbox in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.issued_keys.office import Office
from tests.issued_keys.workshop import Workshop
from tests.running import RunningKeyGate

from keygate.identities import Actor
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database
from keygate.sandbox import SandboxServer


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("office")) as keygate:
        made = Office(keygate, sandbox)
        made.configure()
        yield made


@pytest.fixture
def office(house: Office) -> Iterator[Office]:
    """Without faults before and after."""
    house.heal()
    yield house
    house.heal()


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
async def workshop(database: Database, clock: ManualClock, tmp_path: Path, sandbox: SandboxServer, owner: Actor) -> AsyncIterator[Workshop]:
    """The services themselves, on a clock that the test moves."""
    made = Workshop(database, clock, tmp_path, sandbox, owner)
    await made.start()
    await made.configure()
    yield made
    await made.close()
