from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.house import House
from tests.contract.recorder import Recorder
from tests.running import RunningKeyGate


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A KeyGate with a credential for each vendor, all leading to the recorder. One for all tests of a file."""
    folder = tmp_path_factory.mktemp("house")
    with Recorder() as vendor, RunningKeyGate(folder, environment={"KEYGATE_MAX_BODY_BYTES": "1048576"}) as keygate:
        found = House(keygate, vendor)
        found.furnish()
        yield found
        found.client.close()
