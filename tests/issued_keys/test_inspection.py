"""An active key is read at its vendor, in the running product: what somebody changed there is found and set again."""

from __future__ import annotations

import httpx
from tests.issued_keys.office import MODEL, Office


def test_a_limit_that_somebody_changed_at_the_vendor_is_found_and_repaired(office: Office) -> None:
    made = office.provision(developer_id=office.developer("drifter"), budget_usd="5.00", models=[MODEL])
    project = made["at_vendor"]["project"]
    headers = {"authorization": f"Bearer {office.admin_key}"}
    url = f"{office.sandbox.openai_base_url}/organization/projects/{project}/spend_limit"
    raised = {"threshold_amount": 99_900, "currency": "USD", "interval": "month"}
    httpx.post(url, json=raised, headers=headers, timeout=10).raise_for_status()
    found = office.call("POST", f"/keys/{made['id']}/check")
    assert found["enforcement"] == {"budget": "differs", "models": "confirmed"}
    assert found["error_code"] == "drifted"
    assert office.call("GET", "/events", type="issued_key.drifted")["items"][0]["subject"] == made["id"]
    budget = office.key(made["id"])["budget"]
    assert budget["enforced_by"] == "keygate", "the vendor does not keep it as agreed"
    assert f"keygate inventory check {made['id']} --repair" in budget["trouble"]
    mended = office.call("POST", f"/keys/{made['id']}/check", {"repair": True})
    assert mended["enforcement"]["budget"] == "confirmed"
    assert mended["error"] is None
    assert office.key(made["id"])["budget"] == {"enforced_by": "vendor", "trouble": None}
    assert httpx.get(url, headers=headers, timeout=10).json()["threshold_amount"] == 500


def test_a_key_that_somebody_ended_at_the_vendor_is_found(office: Office) -> None:
    made = office.provision(developer_id=office.developer("ended"))
    place = made["at_vendor"]
    url = f"{office.sandbox.openai_base_url}/organization/projects/{place['project']}/api_keys/{place['key']}"
    httpx.delete(url, headers={"authorization": f"Bearer {office.admin_key}"}, timeout=10).raise_for_status()
    assert office.call("POST", f"/keys/{made['id']}/check")["error_code"] == "gone_at_vendor"
    assert office.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
