"""A sandbox of this process, real HTTP to it, and the vendors' own SDKs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.sdks.admin_clients import anthropic_bridge, anthropic_sdk, openai_bridge, openai_sdk, openrouter_bridge, openrouter_sdk, sandbox
from tests.sdks.aws_clients import aws_bridge
from tests.sdks.azure_clients import azure_bridge

from keygate.kit.outbound import Outbound

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
async def outbound() -> AsyncIterator[Outbound]:
    made = Outbound(timeout=10)
    yield made
    await made.close()
