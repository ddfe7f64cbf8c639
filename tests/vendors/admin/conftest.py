"""A sandbox of this process, and real HTTP to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from keygate.kit.outbound import Outbound
from keygate.sandbox import SandboxServer


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    made = Outbound(timeout=10)
    yield made
    await made.close()
