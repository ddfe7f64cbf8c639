"""Drill: a developer with keys at six vendors and two virtual keys leaves. All are dead at the vendors, the receipt verifies without a
server, and the one that a vendor refuses to revoke stands as irrevocable with the time of the next try."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drills.figures import write
from tests.drills.vendors import BEDROCK_MODEL, enter, works
from tests.running import RunningKeyGate

from keygate.issued_keys import verify
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import AdminFault

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


def test_a_leaver_has_nothing_left_at_any_vendor(keygate: RunningKeyGate, sandbox: SandboxServer, tmp_path: Path) -> None:
    for vendor in ORDERS:
        enter(keygate, sandbox, vendor)
    dev = keygate.call("POST", "/developers", {"name": "Leo", "email": "leo@example.com"})["id"]
    made = {
        vendor: keygate.call("POST", "/keys/provision", {"vendor": vendor, "developer_id": dev, **order})
        for vendor, order in ORDERS.items()
    }
    virtual = [keygate.key(f"virtual {number}", owner={"developer_id": dev}) for number in range(2)]
    assert {vendor for vendor, key in made.items() if works(sandbox, key)} == ORDERS.keys()

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
    assert {vendor for vendor, key in made.items() if works(sandbox, key)} == {STUBBORN}

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
    assert verify(text).consistent
    assert not verify(text.replace(b'"complete": false', b'"complete": true')).consistent
    assert not any(key["key"].encode() in text for key in made.values())

    with sandbox.state.admin.lock:
        sandbox.state.admin[Vendor(STUBBORN)].faults.clear()
    assert keygate.call("POST", f"/keys/{made[STUBBORN]['id']}/revoke")["state"] == "revoked"
    assert not works(sandbox, made[STUBBORN])
    assert keygate.call("GET", f"/receipts/{summary['id']}")["complete"] is True
    write("leaver", f"leaver: keys at {len(ORDERS)} vendors dead there after {seconds:.1f} s; one refused, irrevocable until it was mended")
