"""A sandbox with an admin credential at OpenAI, and the control interface."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.sdks.admin_clients import anthropic_bridge, anthropic_sdk, openai_bridge, openai_sdk, openrouter_bridge, openrouter_sdk, sandbox
from tests.sdks.aws_clients import aws_bridge
from tests.sdks.azure_clients import azure_bridge

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account

__all__ = [
    "anthropic_bridge",
    "anthropic_sdk",
    "aws_bridge",
    "azure_bridge",
    "openai_bridge",
    "openai_sdk",
    "openrouter_bridge",
    "openrouter_sdk",
    "sandbox",
]


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
