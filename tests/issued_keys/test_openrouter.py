"""OpenRouter through the running product; OpenRouter's own SDK, straight at the sandbox, says what is so at the vendor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.issued_keys.delays import OVERLAP, from_provision_to_revocation, slow
from tests.issued_keys.houses import KeyHouse
from tests.running import ApiError, RunningKeyGate
from tests.sdks.admin_clients import openrouter_bridge
from tests.sdks.bridge import Bridge, SdkError

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault, FaultKind

__all__ = ["openrouter_bridge"]


class House(KeyHouse):
    """KeyGate with an account at the sandbox's OpenRouter."""

    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer, bridge: Bridge) -> None:
        super().__init__(keygate, sandbox)
        self._bridge = bridge
        self._asks = self.account.create_credential().value
        settings = {"base_url": sandbox.openrouter_base_url, "calls_per_minute": "100000", "last_use_delay_seconds": "2"}
        body = {"vendor": "openrouter", "admin_key": self.account.create_credential().value, "settings": settings}
        told = self.call("POST", "/vendors/configure", body)
        assert told["status"] == "ready", told

    @property
    def account(self) -> Account:
        return self.sandbox.state.admin[Vendor.OPENROUTER]

    def provision(self, **body: Any) -> dict[str, Any]:
        return self.order(vendor="openrouter", **body)

    def sdk(self, method: str, **options: Any) -> Any:
        return self._bridge.call(base=self.sandbox.openrouter_base_url, key=self._asks, method=method, options=options)["answer"]

    def listed(self) -> list[dict[str, Any]]:
        """What OpenRouter lists, by its own SDK."""
        options = {"include_disabled": True, "include_expired": True}
        listed = self._bridge.call(base=self.sandbox.openrouter_base_url, key=self._asks, method="api_keys.list", options=options)
        return list(listed["answer"]["data"])

    def answers(self, key: str) -> bool:
        options = {"model": "openai/gpt-4.1-mini", "messages": [{"role": "user", "content": "Hello"}]}
        try:
            return bool(self._bridge.call(base=self.sandbox.openrouter_base_url, key=key, method="chat.send", options=options)["answer"])
        except SdkError:
            return False


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, openrouter_bridge: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("house")) as keygate:
        yield House(keygate, sandbox, openrouter_bridge)


def test_openrouter_key_from_provision_to_revocation(house: House) -> None:
    made = house.provision(budget_usd="12.50", expires_in_days=90)
    assert made["state"] == "active"
    assert made["enforcement"] == {"budget": "confirmed", "expiry": "confirmed"}
    assert made["env"] == {"OPENROUTER_API_KEY": made["key"], "OPENROUTER_BASE_URL": house.sandbox.openrouter_base_url}
    assert house.answers(made["key"]), "with no KeyGate in the path"
    ends = datetime.fromisoformat(made["expires_at"]).replace(microsecond=0)
    assert ends - datetime.now(UTC) > timedelta(days=89, hours=23)

    def terms() -> list[tuple[Any, ...]]:
        return [(each["limit"], each["limit_reset"], datetime.fromisoformat(each["expires_at"])) for each in house.listed()]

    assert terms() == [(12.5, "monthly", ends)], "as it was asked for"

    turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 2, "quiet_seconds": 1})
    calls: list[bool] = []
    assert house.answers(made["key"])
    done = house.until(
        made["id"],
        lambda key: key["state"] == "active" or key["former"]["last_used_at"] is not None,
        meanwhile=lambda: calls.append(house.answers(turned["key"])),
    )
    if done["state"] == "rotating":  # used a moment ago: KeyGate waits for quiet, and the operator does not
        house.call("POST", f"/keys/{made['id']}/cut")
    done = house.until(made["id"], lambda key: key["state"] == "active")
    assert calls, "there was an overlap"
    assert all(calls), "no failed call in between"
    assert not house.answers(made["key"])
    assert house.answers(turned["key"])
    assert house.listed()[0]["hash"] == turned["at_vendor"]["key"] != made["at_vendor"]["key"]
    assert terms() == [(12.5, "monthly", ends)], "the next key's, read back, are those that were asked for"
    assert turned["enforcement"] == {"budget": "per_key", "expiry": "confirmed"}, "each key has a whole limit, and the answer says so"

    ended = house.call("POST", f"/keys/{made['id']}/revoke", {"reason": "left"})
    assert ended["state"] == "revoked"
    assert ended["evidence"][-1]["vendor_says"] == "gone"
    assert not house.answers(turned["key"])
    assert house.listed() == []


def test_an_end_is_moved_to_earlier_and_never_past_the_vendors_own(house: House) -> None:
    made = house.provision(expires_in_days=90)
    path = f"/keys/{made['id']}"
    for later in ({"expires_in_days": 100}, {}):
        with pytest.raises(ApiError, match="takes no later end; make another key") as refused:
            house.call("POST", f"{path}/extend", later)
        assert refused.value.status == 422
    assert house.call("GET", path)["expires_at"] == made["expires_at"]
    moved = house.call("POST", f"{path}/extend", {"expires_in_days": 30})
    assert moved["enforcement"]["expiry"] == "not_enforced", "KeyGate's own sweep ends it then"
    seen = house.call("POST", f"{path}/check")
    assert (seen["enforcement"]["expiry"], seen["error_code"]) == ("not_enforced", None), "nobody has changed anything at the vendor"
    assert "drift" not in house.looked_at(made)["findings"]
    back = house.call("POST", f"{path}/extend", {"expires_at": made["expires_at"]})
    assert back["enforcement"]["expiry"] == "confirmed"
    house.call("POST", f"{path}/revoke")
    endless = house.provision()
    assert house.call("POST", f"/keys/{endless['id']}/extend", {})["enforcement"] == {}
    house.call("POST", f"/keys/{endless['id']}/revoke")


def test_a_limit_changed_in_the_console_is_found_repaired_and_accepted(house: House) -> None:
    made = house.provision(budget_usd="12.50")
    key = made["at_vendor"]["key"]

    def shown() -> tuple[Any, ...]:
        [one] = [each for each in house.listed() if each["hash"] == key]
        return one["limit"], one["limit_reset"]

    house.drifts(
        made,
        "budget",
        change=lambda: house.sdk("api_keys.update", hash=key, limit=900, limit_reset="daily"),
        shown=shown,
        takes=lambda key: (Decimal(key["budget_usd"]), key["budget_period"]) == (900, "day"),
    )
    assert shown() == (900, "daily")
    house.grows_old(made, stale=True)
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_what_openrouter_cannot_enforce_is_refused_with_the_reason(house: House) -> None:
    with pytest.raises(ApiError, match="guardrails"):
        house.provision(models=["openai/gpt-4.1-mini"])
    assert house.listed() == []


def test_key_whose_answer_was_lost_leaves_no_other_behind(house: House) -> None:
    house.account.faults.append(AdminFault("keys.create", FaultKind.RESET, performed=True))
    made = house.provision(budget_usd="1.00")
    made = house.until(made["id"], lambda key: key["state"] == "active")
    [only] = house.listed()
    assert only["hash"] == made["at_vendor"]["key"]
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert house.listed() == []


def test_key_that_the_vendor_does_not_end_is_irrevocable_until_it_does(house: House) -> None:
    made = house.provision()
    house.account.faults.append(AdminFault("keys.delete", status=403, message="not today", calls=None))
    told = house.call("POST", f"/keys/{made['id']}/revoke")
    assert told["state"] == "irrevocable"
    assert told["next_try_at"] is not None
    assert not house.answers(made["key"]), "not deleted, and disabled all the same"
    assert [each["disabled"] for each in house.listed()] == [True]
    house.account.faults.clear()
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert not house.answers(made["key"])


def test_keys_that_last_have_no_tokens_to_fetch(house: House) -> None:
    made = house.provision()
    with pytest.raises(ApiError, match="no token to fetch"):
        house.call("POST", f"/keys/{made['id']}/token")
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_nothing_is_said_of_a_key_before_the_vendors_inference_side_knows_it(house: House) -> None:
    """With the vendor's own SDK; the former key is cut without anybody's word, once OpenRouter shows it unused."""
    quiet = {"overlap_seconds": OVERLAP, "quiet_seconds": 2}
    with slow(house.account):
        from_provision_to_revocation(
            house, lambda: house.provision(budget_usd="1.00"), lambda made: house.answers(made["key"]), rotation={**quiet, "insist": True}
        )


def test_former_key_is_cut_once_it_was_seen_unused_and_not_before(house: House) -> None:
    made = house.provision(budget_usd="1.00")
    with slow(house.account, new_key_s=0, revoked_key_s=0):
        house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 1, "quiet_seconds": 2})
        for _ in range(8):
            assert house.answers(made["key"]), "in use: it is not cut"
            time.sleep(0.5)
        last = time.monotonic()
        house.until(made["id"], lambda key: key["former"] is None)
        assert time.monotonic() - last >= 2
    assert not house.answers(made["key"])


def test_what_could_not_be_read_of_an_unknown_key_stands_in_the_audit_log(house: House) -> None:
    made, by_hand = house.provision(), house.sdk("api_keys.create", name="by hand")
    house.looked_at(made)
    key = by_hand["data"]["hash"]
    [item] = [each for each in house.call("GET", "/inventory", standing="unknown")["items"] if each["at_vendor"].get("key") == key]
    house.account.faults.append(AdminFault("keys.update", status=403, message="not today", calls=None))
    done = house.call("POST", f"/inventory/{item['id']}/disable", {"how": "revoke", "reason": "nobody knows it"})
    house.account.faults.clear()
    assert done["presence"] == "gone"
    told = house.call("GET", "/audit", action="inventory.disable", target=item["id"])["items"]
    assert [each["after"]["last_bill"].partition(":")[0] for each in told if "last_bill" in each["after"]] == [
        "read while it could be used, as it could not be disabled"
    ]
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_what_an_unknown_key_spent_is_in_the_bill_though_it_was_ended_from_the_inventory(house: House) -> None:
    made, by_hand = house.provision(), house.sdk("api_keys.create", name="by hand")
    key = by_hand["data"]["hash"]
    assert house.answers(by_hand["key"])
    house.looked_at(made)
    [item] = [each for each in house.call("GET", "/inventory", standing="unknown")["items"] if each["at_vendor"].get("key") == key]
    done = house.call("POST", f"/inventory/{item['id']}/disable", {"how": "revoke", "reason": "nobody knows it"})
    assert done["presence"] == "gone"
    report = house.call("GET", "/usage", source="vendor", group_by="vendor_key")
    costs = {row["group"]["vendor_key"]: Decimal(row["cost_usd"]) for row in report["items"]}
    assert costs[key] == house.account.books.total_usd(key_id=key) > 0
    house.call("POST", f"/keys/{made['id']}/revoke")
