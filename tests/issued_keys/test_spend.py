"""What vendors bill, in the running product: late and restated numbers never count twice, and the sum is that of the vendor's books."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.issued_keys.office import CHAT, ApiError, Office

CENT = Decimal("0.01")


@pytest.fixture
def account_id(office: Office) -> str:
    return str(office.call("GET", "/vendors/accounts")["items"][0]["id"])


def spend(office: Office, key: str, tokens: int) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": f"sandbox(input_tokens={tokens} output_tokens=0)"}]}
    url = f"{office.sandbox.openai_base_url}/chat/completions"
    answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {key}"}, timeout=10)
    assert answer.status_code == 200, answer.text


def read(office: Office, account_id: str) -> dict[str, Any]:
    office.call("POST", f"/vendors/accounts/{account_id}/import-spend")
    return dict(office.call("GET", "/vendor-spend"))


def setting(office: Office, **settings: float) -> None:
    with office.sandbox.state.admin.lock:
        office.account.settings = office.account.settings.with_changes(settings)


def test_late_and_restated_costs_are_counted_once_and_bypass_traffic_shows(office: Office, account_id: str) -> None:
    made = office.provision(developer_id=office.developer("spender"))
    spend(office, made["key"], 1_000_000)
    books = office.account.books

    # At first the vendor tells a third of it, later all: the report follows, and adds nothing up.
    setting(office, costs_first_share=0.34, costs_restated_s=3_600)
    first = Decimal(read(office, account_id)["total_usd"])
    assert 0 < first < books.total_usd()
    assert Decimal(read(office, account_id)["total_usd"]) == first
    setting(office, costs_first_share=1, costs_restated_s=0)
    told = read(office, account_id)
    assert abs(Decimal(told["total_usd"]) - books.total_usd()) < CENT
    assert {line["group"] for line in told["items"]} == {made["id"]}

    # Data that is late does not show, and shows once.
    setting(office, costs_late_s=3_600)
    spend(office, made["key"], 500_000)
    late = Decimal(read(office, account_id)["total_usd"])
    assert late < books.total_usd()
    setting(office, costs_late_s=0)
    assert abs(Decimal(read(office, account_id)["total_usd"]) - books.total_usd()) < CENT

    # A day that has passed is corrected.
    correction = {"days_ago": 2, "container": made["at_vendor"]["project"], "model": CHAT["model"], "amount_usd": "1.25"}
    httpx.post(f"{office.sandbox.address}/_sandbox/admin/openai/books", json=correction, timeout=10).raise_for_status()
    told = read(office, account_id)
    assert abs(Decimal(told["total_usd"]) - books.total_usd()) < CENT
    assert told["unattributed_usd"] == "0.00"

    # A key that somebody made in the vendor's console.
    url = f"{office.sandbox.address}/_sandbox/admin/openai/console/keys"
    bypass = httpx.post(url, json={"name": "by hand", "user": "eve@example.com"}, timeout=10).json()["value"]
    spend(office, bypass, 2_000_000)
    told = read(office, account_id)
    assert abs(Decimal(told["total_usd"]) - books.total_usd()) < CENT
    own = sum(Decimal(line["amount_usd"]) for line in told["items"] if line["group"] == made["id"])
    assert abs(Decimal(told["unattributed_usd"]) - (books.total_usd() - own)) < CENT
    assert Decimal(told["unattributed_usd"]) > 0
    by_owner = office.call("GET", "/vendor-spend", group_by="owner")
    assert {line["group"] for line in by_owner["items"]} == {made["developer_id"], None}
    assert by_owner["total_usd"] == told["total_usd"]


def test_a_rotated_key_keeps_its_history(office: Office, account_id: str) -> None:
    made = office.provision(developer_id=office.developer("turner"))
    spend(office, made["key"], 100_000)
    turned = office.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 0, "insist": True})
    office.until(made["id"], lambda key: key["state"] == "active")
    spend(office, turned["key"], 100_000)
    office.call("POST", f"/keys/{made['id']}/revoke")
    told = read(office, account_id)
    [line] = [line for line in told["items"] if line["group"] == made["id"]]
    container = made["at_vendor"]["project"]
    assert abs(Decimal(line["amount_usd"]) - office.account.books.total_usd(container=container)) < CENT


def test_an_import_that_fails_half_way_changes_nothing_and_is_shown(office: Office, account_id: str) -> None:
    before = read(office, account_id)
    office.fault("costs.list", status=403, calls=None)
    with pytest.raises(ApiError, match="502"):
        office.call("POST", f"/vendors/accounts/{account_id}/import-spend")
    after = office.call("GET", "/vendor-spend")
    assert after["total_usd"] == before["total_usd"]
    assert after["accounts"][0]["error"] is not None
    assert after["accounts"][0]["read_at"] is not None
    office.heal()
    assert read(office, account_id)["accounts"][0]["error"] is None
