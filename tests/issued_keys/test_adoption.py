"""Keys that people made by hand, entered into the running product: owned, ended by KeyGate, and nothing beside them touched."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.issued_keys.office import Office
from tests.running import ApiError, RunningKeyGate
from tests.sdks.admin_clients import anthropic_bridge
from tests.sdks.bridge import Bridge, SdkError

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.anthropic import AnthropicAdmin

__all__ = ["anthropic_bridge"]

HELLO: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


class House:
    """KeyGate with an Admin key at the sandbox's Anthropic, and no federation: only keys made by hand."""

    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer, bridge: Bridge) -> None:
        self.sandbox, self.call, self._bridge = sandbox, keygate.call, bridge
        self._admin = {"key": self.account.create_credential().value}
        settings = {"base_url": sandbox.anthropic_base_url, "calls_per_minute": "100000"}
        body = {"vendor": "anthropic", "admin_key": self.account.create_credential().value, "settings": settings}
        self.account_id = self.call("POST", "/vendors/configure", body)["id"]

    @property
    def account(self) -> Account:
        return self.sandbox.state.admin[Vendor.ANTHROPIC]

    def by_hand(self, **body: Any) -> dict[str, str]:
        return dict(AnthropicAdmin().console(self.account, "keys", {"name": "by hand", **body}))

    def vendor(self, method: str, *arguments: Any, **options: Any) -> Any:
        request = {"method": f"organization.{method}", "arguments": arguments, "options": options}
        return self._bridge.call(base=self.sandbox.anthropic_base_url, **request, **self._admin)["answer"]

    def answers(self, key: str) -> bool:
        try:
            self._bridge.call(base=self.sandbox.anthropic_base_url, method="messages.create", options=HELLO, key=key)
        except SdkError:
            return False
        return True

    def developer(self) -> str:
        name = f"dev{time.monotonic_ns()}"
        return str(self.call("POST", "/developers", {"name": name, "email": f"{name}@example.com"})["id"])

    def adopt(self, vendor_id: str, **body: Any) -> dict[str, Any]:
        item = scanned(self.call, self.account_id).get(vendor_id, {"id": "inv_none"})
        adopted = self.call("POST", f"/inventory/{item['id']}/adopt", body)
        return self.call("GET", f"/keys/{adopted['issued_key_id']}")  # type: ignore[no-any-return]  # JSON


def scanned(call: Callable[..., Any], account_id: str) -> dict[str, dict[str, Any]]:
    """What stands in the account, looked at now: keys by the vendor's ids."""
    [scan] = call("POST", "/inventory/scans", {"account": account_id})["items"]
    ends = time.monotonic() + 60
    while call("GET", "/inventory/scans")["items"][0]["ended_at"] is None:
        assert time.monotonic() < ends
        time.sleep(0.1)
    assert call("GET", "/inventory/scans")["items"][0]["id"] == scan["id"]
    return {item["at_vendor"]["key"]: item for item in call("GET", "/inventory", account_id=account_id, kind="key", limit=500)["items"]}


@pytest.fixture(scope="module")
def bureau(tmp_path_factory: pytest.TempPathFactory, anthropic_bridge: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("bureau")) as keygate:
        yield House(keygate, sandbox, anthropic_bridge)


def test_leaver_loses_a_key_that_was_made_by_hand_and_its_workspace_stays(bureau: House) -> None:
    workspace = bureau.vendor("workspaces.create", name="search team")["id"]
    made, neighbour = (bureau.by_hand(workspace_id=workspace) for _ in range(2))
    developer = bureau.developer()
    adopted = bureau.adopt(made["id"], developer_id=developer, name="priya's", key=made["value"], expires_in_days=30)
    assert (adopted["state"], adopted["name"], adopted["enforcement"]) == ("active", "priya's", {"expiry": "not_enforced"})
    assert adopted["hint"] == f"…{made['value'][-4:]}"
    assert bureau.vendor("api_keys.retrieve", made["id"])["name"].startswith("kg-"), "the key is renamed, what holds it is not"
    assert bureau.vendor("workspaces.retrieve", workspace)["name"] == "search team"
    items = scanned(bureau.call, bureau.account_id)
    assert (items[made["id"]]["standing"], items[neighbour["id"]]["standing"]) == ("adopted", "unknown")

    bureau.call("DELETE", f"/developers/{developer}")
    ends = time.monotonic() + 30
    while bureau.call("GET", f"/keys/{adopted['id']}")["state"] != "revoked":
        assert time.monotonic() < ends
        time.sleep(0.1)
    assert not bureau.answers(made["value"])
    assert bureau.vendor("api_keys.retrieve", made["id"])["status"] == "archived"
    assert bureau.answers(neighbour["value"])
    assert bureau.vendor("workspaces.retrieve", workspace)["archived_at"] is None


def test_leak_report_finds_a_key_that_was_entered_with_its_text(bureau: House) -> None:
    made = bureau.by_hand()
    adopted = bureau.adopt(made["id"], key=made["value"])
    assert made["value"] not in json.dumps(bureau.call("GET", f"/keys/{adopted['id']}"))
    assert made["value"] not in json.dumps(bureau.call("GET", "/audit"))
    bureau.call("POST", "/keys/report-leak", {"key": made["value"]})
    ends = time.monotonic() + 30
    while bureau.answers(made["value"]):
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_what_does_not_fit_is_refused(bureau: House) -> None:
    made = bureau.by_hand()
    with pytest.raises(ApiError, match="what the vendor shows"):
        bureau.adopt(made["id"], key="sandbox-anthropic-api03-something-else")
    with pytest.raises(ApiError, match="404"):
        bureau.adopt("apikey_none")
    with pytest.raises(ApiError, match="there is no developer"):
        bureau.adopt(made["id"], developer_id="dev_none")
    adopted = bureau.adopt(made["id"])
    with pytest.raises(ApiError, match="adopted already"):
        bureau.adopt(made["id"])
    with pytest.raises(ApiError, match="made by hand"):
        bureau.call("POST", f"/keys/{adopted['id']}/rotate")
    gone = bureau.by_hand()
    item = scanned(bureau.call, bureau.account_id)[gone["id"]]
    bureau.vendor("api_keys.update", gone["id"], status="archived")
    with pytest.raises(ApiError, match="gone"):
        bureau.call("POST", f"/inventory/{item['id']}/adopt", {})


def test_project_of_an_adopted_openai_key_outlives_it(office: Office) -> None:
    url = f"{office.sandbox.address}/_sandbox/admin/openai/console/keys"
    made, neighbour = (httpx.post(url, json={"name": "by hand", "user": "eve@example.com"}, timeout=10).json() for _ in range(2))
    account_id = office.call("GET", "/vendors/accounts")["items"][0]["id"]
    item = scanned(office.call, account_id)[made["id"]]
    adopted = office.call("POST", f"/inventory/{item['id']}/adopt", {})
    assert office.works(made["value"])
    assert office.call("POST", f"/keys/{adopted['issued_key_id']}/revoke")["state"] == "revoked"
    assert not office.works(made["value"])
    assert office.works(neighbour["value"])
