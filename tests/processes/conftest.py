from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.processes.vendor import MarkedVendor


@pytest.fixture
def vendor() -> Iterator[MarkedVendor]:
    with MarkedVendor() as vendor:
        yield vendor
