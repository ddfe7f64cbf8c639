"""A sandbox Google Cloud, its administrator's key file, and Google's own clients against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sandbox.keeping import kept_sandbox
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.google.api import cloud_of
from keygate.sandbox.admin.google.cloud import GoogleCloud

Google = Callable[..., Any]


@pytest.fixture(scope="session")
def admin_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("google-admin", "google_admin.py", home=tmp_path_factory.mktemp("google-admin")) as bridge:
        yield bridge


@pytest.fixture(scope="session")
def genai_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("google-genai-3", "google_genai.py", home=tmp_path_factory.mktemp("google-genai")) as bridge:
        yield bridge


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxServer]:
    with kept_sandbox(tmp_path) as server:
        yield server


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.GOOGLE]


@pytest.fixture
def cloud(account: Account) -> GoogleCloud:
    return cloud_of(account)


@pytest.fixture
def admin_key(sandbox: SandboxServer) -> Callable[..., str]:
    """The key file of a new administrator, given the rights that it lacks."""

    def make(*without: str) -> str:
        body = {"without": list(without), "token_uri": f"{sandbox.address}/google/oauth2/token"}
        made: str = sandbox.state.admin.api(Vendor.GOOGLE).console(sandbox.state.admin[Vendor.GOOGLE], "admin_key", body)["credentials"]
        return made

    return make


@pytest.fixture
def signed_in(sandbox: SandboxServer, admin_client: Bridge) -> Callable[[str], Google]:
    """google-api-python-client with this key file: `("iam", "v1", "projects.serviceAccounts.get", name=…)`."""

    def make(file: str) -> Google:
        def call(service: str, version: str, method: str, **arguments: Any) -> Any:
            request = {"service": service, "version": version, "method": method, "arguments": arguments}
            return admin_client.call(base=sandbox.google_base_url, credentials=file, **request)["answer"]

        return call

    return make


@pytest.fixture
def google(signed_in: Callable[[str], Google], admin_key: Callable[..., str]) -> Google:
    return signed_in(admin_key())


@pytest.fixture
def genai(sandbox: SandboxServer, genai_client: Bridge) -> Google:
    """google-genai: `genai(key=…, prompt=…)`."""
    return lambda **request: genai_client.call(base=sandbox.google_base_url, **request)
