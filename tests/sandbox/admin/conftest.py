"""A sandbox with an admin credential at OpenAI, and the control interface."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.OPENAI]


@pytest.fixture
async def openai(sandbox: SandboxServer, account: Account) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {account.create_credential().value}"}
    async with httpx.AsyncClient(base_url=f"{sandbox.openai_base_url}/organization", headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
async def control(sandbox: SandboxServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{sandbox.address}/_sandbox/admin", timeout=10) as client:
        yield client
