"""Drill: a developer with keys at six vendors and two virtual keys leaves. All are dead at the vendors, the receipt verifies without a
server, and the one that a vendor refuses to revoke stands as irrevocable with the time of the next try."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.drills.figures import write
from tests.running import RunningKeyGate
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT

from keygate.issued_keys import verify
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import AdminFault
from keygate.sandbox.admin.google.api import PROJECT

BEDROCK_MODEL = "anthropic.claude-haiku-4-5-20251001-v1:0"
HELLO = [{"role": "user", "content": "Hello"}]
ORDERS: dict[str, dict[str, Any]] = {
    "openai": {"budget_usd": "5.00"},
    "openrouter": {"budget_usd": "5.00"},
    "xai": {"rate_limit_rpm": 50},
    "google": {},
    "azure": {"models": ["gpt-4o-mini"], "rate_limit_tpm": 20_000},
    "bedrock": {"models": [BEDROCK_MODEL], "expires_in_days": 90},
}
STUBBORN = "xai"


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def keygate(tmp_path: Path) -> Iterator[RunningKeyGate]:
    with RunningKeyGate(tmp_path) as running:
        yield running


def accounts(sandbox: SandboxServer) -> dict[str, tuple[str, dict[str, str]]]:
    """Admin credential and settings by vendor."""
    admin = sandbox.state.admin
    plain = {name: admin[Vendor(name)].create_credential() for name in ("openai", "openrouter", "xai")}
    azure, aws = (admin[vendor].create_credential(name="keygate") for vendor in (Vendor.AZURE, Vendor.BEDROCK))
    body = {"without": [], "token_uri": f"{sandbox.address}/google/oauth2/token"}
    google = admin.api(Vendor.GOOGLE).console(admin[Vendor.GOOGLE], "admin_key", body)["credentials"]
    return {
        "openai": (plain["openai"].value, {"base_url": sandbox.openai_base_url}),
        "openrouter": (plain["openrouter"].value, {"base_url": sandbox.openrouter_base_url}),
        "xai": (plain["xai"].value, {"base_url": f"{sandbox.address}/xai"}),
        "google": (google, {"base_url": sandbox.google_base_url, "project": PROJECT}),
        "azure": (
            azure.value,
            {
                "base_url": f"{sandbox.address}/azure",
                "tenant": TENANT,
                "client_id": azure.name,
                "subscription": SUBSCRIPTION,
                "resource_group": GROUP,
                "region": "eastus",
            },
        ),
        "bedrock": (aws.value, {"base_url": f"{sandbox.address}/aws/iam", "access_key_id": aws.name, "region": "us-east-1"}),
    }


def status(sandbox: SandboxServer, made: dict[str, Any]) -> int:
    """What the vendor itself answers to the key."""
    key, vendor = made["key"], made["vendor"]
    bearer = {"authorization": f"Bearer {key}"}
    match vendor:
        case "google":
            url = f"{sandbox.google_base_url}/v1beta/models/gemini-2.5-flash:generateContent"
            headers, body = {"x-goog-api-key": key}, {"contents": [{"parts": [{"text": "Hello"}]}]}
        case "azure":
            url = (
                f"{made['env']['AZURE_OPENAI_ENDPOINT'].rstrip('/')}/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"
            )
            headers, body = {"api-key": key}, {"messages": HELLO}
        case "bedrock":
            url = f"{sandbox.address}/aws/bedrock-runtime/model/{BEDROCK_MODEL}/converse"
            headers, body = bearer, {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
        case _:
            base = {"openai": sandbox.openai_base_url, "openrouter": sandbox.openrouter_base_url, "xai": sandbox.xai_base_url}[vendor]
            model = {"openai": "gpt-4.1-mini", "openrouter": "openai/gpt-4.1-mini", "xai": "grok-3"}[vendor]
            url, headers, body = f"{base}/chat/completions", bearer, {"model": model, "messages": HELLO}
    return httpx.post(url, json=body, headers=headers, timeout=10).status_code


def test_a_leaver_has_nothing_left_at_any_vendor(keygate: RunningKeyGate, sandbox: SandboxServer, tmp_path: Path) -> None:
    for vendor, (admin, settings) in accounts(sandbox).items():
        body = {"vendor": vendor, "admin_key": admin, "settings": settings | {"calls_per_minute": "100000"}}
        told = keygate.call("POST", "/vendors/configure", body)
        assert told["status"] == "ready", told
    dev = keygate.call("POST", "/developers", {"name": "Leo", "email": "leo@example.com"})["id"]
    made = {
        vendor: keygate.call("POST", "/keys/provision", {"vendor": vendor, "developer_id": dev, **order})
        for vendor, order in ORDERS.items()
    }
    virtual = [keygate.key(f"virtual {number}", owner={"developer_id": dev}) for number in range(2)]
    assert {vendor: status(sandbox, key) for vendor, key in made.items()} == dict.fromkeys(ORDERS, 200)

    with sandbox.state.admin.lock:
        sandbox.state.admin[Vendor(STUBBORN)].faults.append(AdminFault("*", status=403, message="no", calls=None))
    began = time.monotonic()
    keygate.call("DELETE", f"/developers/{dev}")

    def states() -> dict[str, str]:
        return {key["vendor"]: key["state"] for key in keygate.call("GET", "/keys", developer_id=dev)["items"]}

    wanted = {vendor: "irrevocable" if vendor == STUBBORN else "revoked" for vendor in ORDERS}
    while (now := states()) != wanted:
        assert time.monotonic() - began < 60, (now, keygate.call("GET", "/keys", developer_id=dev)["items"])
        time.sleep(0.2)
    seconds = time.monotonic() - began
    for vendor, key in made.items():
        code = status(sandbox, key)
        assert (code == 200) == (vendor == STUBBORN), (vendor, code)

    summary = keygate.call("GET", "/receipts")["items"][0]
    assert (summary["cause"], summary["subject"], summary["issued_keys"], summary["virtual_keys"]) == ("developer.deactivate", dev, 6, 2)
    receipt = keygate.call("GET", f"/receipts/{summary['id']}")
    assert (receipt["complete"], receipt["remaining"]) == (False, 1)
    [stuck] = [entry for entry in receipt["issued_keys"] if not entry["ended"]]
    assert (stuck["vendor"], stuck["state"]) == (STUBBORN, "irrevocable")
    assert stuck["next_try_at"] is not None
    assert {key["id"] for key in receipt["virtual_keys"]} == {key["id"] for key in virtual}
    assert all(entry["confirmed_by_vendor"] for entry in receipt["issued_keys"] if entry["ended"])
    text = json.dumps(receipt).encode()
    assert verify(text).ok
    assert not verify(text.replace(b'"complete": false', b'"complete": true')).ok
    assert not any(key["key"].encode() in text for key in made.values())

    with sandbox.state.admin.lock:
        sandbox.state.admin[Vendor(STUBBORN)].faults.clear()
    assert keygate.call("POST", f"/keys/{made[STUBBORN]['id']}/revoke")["state"] == "revoked"
    assert status(sandbox, made[STUBBORN]) != 200
    assert keygate.call("GET", f"/receipts/{summary['id']}")["complete"] is True
    write("leaver", f"leaver: keys at {len(ORDERS)} vendors dead there after {seconds:.1f} s; one refused, irrevocable until it was mended")
