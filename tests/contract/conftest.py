from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.house import House, furnished


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A KeyGate with a credential for each vendor, all leading to the recorder. Shared: tests leave no rule of the organisation behind."""
    with furnished(tmp_path_factory.mktemp("house")) as found:
        yield found
