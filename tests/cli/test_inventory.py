"""The inventory at a shell: scan, look, adopt, accept, repair, end; and bulk orders that are watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.desk import Desk

from keygate.cli.client import Exit
from keygate.sandbox import SandboxServer, Vendor


@pytest.fixture(scope="module")
def bureau(desk: Desk, sandbox: SandboxServer) -> Desk:
    key = sandbox.state.admin[Vendor.OPENAI].create_credential().value
    words = ("vendors", "configure", "openai", "--base-url", sandbox.openai_base_url, "--set", "calls_per_minute=100000")
    desk.ok(*words, text=key + "\n")
    desk.made("developers", "create", "Ines", "--email", "ines@example.com")
    return desk


def by_hand(sandbox: SandboxServer, name: str) -> str:
    admin = sandbox.state.admin
    with admin.lock:
        return str(admin.api(Vendor.OPENAI).console(admin[Vendor.OPENAI], "keys", {"name": name, "user": "eve@example.com"})["id"])


def item(bureau: Desk, **wanted: Any) -> dict[str, Any]:
    rows = bureau.made("inventory", "--all")
    return next(row for row in rows if all(row["at_vendor"].get(name) == value for name, value in wanted.items()))


def test_before_the_first_scan_it_says_so(bureau: Desk) -> None:
    assert "No vendor was looked at yet" in bureau.ok("inventory").err


def test_keys_made_by_hand_are_found_adopted_accepted_and_ended(bureau: Desk, sandbox: SandboxServer) -> None:
    first, second, third = (by_hand(sandbox, name) for name in ("notebook", "batch", "forgotten"))
    made = bureau.made("provision", "--vendor", "openai", "--dev", "ines", "--budget", "50")
    said = bureau.ok("inventory", "scan")
    assert "done" in said.out
    listed = bureau.ok("inventory").out
    assert "forgotten" in listed
    assert "unknown" in listed
    assert "no_limit" in listed
    adopted = bureau.made("inventory", "adopt", item(bureau, key=first)["id"], "--dev", "ines", "--expires", "90d", "--remind", "14")
    assert (adopted["standing"], adopted["renamed"]) == ("adopted", False)
    assert bureau.run("inventory", "adopt", adopted["id"]).code == Exit.NOT_VALID
    assert item(bureau, key=second)["attention"]
    bureau.ok("inventory", "accept", item(bureau, key=second)["id"], "--reason", "the nightly batch")
    assert not item(bureau, key=second)["attention"]
    unknown = item(bureau, key=third)["id"]
    assert bureau.run("inventory", "disable", unknown, "--reason", "nobody knows it", "--yes").code == Exit.NOT_VALID
    assert bureau.made("inventory", "disable", unknown, "--revoke", "--reason", "nobody knows it", "--yes")["presence"] == "gone"
    ours = item(bureau, key=made["at_vendor"]["key"])
    assert (ours["standing"], ours["issued_key_id"], ours["budget_usd"]) == ("ours", made["id"], "50.00")
    assert bureau.run("inventory", "repair", ours["id"]).code == Exit.NOT_VALID
    [summary] = bureau.made("inventory", "summary")
    assert summary["standings"]["adopted"] == 1
    assert "openai" in bureau.ok("inventory", "summary").out
    assert "notebook" in bureau.ok("inventory", "show", adopted["id"]).out


def test_a_key_that_nobody_has_used_for_long_is_shown_as_stale_with_the_days(bureau: Desk, sandbox: SandboxServer) -> None:
    """As the guide has it: nobody's clock moves."""
    aged = {"key": by_hand(sandbox, "long forgotten"), "days": 100}
    assert httpx.post(f"{sandbox.address}/_sandbox/admin/openai/console/age", json=aged, timeout=10).status_code == 201
    bureau.ok("inventory", "scan")
    [row] = bureau.made("inventory", "--finding", "stale")
    assert row["at_vendor"]["key"] == aged["key"]
    assert "not used for 90 days or longer" in bureau.ok("inventory", "show", row["id"]).err


def test_a_limit_that_was_changed_in_the_console_is_shown_and_set_again(bureau: Desk, sandbox: SandboxServer) -> None:
    made = bureau.made("provision", "--vendor", "openai", "--dev", "ines", "--budget", "20")
    account = sandbox.state.admin[Vendor.OPENAI]
    with sandbox.state.admin.lock:
        entry = account.shelves["projects"].get(made["at_vendor"]["project"])
        assert entry is not None
        limit = {**entry.more["spend"].last(), "threshold_amount": 900_000}
        entry.more["spend"].set(limit, at_ns=account.now_ns())
    bureau.ok("inventory", "scan")
    drifted = bureau.ok("inventory", "--finding", "drift")
    assert "budget is $9000.00 a month, agreed is $20.00 a month" in drifted.err
    repaired = bureau.made("inventory", "repair", item(bureau, key=made["at_vendor"]["key"])["id"])
    assert (repaired["findings"], repaired["budget_usd"]) == ([], "20.00")


def test_a_key_of_a_vendor_without_an_api_comes_with_its_checklist(bureau: Desk, sandbox: SandboxServer) -> None:
    secret = sandbox.state.create_key(Vendor.OPENAI).value
    words = ("inventory", "enter", "groq", "--dev", "ines", "--base-url", sandbox.openai_base_url)
    said = bureau.ok(*words, text=secret + "\n")
    assert "console.groq.com" in said.err
    assert secret not in said.out + said.err
    assert bureau.run(*words, text="gsk_unknown000000\n").code == Exit.NOT_VALID


def test_a_bulk_order_is_listed_watched_and_cannot_be_cancelled_when_done(bureau: Desk, tmp_path: Path) -> None:
    team = bureau.made("teams", "create", "Stock")["id"]
    for name in ("uma", "viv"):
        bureau.made("developers", "create", name, "--email", f"{name}@example.com", "--team", team)
    report = tmp_path / "report.csv"
    bureau.ok("provision", "--vendor", "openai", "--members-of", team, "--report", str(report))
    [order] = bureau.made("bulk", "list")
    assert (order["state"], order["counts"]["made"]) == ("done", 2)
    again = tmp_path / "again.csv"
    bureau.ok("bulk", "watch", order["id"], "--report", str(again))
    assert again.read_text().count("/receive#") == 2
    assert bureau.run("bulk", "cancel", order["id"], "--yes").code == Exit.NOT_VALID
    assert "This was ordered before" in bureau.ok("provision", "--vendor", "openai", "--members-of", team, "--report", str(report)).err
