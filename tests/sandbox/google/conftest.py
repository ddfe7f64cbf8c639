"""A sandbox Google Cloud, its administrator's key file, and Google's own clients against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.google.api import cloud_of
from keygate.sandbox.admin.google.cloud import GoogleCloud

Google = Callable[..., Any]


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.GOOGLE]


@pytest.fixture
def cloud(account: Account) -> GoogleCloud:
    return cloud_of(account)


@pytest.fixture
def admin_key(sandbox: SandboxServer) -> Callable[..., str]:
    """The key file of a new administrator; `without`: rights that it lacks."""

    def make(*without: str) -> str:
        account = sandbox.state.admin[Vendor.GOOGLE]
        body = {"without": list(without), "token_uri": f"{sandbox.address}/google/oauth2/token"}
        made: str = sandbox.state.admin.api(Vendor.GOOGLE).console(account, "admin_key", body)["credentials"]
        return made

    return make


@pytest.fixture
def google(sandbox: SandboxServer, admin_key: Callable[..., str], tmp_path: Path) -> Iterator[Google]:
    """`google("iam", "v1", "projects.serviceAccounts.get", name=…)` through google-api-python-client."""
    environment = {"GOOGLE_BASE_URL": sandbox.google_base_url, "CREDENTIALS": admin_key()}
    with Bridge("google-admin", "google_admin.py", environment, home=tmp_path) as bridge:
        yield lambda service, version, method, **arguments: bridge.call(
            service=service, version=version, method=method, arguments=arguments
        )["answer"]


@pytest.fixture
def genai(sandbox: SandboxServer, tmp_path: Path) -> Iterator[Google]:
    """`genai(key=…, prompt=…)` through google-genai."""
    with Bridge("google-genai-3", "google_genai.py", {"GOOGLE_GEMINI_BASE_URL": sandbox.google_base_url}, home=tmp_path) as bridge:
        yield bridge.call
