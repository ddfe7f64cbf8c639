"""A bureau for each test; the vendor's time is ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.vendor_spend.bureau import Bureau, VendorTime, bureau

from keygate.sandbox import SandboxServer


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def clock(sandbox: SandboxServer) -> VendorTime:
    """At noon: a minute before and after is the same day."""
    time = VendorTime(sandbox)
    time.advance((86_400 + 43_200) - time.now_ns() // 10**9 % 86_400)
    return time


@pytest.fixture
async def desk(database, sandbox, clock, people, owner, audit, tmp_path) -> AsyncIterator[Bureau]:
    async with bureau(database, sandbox, clock, people, owner, audit, tmp_path) as made:
        yield made
