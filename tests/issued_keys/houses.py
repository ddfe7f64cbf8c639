"""A running KeyGate beside a sandbox, as the tests of each vendor's keys use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.running import ApiError, RunningKeyGate

from keygate.sandbox import SandboxServer, Vendor

SECONDS = 90.0


def let_tokens_expire(sandbox: SandboxServer, made: dict[str, Any]) -> None:
    """Ten minutes of Anthropic's pass for what was traded for this generation of a key."""
    rule = made["env"]["ANTHROPIC_FEDERATION_RULE_ID"]
    with sandbox.state.admin.lock:
        account = sandbox.state.admin[Vendor.ANTHROPIC]
        for token in account.shelves["tokens"]:
            if token.body.get("rule") == rule and token.grant is not None:
                token.grant.expires_at_ns = account.now_ns()


class KeyHouse:
    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer) -> None:
        self.keygate, self.sandbox, self.call = keygate, sandbox, keygate.call

    def order(self, **body: Any) -> dict[str, Any]:
        """A key for a developer of its own."""
        name = f"dev{time.monotonic_ns()}"
        developer = self.call("POST", "/developers", {"name": name, "email": f"{name}@example.com"})
        return self.call("POST", "/keys/provision", {"developer_id": developer["id"], **body})  # type: ignore[no-any-return]  # JSON

    def until(
        self,
        key_id: str,
        holds: Callable[[dict[str, Any]], bool],
        *,
        meanwhile: Callable[[], None] = lambda: None,
        seconds: float = SECONDS,
    ) -> dict[str, Any]:
        """The key, once it is so; `meanwhile` runs between two looks."""
        ends = time.monotonic() + seconds
        while True:
            key: dict[str, Any] = self.call("GET", f"/keys/{key_id}")
            if holds(key):
                return key
            meanwhile()
            assert time.monotonic() < ends, key
            time.sleep(0.1)

    def looked_at(self, made: dict[str, Any]) -> dict[str, Any]:
        """The key as the inventory has it, once its account was looked at from beginning to end."""
        [scan] = self.call("POST", "/inventory/scans", {"account": made["account_id"]})["items"]
        ends = time.monotonic() + SECONDS
        while True:
            [now] = [each for each in self.call("GET", "/inventory/scans")["items"] if each["id"] == scan["id"]]
            if now["ended_at"] is not None:
                break
            assert time.monotonic() < ends, now
            time.sleep(0.1)
        assert now["state"] == "done", now
        items = self.call("GET", "/inventory", account_id=made["account_id"], limit=500)["items"]
        mine = {each["kind"]: each for each in items if each["issued_key_id"] == made["id"]}
        return mine.get("key") or mine["container"]  # type: ignore[no-any-return]  # JSON

    def grows_old(self, made: dict[str, Any], *, stale: bool = False) -> None:
        """A key becomes a hundred days old at the sandbox's vendor: the inventory shows what that tells, the last use if it does."""
        place = made["at_vendor"]
        path = f"/_sandbox/admin/{made['vendor']}/console/age"
        answer = httpx.post(self.sandbox.address + path, json={"key": place.get("account") or place["key"], "days": 100}, timeout=10)
        assert answer.status_code == 201, answer.text
        item = self.looked_at(made)
        assert (datetime.now(UTC) - datetime.fromisoformat(item["created_at"])).days == 100
        assert (item["findings"], len(item["remedies"])) == ((["stale"], 1) if stale else ([], 0))

    def drifts(
        self,
        made: dict[str, Any],
        term: str,
        *,
        change: Callable[[], object],
        shown: Callable[[], object],
        takes: Callable[[Any], bool] | None,
    ) -> None:
        """Somebody changes a limit in the vendor's console: found, repaired and accepted. `shown`: the limit as the vendor's own client
        reads it; `takes`: whether the key's terms are the changed ones (None: what was changed can't be agreed to)."""
        agreed = shown()
        change()
        changed = shown()
        assert changed != agreed, "the change came to the vendor"
        item = self.looked_at(made)
        assert item["findings"] == ["drift"]
        assert term in [each["term"] for each in item["drift"]]
        repaired = self.call("POST", f"/inventory/{item['id']}/repair")
        assert (repaired["findings"], repaired["drift"]) == ([], [])
        assert shown() == agreed, "the vendor's own client says so"

        change()
        key = self.call("POST", f"/keys/{made['id']}/check")
        assert (key["enforcement"][term], key["error_code"]) == ("differs", "drifted")
        assert shown() == changed, "a look changes nothing"
        key = self.call("POST", f"/keys/{made['id']}/check", {"repair": True})
        assert (key["enforcement"][term], key["error_code"]) == (made["enforcement"][term], None)
        assert shown() == agreed

        change()
        item = self.looked_at(made)
        if takes is None:
            with pytest.raises(ApiError) as refused:
                self.call("POST", f"/inventory/{item['id']}/accept", {"reason": "agreed with finance"})
            assert refused.value.status == 409
            self.call("POST", f"/inventory/{item['id']}/repair")
            return
        accepted = self.call("POST", f"/inventory/{item['id']}/accept", {"reason": "agreed with finance"})
        assert (accepted["findings"], accepted["drift"]) == ([], [])
        key = self.call("GET", f"/keys/{made['id']}")
        assert takes(key), "the changed terms are the agreed ones"
        assert shown() == changed
        assert self.looked_at(made)["findings"] == []
        key = self.call("POST", f"/keys/{made['id']}/check")
        assert (key["enforcement"][term], key["error_code"]) == (made["enforcement"][term], None)
