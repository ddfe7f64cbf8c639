"""The running product against the sandbox's OpenAI: what it says of a key is what the vendor says."""

from __future__ import annotations

import base64
import hashlib
import json

import httpx
import pytest
from tests.issued_keys.office import MODEL, ApiError, Office


def test_a_key_works_straight_at_the_vendor_with_the_limits_that_were_asked_for(office: Office) -> None:
    dev = office.developer("anna")
    made = office.provision(developer_id=dev, budget_usd="50.00", rate_limit_rpm=60, models=[MODEL], expires_in_days=90)
    assert made["state"] == "active"
    assert set(made["enforcement"].values()) == {"confirmed"}
    assert set(made["enforcement"]) == {"budget", "requests_per_minute", "models", "expiry"}
    assert made["env"]["OPENAI_API_KEY"] == made["key"]
    assert office.works(made["key"])
    project = made["at_vendor"]["project"]
    with office.sandbox.state.admin.lock:
        entry = office.account.shelves["projects"].get(project)
        assert entry is not None
        assert entry.more["spend"].last()["threshold_amount"] == 5_000
        assert entry.more["models"].last() == {"mode": "allow_list", "model_ids": [MODEL]}
        assert entry.more["rate_limits"][MODEL].last()["max_requests_per_1_minute"] == 60


def test_the_secret_is_told_once_and_then_nowhere(office: Office) -> None:
    made = office.provision(developer_id=office.developer("bela"))
    assert made["secret"] == "told"
    assert made["key"] not in json.dumps(office.key(made["id"]))
    assert made["key"] not in json.dumps(office.call("GET", "/keys"))


def test_the_same_request_id_gives_the_same_key_and_its_secret_again(office: Office) -> None:
    dev = office.developer("chris")
    first = office.provision(developer_id=dev, request_id="order-1")
    again = office.provision(developer_id=dev, request_id="order-1")
    assert (again["id"], again["key"]) == (first["id"], first["key"])
    with pytest.raises(ApiError, match="another order"):
        office.provision(developer_id=dev, request_id="order-1", rate_limit_rpm=5)


def test_revoked_is_said_only_once_the_vendor_shows_it_gone(office: Office) -> None:
    made = office.provision(developer_id=office.developer("dora"))
    done = office.call("POST", f"/keys/{made['id']}/revoke", {"reason": "left"})
    assert done["state"] == "revoked"
    assert done["evidence"][0]["vendor_says"] == "gone"
    assert not office.works(made["key"])
    again = office.call("POST", f"/keys/{made['id']}/revoke")
    assert again["state"] == "revoked"


def test_a_rotation_has_no_failed_call_and_cuts_the_former_key_with_proof(office: Office) -> None:
    made = office.provision(developer_id=office.developer("emil"), budget_usd="20.00", rate_limit_rpm=1_000)
    assert office.works(made["key"])
    turned = office.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 1, "quiet_seconds": 2})
    assert turned["state"] == "rotating"
    assert turned["generation"] == 2
    assert office.works(made["key"])
    assert office.works(turned["key"])
    assert set(turned["enforcement"].values()) == {"confirmed"}
    assert (turned["budget_usd"], turned["rate_limit_rpm"]) == ("20.00", 1_000)
    waiting = office.until(made["id"], lambda key: key["former"] is None or key["former"]["last_used_at"] is not None)
    if waiting["state"] == "rotating":  # the vendor showed the former key used a moment ago: it waits for quiet
        assert office.works(turned["key"])
        office.call("POST", f"/keys/{made['id']}/cut")
    done = office.until(made["id"], lambda key: key["state"] == "active")
    assert done["former"] is None
    assert not office.works(made["key"])
    assert office.works(turned["key"])


def test_a_link_tells_the_secret_once(office: Office) -> None:
    made = office.provision(developer_id=office.developer("fay"), deliver="link")
    assert made["key"] is None
    assert made["secret"] == "waiting"
    opened = office.call("POST", "/keys/deliveries", {"token": made["link"]["token"]})
    assert office.works(opened["key"])
    with pytest.raises(ApiError, match="404"):
        office.call("POST", "/keys/deliveries", {"token": made["link"]["token"]})
    with pytest.raises(ApiError, match="409"):
        office.call("POST", f"/keys/{made['id']}/link", {"expires_in_seconds": 60})


def test_missing_rights_are_named_before_anything_is_made(office: Office) -> None:
    poor = office.account.create_credential(without=("api.limits.write", "api.projects.write")).value
    before = office.standing()
    told = office.configure(poor)
    assert told["status"] == "rights_missing"
    assert told["missing_rights"] == ["api.projects.write", "api.limits.write"]
    with pytest.raises(ApiError, match=r"api\.projects\.write, api\.limits\.write"):
        office.provision(developer_id=office.developer("gil"))
    assert office.standing() == before
    assert office.configure()["status"] == "ready"


def test_an_admin_key_that_the_vendor_does_not_know_is_not_stored(office: Office) -> None:
    with pytest.raises(ApiError, match="422"):
        office.configure("sk-admin-unknown-0000000000")
    assert office.call("GET", "/vendors/accounts")["items"][0]["status"] == "ready"


def test_a_right_that_goes_missing_half_way_is_named_and_what_was_made_is_undone(office: Office) -> None:
    before = office.standing()
    office.fault("spend_limits.update", status=403, message="no", calls=None)
    with pytest.raises(ApiError, match=r"api\.limits\.write"):
        office.provision(developer_id=office.developer("hal"), budget_usd="5.00")
    assert office.standing() == before


def test_a_time_out_after_success_leaves_no_second_key(office: Office) -> None:
    before = office.standing()
    office.fault("keys.create", kind="reset", performed=True)
    made = office.provision(developer_id=office.developer("ida"), wait_seconds=60)
    assert made["state"] == "active"
    assert office.works(made["key"])
    after = office.standing()
    assert {name: after[name] - before[name] for name in after} == {"projects": 1, "keys": 1}


def test_what_the_vendor_does_not_revoke_stands_as_irrevocable_with_the_next_try(office: Office) -> None:
    made = office.provision(developer_id=office.developer("jon"))
    for operation in ("keys.delete", "projects.archive"):
        office.fault(operation, status=403, message="no", calls=None)
    stuck = office.call("POST", f"/keys/{made['id']}/revoke")
    assert stuck["state"] == "irrevocable"
    assert stuck["next_try_at"] is not None
    assert "api.api_keys.write" in stuck["error"]
    assert office.works(made["key"])
    assert office.call("GET", "/events", type="issued_key.irrevocable")["items"][0]["subject"] == made["id"]
    office.heal()
    assert office.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert not office.works(made["key"])


def test_a_rotation_fails_with_the_status_that_making_a_key_fails_with(office: Office) -> None:
    made, dev = office.provision(developer_id=office.developer("ria")), office.developer("rob")
    for vendors, ours in ((403, 409), (400, 422), (409, 502)):
        office.fault("keys.create", status=vendors, message="no", calls=None)
        for wanted in (lambda: office.call("POST", f"/keys/{made['id']}/rotate", {}), lambda: office.provision(developer_id=dev)):
            with pytest.raises(ApiError) as refused:
                wanted()
            assert refused.value.status == ours
        office.heal()
    assert office.works(made["key"]), "the former key goes on"


def test_a_key_ends_when_its_time_is_over(office: Office) -> None:
    made = office.provision(developer_id=office.developer("kim"), expires_in_days=1)
    soon = office.call("POST", f"/keys/{made['id']}/extend", {"expires_at": _soon(3)})
    assert soon["enforcement"]["expiry"] == "confirmed"
    done = office.until(made["id"], lambda key: key["state"] == "expired")
    assert done["evidence"]
    assert not office.works(made["key"])


def test_a_leaked_vendor_key_can_be_ended_by_whoever_finds_it(office: Office) -> None:
    made = office.provision(developer_id=office.developer("lea"))
    office.call("POST", "/keys/report-leak", {"key": made["key"]})
    done = office.until(made["id"], lambda key: key["state"] == "revoked")
    assert done["end_reason"] == "reported as leaked"
    assert not office.works(made["key"])


def _soon(seconds: int) -> str:
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def test_the_page_behind_a_link_holds_nothing_and_lets_only_its_own_script_run(office: Office) -> None:
    answer = httpx.get(f"{office.keygate.url}/receive", timeout=10)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    script = answer.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert (answer.headers["referrer-policy"], answer.headers["cache-control"]) == ("no-referrer", "no-store")
    made = office.provision(developer_id=office.developer("page"), deliver="link")
    assert made["link"]["url"] == f"{office.keygate.url}/receive#{made['link']['token']}"
