"""What stands at the vendor against what KeyGate knows, in the running product; and drift, found and repaired."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.issued_keys.office import MODEL, ApiError, Office


@pytest.fixture
def account_id(office: Office) -> str:
    return str(office.call("GET", "/vendors/accounts")["items"][0]["id"])


def inventory(office: Office, account_id: str, **query: Any) -> dict[str, dict[str, Any]]:
    found, cursor = {}, None
    for _ in range(50):
        page = office.call("GET", f"/inventory/{account_id}", **query, **({"cursor": cursor} if cursor else {}))
        found |= {item["vendor_id"]: item for item in page["items"]}
        cursor = page["next_cursor"]
        if cursor is None:
            return found
    raise AssertionError("an inventory without an end")


def by_hand(office: Office, **body: str) -> str:
    url = f"{office.sandbox.address}/_sandbox/admin/openai/console/keys"
    return str(httpx.post(url, json={"name": "by hand", "user": "eve@example.com", **body}, timeout=10).json()["id"])


def test_ours_unknown_orphaned_and_left_over_are_told_apart(office: Office, account_id: str) -> None:
    dev = office.developer("present")
    made = office.provision(developer_id=dev, budget_usd="5.00")
    unknown = by_hand(office)
    intruder = by_hand(office, project_id=made["at_vendor"]["project"])
    found = inventory(office, account_id)
    own = found[made["at_vendor"]["key"]]
    assert (own["whose"], own["issued_key_id"], own["without_limit"], own["owner_left"]) == ("ours", made["id"], False, False)
    assert (found[unknown]["whose"], found[unknown]["owner"]) == ("unknown", "eve@example.com")
    assert found[intruder]["whose"] == "unknown"  # in a project of ours, but not a key of ours
    assert found[f"project={made['at_vendor']['project']}"]["whose"] == "ours"
    office.call("POST", f"/inventory/{account_id}/accept", {"vendor_id": unknown, "reason": "Eve's own"})
    assert inventory(office, account_id)[unknown]["accepted"] == "Eve's own"


def test_what_was_not_used_for_long_is_stale(office: Office, account_id: str) -> None:
    made = office.provision(developer_id=office.developer("idler"))
    assert inventory(office, account_id)[made["at_vendor"]["key"]]["stale"] is False
    with office.sandbox.state.admin.lock:
        key = office.account.shelves["keys"].get(made["at_vendor"]["key"])
        assert key is not None
        key.body["created_at"] -= 100 * 86_400
    assert inventory(office, account_id, stale_days=90)[made["at_vendor"]["key"]]["stale"] is True
    assert inventory(office, account_id, stale_days=200)[made["at_vendor"]["key"]]["stale"] is False


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
    mended = office.call("POST", f"/keys/{made['id']}/check", {"repair": True})
    assert mended["enforcement"]["budget"] == "confirmed"
    assert mended["error"] is None
    assert httpx.get(url, headers=headers, timeout=10).json()["threshold_amount"] == 500


def test_a_key_that_somebody_ended_at_the_vendor_is_found(office: Office) -> None:
    made = office.provision(developer_id=office.developer("ended"))
    place = made["at_vendor"]
    url = f"{office.sandbox.openai_base_url}/organization/projects/{place['project']}/api_keys/{place['key']}"
    httpx.delete(url, headers={"authorization": f"Bearer {office.admin_key}"}, timeout=10).raise_for_status()
    assert office.call("POST", f"/keys/{made['id']}/check")["error_code"] == "gone_at_vendor"
    assert office.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"


def test_a_vendor_that_can_not_switch_off_says_so(office: Office, account_id: str) -> None:
    with pytest.raises(ApiError, match="console"):
        office.call("POST", f"/inventory/{account_id}/disable", {"vendor_id": by_hand(office)})
