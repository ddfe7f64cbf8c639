"""Issued keys at a shell: admin credential, provision, rotate, revoke, links, receipts, and many at once from a CSV."""

from __future__ import annotations

import csv
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.desk import Desk

from keygate.cli.client import Exit
from keygate.issued_keys import verify
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import AdminFault

MODEL = "gpt-4.1-mini"


def works(sandbox: SandboxServer, key: str) -> bool:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{sandbox.openai_base_url}/chat/completions", json=body, headers=headers, timeout=10).status_code == 200


@pytest.fixture(scope="module")
def admin_key(sandbox: SandboxServer) -> str:
    return sandbox.state.admin[Vendor.OPENAI].create_credential().value


@pytest.fixture(scope="module")
def bureau(desk: Desk, sandbox: SandboxServer, admin_key: str) -> Desk:
    words = ("vendors", "configure", "openai", "--base-url", sandbox.openai_base_url, "--set", "calls_per_minute=100000")
    said = desk.ok(*words, text=admin_key + "\n")
    assert "ready" in said.out
    assert "api.projects.write" in said.err
    assert admin_key not in said.out + said.err
    desk.made("developers", "create", "Priya", "--email", "priya@example.com")
    return desk


def test_vendors_tell_what_they_can_do_and_which_rights_they_need(bureau: Desk) -> None:
    assert "OpenAI" in bureau.ok("vendors", "show", "openai").out
    assert "api.limits.write" in bureau.ok("vendors", "show", "openai").out
    assert "project" in bureau.ok("vendors", "list").out
    assert bureau.run("vendors", "show", "nobody").code == Exit.NOT_FOUND


@pytest.mark.parametrize("vendor", ["fireworks", "elevenlabs", "litellm"])
def test_a_vendor_that_keygate_makes_no_keys_at_is_told_with_the_reason(bureau: Desk, vendor: str) -> None:
    shown = bureau.ok("vendors", "show", vendor).out
    assert re.search(r"^vendor_api +yes$", shown, re.MULTILINE)
    assert "KeyGate does not use it yet" in shown
    refused = bureau.run("provision", "--vendor", vendor, "--dev", "priya")
    assert refused.code == Exit.NOT_VALID
    assert "KeyGate does not use it yet" in refused.err
    listed = {row["name"]: row["keys"]["way"] for row in bureau.made("vendors", "list")}
    assert listed[vendor] == ("by_hand" if vendor == "fireworks" else "none")
    assert {name for name, way in listed.items() if way == "made"} >= {"openai", "anthropic", "xai"}
    assert vendor in bureau.ok("vendors", "list").out


def test_a_key_of_a_vendor_that_keygate_can_ask_nothing_is_not_entered_by_hand(bureau: Desk) -> None:
    entered = bureau.run("inventory", "enter", "elevenlabs", "--dev", "priya", "--expires", "90d", text="a-key-made-by-hand\n")
    assert entered.code == Exit.NOT_VALID
    assert "keeps no keys of ElevenLabs that were made by hand" in entered.err


def test_an_admin_credential_without_rights_ends_with_the_rights_named(bureau: Desk, sandbox: SandboxServer) -> None:
    poor = sandbox.state.admin[Vendor.OPENAI].create_credential(without=("api.limits.write",)).value
    words = ("vendors", "configure", "openai", "--name", "poor", "--base-url", sandbox.openai_base_url)
    said = bureau.run(*words, text=poor + "\n")
    assert said.code == Exit.FAILED
    assert "MISSING    api.limits.write" in said.err
    [row] = [row for row in bureau.made("vendors", "accounts") if row["name"] == "poor"]
    bureau.ok("vendors", "remove", row["id"], "--yes")


def test_life_of_an_issued_key(bureau: Desk, sandbox: SandboxServer) -> None:
    words = ("provision", "--vendor", "openai", "--dev", "priya", "--budget", "50", "--rpm", "600", "--model", MODEL, "--expires", "90d")
    made = bureau.made(*words)
    assert (made["budget_usd"], made["rate_limit_rpm"], made["models"]) == ("50.00", 600, [MODEL])
    assert works(sandbox, made["key"])
    shown = bureau.ok("issued-keys", "show", made["id"]).out
    assert "create the project" in shown
    assert made["key"] not in shown + bureau.ok("issued-keys", "list").out
    turned = bureau.made("rotate", made["id"], "--overlap", "1h", "--quiet", "1h")
    assert works(sandbox, made["key"])
    assert works(sandbox, turned["key"])
    bureau.ok("issued-keys", "cut", made["id"])
    assert not works(sandbox, made["key"])
    bureau.ok("issued-keys", "extend", made["id"], "--expires", "12w")
    assert "the vendor shows it gone" in bureau.ok("revoke", made["id"], "--yes").err
    assert not works(sandbox, turned["key"])
    assert bureau.run("rotate", made["id"]).code == Exit.NOT_VALID
    assert bureau.run("provision", "--vendor", "openai", "--dev", "nobody").code == Exit.NOT_FOUND
    assert bureau.run("provision", "--vendor", "openai", "--dev", "priya", "--expires", "soon").code == Exit.USAGE


def test_an_order_is_taken_up_again_under_its_request_id(bureau: Desk, tmp_path: Path) -> None:
    """A server that hangs up without an answer, then the same order at the real one."""
    asked: list[dict[str, Any]] = []

    class Mute(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.close_connection = True

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Mute) as mute:
        threading.Thread(target=mute.serve_forever, daemon=True).start()
        settings = {"KEYGATE_URL": f"http://127.0.0.1:{mute.server_port}", "KEYGATE_TOKEN": "kgt_none"}
        lost = bureau.run("provision", "--vendor", "openai", "--rpm", "7", **settings)
        turned = bureau.run("rotate", "ik_1", **settings)
        mute.shutdown()
    assert (lost.code, turned.code) == (Exit.UNREACHABLE, Exit.UNREACHABLE)
    first, second = (each["request_id"] for each in asked)
    assert first != second
    assert f"--request-id {first}" in lost.err
    assert f"--request-id {second}" in turned.err
    words = ("provision", "--vendor", "openai", "--rpm", "7", "--request-id", first)
    made, again = bureau.made(*words), bureau.made(*words)
    assert (made["id"], made["key"]) == (again["id"], again["key"])
    words = ("rotate", made["id"], "--request-id", second)
    assert bureau.made(*words)["key"] == bureau.made(*words)["key"] != made["key"]


def test_an_order_that_came_to_nothing_is_not_said_to_go_on(bureau: Desk, sandbox: SandboxServer) -> None:
    made = bureau.made("provision", "--vendor", "openai", "--dev", "priya")
    account = sandbox.state.admin[Vendor.OPENAI]
    account.faults.append(AdminFault("keys.create", status=409, message="no", calls=None))
    try:
        for words in (("provision", "--vendor", "openai"), ("rotate", made["id"])):
            said = bureau.run(*words)
            assert (said.code, "--request-id" in said.err, "go on" in said.err) == (Exit.FAILED, False, False), said.err
    finally:
        account.faults.clear()


def test_a_link_is_received_by_somebody_who_is_not_signed_in(bureau: Desk, stranger: Desk, sandbox: SandboxServer) -> None:
    made = bureau.made("provision", "--vendor", "openai", "--dev", "priya@example.com", "--link")
    words = ("receive", made["link"]["url"], "--json")
    got = stranger.ok(*words, KEYGATE_URL=bureau.keygate.url).json()
    assert works(sandbox, got["key"])
    assert stranger.run(*words, KEYGATE_URL=bureau.keygate.url).code == Exit.NOT_FOUND


def test_a_leaver_loses_every_vendor_key_and_the_receipt_verifies_offline(
    bureau: Desk, stranger: Desk, sandbox: SandboxServer, tmp_path: Path
) -> None:
    dev = bureau.made("developers", "create", "Leo", "--email", "leo@example.com")
    keys = [bureau.made("provision", "--vendor", "openai", "--dev", "leo")["key"] for _ in range(2)]
    virtual = bureau.made("keys", "create", "of leo", "--developer", dev["id"])
    told = bureau.ok("developers", "deactivate", dev["id"], "--yes").err
    [row, *_] = bureau.made("receipts", "list")
    assert f"keygate receipts show {row['id']}" in told
    assert (row["subject_name"], row["issued_keys"], row["virtual_keys"]) == ("Leo", 2, 1)
    path = tmp_path / "receipt.json"
    for _ in range(100):
        bureau.ok("receipts", "show", row["id"], str(path))
        if json.loads(path.read_text())["complete"]:
            break
    receipt = json.loads(path.read_text())
    assert [key["state"] for key in receipt["issued_keys"]] == ["revoked", "revoked"]
    assert all(key["confirmed_by_vendor"][0]["vendor_says"] == "gone" for key in receipt["issued_keys"])
    assert receipt["virtual_keys"][0]["id"] == virtual["id"]
    assert not any(works(sandbox, key) for key in keys)
    assert bureau.made("receipts", "verify", str(path))["trusted"] is True
    key = bureau.ok("receipts", "key").out.strip()
    assert stranger.ok("receipts", "verify", str(path), "--public-key", key, "--json").json()["complete"] is True
    unknown = stranger.run("receipts", "verify", str(path), "--json")
    assert (unknown.code, unknown.json()["consistent"], unknown.json()["ok"]) == (Exit.VERIFICATION_FAILED, True, False)
    assert stranger.run("receipts", "verify", str(path), "--public-key", "no key").code == Exit.USAGE
    path.write_text(path.read_text().replace('"revoked"', '"active"', 1))
    assert stranger.run("receipts", "verify", str(path), "--public-key", key).code == Exit.VERIFICATION_FAILED


def test_an_archived_team_takes_its_developers_and_apps_along_in_one_receipt(bureau: Desk, sandbox: SandboxServer) -> None:
    call = bureau.keygate.call
    team = call("POST", "/teams", {"name": "search"})["id"]
    people = [
        call("POST", "/developers", {"name": name, "email": f"{name}@search.example.com", "team_id": team})["id"] for name in ("ana", "bob")
    ]
    app = call("POST", "/apps", {"name": "crawler", "team_id": team})["id"]
    owners = [{"team_id": team}, *({"developer_id": each} for each in people), {"app_id": app}]
    keys = [call("POST", "/keys/provision", {"vendor": "openai", **owner})["key"] for owner in owners]
    for owner in owners:
        call("POST", "/virtual-keys", {"name": "of search", "owner": owner})
    refused = bureau.run("teams", "archive", team, "--yes")
    assert refused.code == Exit.NOT_VALID
    assert "developers=deactivate" in refused.err
    assert "developers=detach" in refused.err
    assert all(works(sandbox, key) for key in keys)
    told = bureau.ok("teams", "archive", team, "--developers", "deactivate", "--yes").err
    [row, *_] = call("GET", "/receipts")["items"]
    assert f"keygate receipts show {row['id']}" in told
    assert (row["cause"], row["subject"], row["issued_keys"], row["virtual_keys"]) == ("team.archive", team, 4, 4)
    ends = time.monotonic() + 60
    while not (receipt := call("GET", f"/receipts/{row['id']}"))["complete"]:
        assert time.monotonic() < ends, receipt
        time.sleep(0.1)
    for entries in (receipt["issued_keys"], receipt["virtual_keys"]):
        assert {each["owner_id"] for each in entries} == {team, *people, app}
    assert verify(json.dumps(receipt).encode()).consistent
    assert not any(works(sandbox, key) for key in keys)


def test_revoke_does_not_end_with_0_while_something_is_left_at_the_vendor(bureau: Desk, sandbox: SandboxServer) -> None:
    account = sandbox.state.admin[Vendor.OPENAI]
    account.faults += [AdminFault(operation, status=403, calls=None) for operation in ("service_accounts.create", "projects.archive")]
    said = bureau.run("provision", "--vendor", "openai", "--dev", "priya", "--rpm", "3")
    assert said.code == Exit.NOT_VALID
    failed = next(key for key in bureau.made("issued-keys", "list") if key["state"] == "failed")
    assert failed["owed"]
    assert bureau.run("revoke", failed["id"], "--yes").code == Exit.FAILED
    account.faults.clear()
    bureau.ok("revoke", failed["id"], "--yes")


def bulk(bureau: Desk, tmp_path: Path, count: int, *extra: str, start: int = 0):
    path, report = tmp_path / "people.csv", tmp_path / "report.csv"
    lines = [f"dev{number}@bulk.example.com,{10 + number % 3}.00,30" for number in range(start, start + count)]
    path.write_text("\n".join(["developer,budget,rpm", *lines]) + "\n")
    said = bureau.run("provision", "--vendor", "openai", "--csv", str(path), "--report", str(report), "--create-developers", *extra)
    return said, report


def test_many_from_a_csv_are_made_once_and_reported_with_links(bureau: Desk, sandbox: SandboxServer, tmp_path: Path) -> None:
    said, report = bulk(bureau, tmp_path, 6)
    assert said.code == Exit.OK, said.err
    rows = list(csv.DictReader(report.read_text().splitlines()))
    assert [row["state"] for row in rows] == ["active"] * 6
    assert report.stat().st_mode & 0o777 == 0o600
    got = bureau.made("receive", rows[0]["link"])
    assert works(sandbox, got["key"])
    assert got["budget_usd"] == "10.00"
    said, report = bulk(bureau, tmp_path, 8)
    assert "6 ordered before, 2 to order" in said.err
    again = list(csv.DictReader(report.read_text().splitlines()))
    assert [row["key_id"] for row in again[:6]] == [row["key_id"] for row in rows]


def test_a_ceiling_is_told_before_the_first_call(bureau: Desk, sandbox: SandboxServer, admin_key: str, tmp_path: Path) -> None:
    words = ("vendors", "configure", "openai", "--name", "small", "--base-url", sandbox.openai_base_url, "--set", "ceiling=3")
    bureau.ok(*words, text=admin_key + "\n")
    calls = sandbox.state.admin[Vendor.OPENAI].calls
    before = sum(call.method != "GET" for call in calls)
    said, _ = bulk(bureau, tmp_path, 4, "--account", "small", start=100)
    assert said.code == Exit.NOT_VALID
    assert "nothing was ordered: 4 keys need as many projects, and there is room for 0 (" in said.err
    assert sum(call.method != "GET" for call in calls) == before


def test_a_list_with_a_mistake_orders_nothing(bureau: Desk, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("developer,budget\na@example.com,5\n\nb@example.com,1,000\n")
    said = bureau.run("provision", "--vendor", "openai", "--csv", str(path))
    assert said.code == Exit.NOT_VALID
    assert "line 4: 3 cells, and the header has 2" in said.err
    path.write_text("developer\nnobody\n")
    assert bureau.run("provision", "--vendor", "openai", "--csv", str(path)).code == Exit.NOT_FOUND


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--report", "/nonexistent/report.csv"], "the report can't be written to /nonexistent/report.csv: No such file"),
        (["--report", "/dev/null"], "/dev/null is no file that a report may replace"),
        (["--report", "{list}"], "is the list itself"),
        (["--dev", "priya"], "--dev goes with one key"),
    ],
)
def test_an_order_that_would_end_badly_is_not_begun(bureau: Desk, tmp_path: Path, extra: list[str], told: str) -> None:
    path = tmp_path / "people.csv"
    path.write_text("developer\nstays@example.com\n")
    words = [word.replace("{list}", str(path)) for word in extra]
    said = bureau.run("provision", "--vendor", "openai", "--csv", str(path), "--create-developers", *words)
    assert said.code == Exit.USAGE
    assert told in said.err
    assert path.read_text() == "developer\nstays@example.com\n"
    assert "stays@example.com" not in bureau.ok("developers", "list").out


def test_a_report_runs_no_formula_and_machines_read_json(bureau: Desk, tmp_path: Path) -> None:
    path, report = tmp_path / "people.csv", tmp_path / "report.csv"
    path.write_text('developer,models\n=1+1@example.com,"gpt-4.1,gpt-4.1-mini"\n')
    report.write_text("a former report")
    words = ("--create-developers", "--report", str(report))
    made = bureau.made("provision", "--vendor", "openai", "--csv", str(path), *words)
    assert (made["state"], made["counts"]["made"], made["report"]) == ("done", 1, str(report))
    [row] = made["rows"]
    assert row["email"] == "=1+1@example.com"
    [line] = csv.DictReader(report.read_text().splitlines())
    assert line["developer"] == "'=1+1@example.com"
    assert report.stat().st_mode & 0o777 == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {path.name, report.name}
    assert bureau.made("receive", line["link"])["models"] == ["gpt-4.1", "gpt-4.1-mini"]
    assert bureau.made("bulk", "watch", made["id"], "--report", str(report))["id"] == made["id"]
    assert bureau.run("bulk", "watch", "../developers").code == Exit.USAGE


def test_identity_of_keygate_is_shown_and_lasting_keys_have_no_tokens(bureau: Desk) -> None:
    told = json.loads(bureau.ok("vendors", "issuer").out)
    assert told["jwks"]["keys"][0]["crv"] == "P-256"
    assert "d" not in told["jwks"]["keys"][0]
    made = bureau.made("provision", "--vendor", "openai", "--dev", "priya")
    said = bureau.run("issued-keys", "token", made["id"])
    assert said.code != 0
    assert "no token to fetch" in said.err
    bureau.ok("revoke", made["id"], "--yes")
