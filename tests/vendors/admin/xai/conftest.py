"""The sandbox's xAI."""

from __future__ import annotations

import pytest

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.XAI]
