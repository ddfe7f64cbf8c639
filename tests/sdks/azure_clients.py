"""A sandbox's Azure, and Microsoft's and OpenAI's own clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Credential

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
GROUP = "keys"
TENANT = "the-tenant"
TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."


class AzureSdk:
    """As one app registration."""

    def __init__(self, bridge: Bridge, sandbox: SandboxServer, credential: Credential) -> None:
        self.bridge = bridge
        self._as = [f"{sandbox.address}/azure", credential.name, credential.value, SUBSCRIPTION]

    def call(self, name: str, *args: Any, client: str = "cognitive", **options: Any) -> Any:
        return self.bridge.call(client=client, call=name, args=args, options=options, **{"as": self._as})["result"]

    def chat(self, account: dict[str, Any], key: str, deployment: str = "gpt-4o-mini", *, text: str = "Hi", v1: bool = False) -> Any:
        endpoint = account["properties"]["endpoint"]
        return self.bridge.call(client="chat", endpoint=endpoint, key=key, deployment=deployment, text=text, v1=v1)

    def create(self, name: str = "one", location: str = "eastus", **properties: Any) -> dict[str, Any]:
        body = {"kind": "OpenAI", "sku": {"name": "S0"}, "location": location, "properties": {"customSubDomainName": name, **properties}}
        made: dict[str, Any] = self.call("accounts.begin_create", GROUP, name, {**body, "tags": {"team": "search"}})
        return made

    def deploy(self, account: str = "one", model: str = "gpt-4o-mini", capacity: int = 10) -> dict[str, Any]:
        properties = {"model": {"format": "OpenAI", "name": model, "version": "2024-07-18"}}
        body = {"sku": {"name": "GlobalStandard", "capacity": capacity}, "properties": properties}
        made: dict[str, Any] = self.call("deployments.begin_create_or_update", GROUP, account, model, body)
        return made


@pytest.fixture(scope="session")
def azure_bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("azure", "azure_client.py", home=tmp_path_factory.mktemp("azure")) as bridge:
        yield bridge
