"""Issued keys with a marked admin credential: made, rotated, delivered by a link, ended; with everything that may go wrong at the
vendor."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.silence.canaries import marked
from tests.silence.observed import PUBLIC_OF_TOKEN, Run

from keygate.sandbox import Vendor
from keygate.sandbox.admin import AdminFault, FaultKind

PUBLIC_OF_VENDOR_KEY = 24  # `sandbox-openai-svcacct-`
_OPERATIONS = ("projects.create", "spend_limits.update", "keys.create", "keys.get", "keys.delete", "projects.archive")


def issue_keys(run: Run) -> None:
    account = run.sandbox.state.admin[Vendor.OPENAI]
    admin = run.mark("openai admin key", f"sk-admin-{marked()}", public=9, guessable=True)
    account.create_credential(value=admin)
    run.made["vendor_url"] = run.sandbox.openai_base_url
    body = {"vendor": "openai", "admin_key": admin, "settings": {"base_url": run.sandbox.openai_base_url, "calls_per_minute": "100000"}}
    run.made["account_id"] = run.api("POST", "/vendors/configure", body)["id"]
    wrong = body | {"admin_key": run.made["another credential"], "name": "wrong"}
    run.send("POST", "/api/v1/vendors/configure", json=wrong)
    order = {"vendor": "openai", "developer_id": run.made["developer_id"], "budget_usd": "5.00", "account": "default"}
    made = run.issued("issued key", "POST", "/keys/provision", order | {"request_id": "silent"}, "key", PUBLIC_OF_VENDOR_KEY)
    run.api("POST", "/keys/provision", order | {"request_id": "silent"}, allowed=("issued key",))
    turned = f"/keys/{made['id']}/rotate"
    run.issued("rotated issued key", "POST", turned, {"overlap_seconds": 0, "insist": True}, "key", PUBLIC_OF_VENDOR_KEY)
    waiting = run.api("POST", "/keys/provision", order | {"deliver": "later"})
    link = run.issued("opened link", "POST", f"/keys/{waiting['id']}/link", {"expires_in_seconds": 600}, "token", PUBLIC_OF_TOKEN)
    run.issued("delivered key", "POST", "/keys/deliveries", {"token": link["token"]}, "key", PUBLIC_OF_VENDOR_KEY)
    run.send("POST", "/api/v1/keys/deliveries", json={"token": link["token"]})
    collected = run.api("POST", "/keys/provision", order | {"deliver": "later", "rotate_every_days": 30})
    run.issued("collected key", "POST", f"/keys/{collected['id']}/collect", {}, "key", PUBLIC_OF_VENDOR_KEY)
    run.made["rotation_policy_id"] = run.api("POST", "/rotation-policies", {"max_age_days": 90})["id"]
    leaver = run.api("POST", "/developers", {"name": "Leaver", "email": "leaver@example.com"})["id"]
    run.issued("leaver's key", "POST", "/keys/provision", order | {"developer_id": leaver}, "key", PUBLIC_OF_VENDOR_KEY)
    run.api("DELETE", f"/developers/{leaver}")
    run.made["receipt_id"] = run.api("GET", "/receipts")["items"][0]["id"]
    _suffer(run, order)
    run.api("POST", f"/keys/{made['id']}/revoke", {"reason": "silent"})
    run.made["issued_key_id"] = run.api("POST", "/keys/provision", order | {"deliver": "later"})["id"]
    _take_stock(run)


def _take_stock(run: Run) -> None:
    """A bulk order with a link, a key that was made by hand, one of a vendor without an API, and a scan that finds them."""
    rows = [{"email": "bulk@example.com"}]
    ordered = run.api("POST", "/bulk", {"vendor": "openai", "account": "default", "rows": rows, "create_developers": True})
    run.made["order_id"] = ordered["id"]
    _until(lambda: run.api("GET", f"/bulk/{ordered['id']}")["state"] == "done")
    page = run.api("POST", f"/bulk/{ordered['id']}/links", {"expires_in_seconds": 600}, allowed=("bulk link",))
    run.mark("bulk link", page["items"][0]["url"].rpartition("#")[2], public=PUBLIC_OF_TOKEN)
    account = run.sandbox.state.admin[Vendor.OPENAI]
    with run.sandbox.state.admin.lock:
        run.sandbox.state.admin.api(Vendor.OPENAI).console(account, "keys", {"name": "by hand", "user": "someone@example.com"})
    by_hand = run.mark("key made by hand", run.sandbox.state.create_key(Vendor.OPENAI, value=f"gsk_{marked()}").value, public=4)
    entered = {"vendor": "groq", "key": by_hand, "settings": {"base_url": run.sandbox.openai_base_url}}
    run.api("POST", "/inventory/by-hand", entered)
    run.send("POST", "/api/v1/inventory/by-hand", json=entered | {"key": run.made["another credential"]})
    run.api("POST", "/inventory/scans", {"account": "default"})
    _until(lambda: run.api("GET", "/inventory/scans")["items"][0]["ended_at"] is not None)
    run.made["item_id"] = run.api("GET", "/inventory?kind=key&standing=unknown")["items"][0]["id"]


def _until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.2)


def _suffer(run: Run, order: dict[str, str]) -> None:
    """A vendor that fails, and repeats what it was sent while failing."""
    account = run.sandbox.state.admin[Vendor.OPENAI]
    said = f"Incorrect API key provided: {run.made['openai admin key']}"
    for number, operation in enumerate(_OPERATIONS):
        for fault in (
            AdminFault(operation, status=403, message=said, calls=1),
            AdminFault(operation, kind=FaultKind.RESET, performed=True, calls=1),
            AdminFault(operation, kind=FaultKind.GARBAGE, calls=1),
            AdminFault(operation, status=500, message=said, calls=1),
        ):
            account.faults.append(fault)
            body = order | {"deliver": "later", "wait_seconds": 20, "request_id": f"suffer-{number}-{fault.kind}-{fault.status}"}
            answer = run.send("POST", "/api/v1/keys/provision", json=body)
            assert answer is not None
            if answer.is_success:
                run.send("POST", f"/api/v1/keys/{answer.json()['id']}/revoke", json={"wait_seconds": 20})
            run.send("GET", "/api/v1/keys")
            account.faults.clear()
