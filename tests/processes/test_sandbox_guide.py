"""The sandbox guide, followed: each vendor is entered with the body that the sandbox answers, and a key of it lives and ends."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.running import KEYGATE, RunningKeyGate

from keygate.sandbox.admin.model import AdminFault, Settings
from keygate.sandbox.admin.registry import APIS

GUIDE = (Path(__file__).parents[2] / "docs/guides/sandbox.md").read_text()
VENDORS = [str(api.vendor) for api in APIS]
TERMS: dict[str, dict[str, Any]] = {
    "openai": {"models": ["gpt-4.1-mini"], "rate_limit_rpm": 60},
    "anthropic": {"rate_limit_rpm": 60},
    "azure": {"models": ["gpt-4o-mini"], "rate_limit_tpm": 20_000},
    "google": {"rate_limit_rpm": 60},
    "openrouter": {"budget_usd": "5.00"},
    "bedrock": {"models": ["anthropic.claude-sonnet-4-20250514-v1:0"]},
    "xai": {"models": ["grok-3"], "rate_limit_rpm": 60},
}


class House:
    def __init__(self, keygate: RunningKeyGate) -> None:
        self.keygate, self.call = keygate, keygate.call
        said = next(line for line in keygate.log.read_text().splitlines() if line.startswith("Sandbox vendor on "))
        self.sandbox = httpx.Client(base_url=f"{said.split()[3]}/_sandbox", timeout=20)

    def entered(self, vendor: str, **body: Any) -> dict[str, Any]:
        if vendor == "anthropic":
            body["issuer"] = self.call("GET", "/vendors/issuer")
        return self.sandbox.post(f"/admin/{vendor}/credentials", json=body).raise_for_status().json()  # type: ignore[no-any-return]  # JSON

    def provision(self, vendor: str, **terms: Any) -> dict[str, Any]:
        name = f"dev{time.monotonic_ns()}"
        dev = self.call("POST", "/developers", {"name": name, "email": f"{name}@example.com"})
        return self.call("POST", "/keys/provision", {"developer_id": dev["id"], "vendor": vendor, **terms})  # type: ignore[no-any-return]  # JSON

    def things(self, vendor: str) -> dict[str, Any]:
        return self.sandbox.get(f"/admin/{vendor}").raise_for_status().json()  # type: ignore[no-any-return]  # JSON


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with RunningKeyGate(tmp_path_factory.mktemp("house"), sandbox=True) as keygate:
        made = House(keygate)
        yield made
        made.sandbox.close()


@pytest.mark.parametrize("vendor", VENDORS)
def test_each_vendor_is_entered_with_the_ready_body_and_makes_keys(house: House, vendor: str) -> None:
    told = house.call("POST", "/vendors/configure", house.entered(vendor)["configure"])
    assert (told["status"], told["missing_rights"]) == ("ready", [])
    made = house.provision(vendor, **TERMS[vendor])
    assert made["state"] == "active"
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] in {"revoked", "revoking"}
    called = {call["operation"] for call in house.sandbox.get(f"/admin/{vendor}/calls").json()["calls"]}
    assert called <= set(house.things(vendor)["operations"]), "operations that the guide does not name"


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_overview_has_the_settings_of_each_vendor(house: House, vendor: str) -> None:
    shown = house.sandbox.get("").json()["vendors"][vendor]["settings"]
    entered = house.entered(vendor)["configure"]["settings"]
    assert shown["base_url"] == entered["base_url"]
    assert shown.keys() <= entered.keys()
    address = str(house.sandbox.base_url).removesuffix("/_sandbox/")
    assert f"`{shown['base_url'].replace(address, '$S')}`" in GUIDE


@pytest.mark.parametrize("vendor", ["azure", "google", "bedrock"])
def test_the_command_line_takes_the_same_settings(house: House, tmp_path: Path, vendor: str) -> None:
    made = house.entered(vendor)
    settings = [part for name, value in made["configure"]["settings"].items() for part in ("--set", f"{name}={value}")]
    keygate = house.keygate
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KEYGATE_URL": keygate.url, "KEYGATE_TOKEN": keygate.sign_in()}
    command = [KEYGATE, "vendors", "configure", vendor, "--name", "by-command", *settings, "--json"]
    said = subprocess.run(command, input=made["value"], capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["status"] == "ready"


def test_a_credential_without_a_right_is_told_so(house: House) -> None:
    weak = house.entered("openai", without=["api.limits.write"])["configure"]
    told = house.call("POST", "/vendors/configure", {**weak, "name": "weak"})
    assert (told["status"], told["missing_rights"]) == ("rights_missing", ["api.limits.write"])


def test_a_fault_about_one_key_strikes_no_other(house: House) -> None:
    house.call("POST", "/vendors/configure", {**house.entered("openrouter")["configure"], "name": "two"})
    one, other = (house.provision("openrouter", account="two") for _ in range(2))
    fault = {"operation": "keys.delete", "about": one["at_vendor"]["key"], "status": 500, "calls": None}
    house.sandbox.post("/admin/openrouter/faults", json=fault).raise_for_status()
    try:
        assert house.call("POST", f"/keys/{other['id']}/revoke")["state"] == "revoked"
        assert house.call("POST", f"/keys/{one['id']}/revoke", {"wait_seconds": 1})["state"] in {"revoking", "irrevocable"}
    finally:
        house.sandbox.delete("/admin/openrouter/faults")


def test_the_guide_names_every_setting_fault_and_operation() -> None:
    named = {*Settings.__dataclass_fields__, *AdminFault.__dataclass_fields__, *(name for api in APIS for name in api.operations())}
    assert [name for name in sorted(named) if f"`{name}`" not in GUIDE] == []
