"""A sandbox of its own for each test, and callers with a valid key of each vendor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.sandbox.keeping import kept_sandbox

from keygate.sandbox import SandboxServer, Vendor


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxServer]:
    with kept_sandbox(tmp_path) as server:
        yield server


@pytest.fixture
async def openai(sandbox: SandboxServer) -> AsyncIterator[httpx.AsyncClient]:
    key = sandbox.state.create_key(Vendor.OPENAI, value="sandbox-openai-test")
    headers = {"authorization": f"Bearer {key.value}"}
    async with httpx.AsyncClient(base_url=sandbox.openai_base_url, headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
async def anthropic(sandbox: SandboxServer) -> AsyncIterator[httpx.AsyncClient]:
    key = sandbox.state.create_key(Vendor.ANTHROPIC, value="sandbox-anthropic-test")
    headers = {"x-api-key": key.value, "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=sandbox.anthropic_base_url, headers=headers, timeout=10) as client:
        yield client
