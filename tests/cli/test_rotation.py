"""Rotation by itself at a shell: schedules, policies, and the new secret for its owner."""

from __future__ import annotations

import sqlite3
import time

import pytest
from tests.cli.desk import Desk
from tests.cli.test_issuing import works

from keygate.cli.client import Exit
from keygate.sandbox import SandboxServer, Vendor

DAY_NS = 86_400 * 10**9


@pytest.fixture(scope="module")
def bureau(desk: Desk, sandbox: SandboxServer) -> Desk:
    key = sandbox.state.admin[Vendor.OPENAI].create_credential().value
    words = ("vendors", "configure", "openai", "--base-url", sandbox.openai_base_url, "--set", "calls_per_minute=100000")
    desk.ok(*words, text=key + "\n")
    desk.made("developers", "create", "Rosa", "--email", "rosa@example.com")
    return desk


def test_key_is_rotated_by_schedule_and_its_new_secret_collected(bureau: Desk, sandbox: SandboxServer) -> None:
    made = bureau.made("provision", "--vendor", "openai", "--dev", "rosa", "--rotate-every", "30d", "--rotate-overlap", "1h")
    assert (made["rotate_every_days"], made["rotate_overlap_seconds"], made["rotation"]["cause"]) == (30, 3_600, "schedule")
    assert made["rotation"]["next_at"][:10] in bureau.ok("issued-keys", "list").out
    assert bureau.run("issued-keys", "schedule", made["id"]).code == Exit.USAGE
    assert bureau.run("issued-keys", "schedule", made["id"], "--rotate-every", "1d", "--overlap", "2d").code == Exit.NOT_VALID
    assert bureau.made("issued-keys", "schedule", made["id"], "--off")["rotation"]["next_at"] is None
    assert bureau.run("issued-keys", "collect", made["id"]).code == Exit.NOT_VALID
    bureau.ok("issued-keys", "schedule", made["id"], "--rotate-every", "12w", "--overlap", "30m")
    with sqlite3.connect(bureau.keygate.data_dir / "keygate.db", timeout=10) as database:
        database.execute("UPDATE issued_keys SET made_at_ns = made_at_ns - ? WHERE id = ?", (100 * DAY_NS, made["id"]))
    ends = time.monotonic() + 60
    while (row := bureau.made("issued-keys", "show", made["id"]))["secret"] != "waiting":
        assert time.monotonic() < ends, row
        time.sleep(0.5)
    assert "is open now" in bureau.ok("issued-keys", "list").out
    told = bureau.ok("issued-keys", "collect", made["id"], "--env").out
    fresh = told.split("OPENAI_API_KEY=")[1].split()[0].strip("'\"")
    assert works(sandbox, fresh)
    assert works(sandbox, made["key"])
    assert fresh in bureau.ok("issued-keys", "collect", made["id"], "--env").out, "the answer may have got lost"
    bureau.ok("issued-keys", "cut", made["id"])
    assert not works(sandbox, made["key"])


def test_policies_from_check_to_removal(bureau: Desk) -> None:
    team = bureau.made("teams", "create", "search")
    assert "None yet" in bureau.ok("rotation-policies", "list").err
    assert bureau.made("rotation-policies", "create", "90d", "--check").keys() == {"keys", "due", "too_old", "by_person"}
    assert bureau.made("rotation-policies", "list") == []
    policy = bureau.made("rotation-policies", "create", "90d", "--team", team["id"], "--vendor", "openai", "--overlap", "2d")
    assert (policy["max_age_days"], policy["overlap_seconds"], policy["vendor"]) == (90, 172_800, "openai")
    assert bureau.run("rotation-policies", "create", "30d", "--team", team["id"], "--vendor", "openai").code == Exit.NOT_VALID
    assert bureau.run("rotation-policies", "create", "90d", "--vendor", "nobody").code == Exit.NOT_VALID
    assert bureau.run("rotation-policies", "create", "soon").code == Exit.USAGE
    assert bureau.made("rotation-policies", "change", policy["id"], "--max-age", "60d")["max_age_days"] == 60
    assert bureau.run("rotation-policies", "change", policy["id"]).code == Exit.USAGE
    assert policy["id"] in bureau.ok("rotation-policies", "list").out
    assert "KEYS" in bureau.ok("rotation-policies", "show", policy["id"]).out
    bureau.ok("rotation-policies", "remove", policy["id"], "--yes")
    assert bureau.run("rotation-policies", "show", policy["id"]).code == Exit.NOT_FOUND
