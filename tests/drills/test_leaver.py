"""Somebody leaves who has keys at five vendors and two virtual keys: all dead at the vendors, a receipt that verifies offline, and what one
vendor refuses to revoke stands as irrevocable with the time of the next try."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.running import KEYGATE, RunningKeyGate
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import AdminFault
from keygate.sandbox.admin.google.api import PROJECT

HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Held:
    """A key that the leaver has, and whether the vendor (or KeyGate) takes it, asked straight."""

    name: str
    alive: Callable[[], bool]
    issued: dict[str, Any] | None = None


class Ground:
    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer) -> None:
        self.keygate, self.sandbox, self.call = keygate, sandbox, keygate.call
        self.state = sandbox.state.admin

    def configure(self) -> None:
        azure = self.state[Vendor.AZURE].create_credential(name="keygate-azure")
        google = self.state.api(Vendor.GOOGLE).console(self.state[Vendor.GOOGLE], "admin_key", {})["credentials"]
        address = self.sandbox.address
        entra = {"tenant": TENANT, "client_id": azure.name, "subscription": SUBSCRIPTION, "resource_group": GROUP, "region": "eastus"}
        for vendor, admin, settings in (
            ("openai", self._credential(Vendor.OPENAI), {"base_url": self.sandbox.openai_base_url}),
            ("openrouter", self._credential(Vendor.OPENROUTER), {"base_url": self.sandbox.openrouter_base_url}),
            ("google", google, {"base_url": self.sandbox.google_base_url, "project": PROJECT}),
            ("xai", self._credential(Vendor.XAI), {"base_url": f"{address}/xai"}),
            ("azure", azure.value, {"base_url": f"{address}/azure", **entra}),
        ):
            body = {"vendor": vendor, "admin_key": admin, "settings": {**settings, "calls_per_minute": "100000"}}
            told = self.call("POST", "/vendors/configure", body)
            assert told["status"] == "ready", told
        self.keygate.credential("openai", self.sandbox.openai_base_url, self.sandbox.state.create_key(Vendor.OPENAI).value)

    def _credential(self, vendor: Vendor) -> str:
        return self.state[vendor].create_credential().value

    def hand_out(self, developer: str) -> list[Held]:
        held = []
        for vendor in ("openai", "openrouter", "google", "xai", "azure"):
            wanted = {"models": ["gpt-4o-mini"]} if vendor == "azure" else {}
            made = self.call("POST", "/keys/provision", {"vendor": vendor, "developer_id": developer, "wait_seconds": 60, **wanted})
            assert made["state"] == "active", made
            held.append(Held(vendor, self._asks(vendor, made), made))
        for number in (1, 2):
            key = self.keygate.key(f"leaver-{number}", owner={"developer_id": developer})["key"]
            held.append(Held(f"virtual key {number}", self._chat(f"{self.keygate.url}/openai/v1", key, "gpt-4.1-mini")))
        return held

    def _asks(self, vendor: str, made: dict[str, Any]) -> Callable[[], bool]:
        key = made["key"]
        if vendor == "google":
            address = f"{self.sandbox.google_base_url}/v1/models/gemini-2.5-flash:generateContent"
            return _answers(address, {"x-goog-api-key": key}, {"contents": [{"parts": [{"text": "Hello"}]}]})
        if vendor == "azure":
            endpoint = made["env"]["AZURE_OPENAI_ENDPOINT"].rstrip("/")
            address = f"{endpoint}/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"
            return _answers(address, {"api-key": key}, HELLO)
        address, model = {
            "openai": (self.sandbox.openai_base_url, "gpt-4.1-mini"),
            "openrouter": (f"{self.sandbox.openrouter_base_url}", "openai/gpt-4.1-mini"),
            "xai": (self.sandbox.xai_base_url, "grok-3"),
        }[vendor]
        return self._chat(address, key, model)

    def _chat(self, address: str, key: str, model: str) -> Callable[[], bool]:
        return _answers(f"{address}/chat/completions", {"authorization": f"Bearer {key}"}, {"model": model, **HELLO})

    def verified(self, receipt: dict[str, Any], folder: Path) -> dict[str, Any]:
        """What `keygate receipts verify` says, with nothing but the receipt and the public key."""
        file = folder / "receipt.json"
        file.write_text(json.dumps(receipt))
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        key = self._run("receipts", "key", environment={**environment, "KEYGATE_DATA_DIR": str(self.keygate.data_dir)}).strip()
        told = self._run(
            "receipts", "verify", str(file), "--public-key", key, "--json", environment={**environment, "KEYGATE_DATA_DIR": str(folder)}
        )
        return dict(json.loads(told))

    def _run(self, *arguments: str, environment: dict[str, str]) -> str:
        done = subprocess.run([KEYGATE, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def _answers(address: str, headers: dict[str, str], body: dict[str, Any]) -> Callable[[], bool]:
    def ask() -> bool:
        answer = httpx.post(address, headers=headers, json=body, timeout=20)
        assert answer.status_code in {200, 400, 401, 403, 404}, answer.text
        return answer.status_code == 200

    return ask


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path / "keygate") as keygate:
        made = Ground(keygate, sandbox)
        made.configure()
        yield made


def test_leaver_loses_everything_and_what_a_vendor_refuses_is_shown(ground: Ground, tmp_path: Path) -> None:
    dev = ground.call("POST", "/developers", {"name": "priya", "email": "priya@example.com"})["id"]
    held = ground.hand_out(dev)
    assert [each.name for each in held if not each.alive()] == [], "all work before"

    ground.state[Vendor.XAI].faults.append(AdminFault("api_keys.delete", status=403, message="no", calls=None))
    ground.call("DELETE", f"/developers/{dev}")
    ends = time.monotonic() + SECONDS
    while True:
        alive = [each.name for each in held if each.alive()]
        states = {each.name: ground.call("GET", f"/keys/{each.issued['id']}")["state"] for each in held if each.issued}
        if alive == ["xai"] and states == {name: "irrevocable" if name == "xai" else "revoked" for name in states}:
            break
        assert time.monotonic() < ends, (alive, states)
        time.sleep(0.2)

    [listed] = ground.call("GET", "/receipts")["items"]
    receipt = ground.call("GET", f"/receipts/{listed['id']}")
    assert (receipt["complete"], receipt["remaining"]) == (False, 1)
    [owed] = [entry for entry in receipt["issued_keys"] if not entry["ended"]]
    assert owed["vendor"] == "xai"
    assert owed["next_try_at"] is not None
    assert "403" in owed["why_not"]
    assert all(entry["confirmed_by_vendor"] for entry in receipt["issued_keys"] if entry["ended"])
    assert len(receipt["virtual_keys"]) == 2
    told = ground.verified(receipt, tmp_path)
    assert (told["ok"], told["trusted"], told["remaining"]) == (True, True, 1)

    ground.state[Vendor.XAI].faults.clear()
    xai = next(each for each in held if each.name == "xai")
    assert xai.issued is not None
    assert ground.call("POST", f"/keys/{xai.issued['id']}/revoke", {"wait_seconds": 30})["state"] == "revoked"
    assert not xai.alive()
    whole = ground.call("GET", f"/receipts/{listed['id']}")
    assert (whole["complete"], whole["remaining"]) == (True, 0)
    assert ground.verified(whole, tmp_path)["complete"] is True
