"""One running KeyGate for a file of tests, beside a sandbox in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.issued_keys.office import Office
from tests.running import RunningKeyGate

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
