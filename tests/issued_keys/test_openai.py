"""OpenAI through the running product; OpenAI's own SDK, straight at the sandbox, uses the keys and says what is so there."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.issued_keys.delays import from_provision_to_revocation, slow
from tests.issued_keys.office import CHAT, MODEL, Office
from tests.sdks.admin_clients import openai_bridge
from tests.sdks.bridge import Bridge, SdkError

__all__ = ["openai_bridge"]


class Looker:
    """OpenAI's SDK with an admin key of its own, and with keys that KeyGate issued."""

    def __init__(self, office: Office, bridge: Bridge) -> None:
        self._base, self._bridge = office.sandbox.openai_base_url, bridge
        self._admin = office.account.create_credential().value

    def asks(self, method: str, *arguments: Any, every: bool = False, **options: Any) -> Any:
        request = {"base": self._base, "admin": self._admin, "method": f"admin.organization.{method}", "all": every}
        return self._bridge.call(**request, arguments=arguments, options=options)["answer"]

    def chats(self, key: str) -> int:
        """200, or the status of the refusal."""
        try:
            self._bridge.call(base=self._base, key=key, method="chat.completions.create", options=CHAT)
        except SdkError as error:
            return int(error.code)
        return 200


@pytest.fixture
def looker(office: Office, openai_bridge: Bridge) -> Looker:
    return Looker(office, openai_bridge)


def test_a_key_from_provision_to_revocation_as_the_vendors_sdk_sees_it(office: Office, looker: Looker) -> None:
    dev = office.developer("sdk")
    made = office.provision(
        developer_id=dev,
        budget_usd="50.00",
        rate_limit_rpm=600,
        rate_limit_tpm=90_000,
        models=[MODEL],
        scopes=["model.request"],
        expires_in_days=90,
    )
    project, key_id = made["at_vendor"]["project"], made["at_vendor"]["key"]
    assert made["enforcement"].pop("scopes") == "taken"
    assert set(made["enforcement"].values()) == {"confirmed"}
    assert looker.chats(made["key"]) == 200

    def terms(key_id: str) -> dict[str, Any]:
        """All that OpenAI's SDK reads of what limits a key."""
        limit = looker.asks("projects.spend_limit.retrieve", project)
        permitted = looker.asks("projects.model_permissions.retrieve", project)
        [rates] = [row for row in looker.asks("projects.rate_limits.list_rate_limits", project, every=True) if row["model"] == MODEL]
        key = looker.asks("projects.api_keys.retrieve", key_id, project_id=project)
        return {
            "budget": (limit["threshold_amount"], limit["currency"], limit["interval"]),
            "models": (permitted["mode"], permitted["model_ids"]),
            "rates": (rates["max_requests_per_1_minute"], rates["max_tokens_per_1_minute"]),
            "end": pytest.approx(key["expires_at"], abs=60),
        }

    ends = datetime.fromisoformat(made["expires_at"]).timestamp()
    asked = {"budget": (5_000, "USD", "month"), "models": ("allow_list", [MODEL]), "rates": (600, 90_000), "end": ends}
    assert terms(key_id) == asked

    # Rotation with overlap: somebody who takes up the new key as soon as it is there never sees a failed call.
    current, refused, done = [made["key"]], [], threading.Event()

    def work() -> None:
        while not done.is_set():
            key = current[0]
            if not office.works(key) and key == current[0]:
                refused.append(key)

    caller = threading.Thread(target=work)
    caller.start()
    try:
        turned = office.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 2, "insist": True})
        current[0] = turned["key"]
        office.until(made["id"], lambda key: key["state"] == "active")
    finally:
        done.set()
        caller.join()
    assert refused == []
    assert (looker.chats(made["key"]), looker.chats(turned["key"])) == (401, 200)
    assert turned["at_vendor"]["key"] != key_id
    assert terms(turned["at_vendor"]["key"]) == asked, "settings and limits carry over exactly"
    names = [key["id"] for key in looker.asks("projects.api_keys.list", project, every=True, owner_project_access="any")]
    assert names == [turned["at_vendor"]["key"]]

    assert office.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert looker.chats(turned["key"]) == 401
    assert looker.asks("projects.retrieve", project)["status"] == "archived"


def test_scopes_carry_over_to_the_next_key(office: Office, looker: Looker) -> None:
    """No API of OpenAI's shows them again, so what the keys may do is tried at its inference side."""
    made = office.provision(developer_id=office.developer("scopes"), scopes=["api.model.read"])
    turned = office.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 0, "insist": True})
    office.until(made["id"], lambda key: key["state"] == "active")
    assert looker.chats(made["key"]) == 401
    assert looker.chats(turned["key"]) == 403, "the next key may chat no more than the first"
    assert turned["enforcement"]["scopes"] == "taken"
    office.call("POST", f"/keys/{made['id']}/revoke")


def test_a_limit_changed_in_the_console_is_found_repaired_and_accepted(office: Office, looker: Looker) -> None:
    made = office.provision(developer_id=office.developer("drift"), budget_usd="50.00", rate_limit_rpm=600, models=[MODEL])
    project = made["at_vendor"]["project"]
    office.drifts(
        made,
        "budget",
        change=lambda: looker.asks("projects.spend_limit.update", project, threshold_amount=9_000, currency="USD", interval="month"),
        shown=lambda: looker.asks("projects.spend_limit.retrieve", project)["threshold_amount"],
        takes=lambda key: Decimal(key["budget_usd"]) == 90,
    )
    rates = "projects.rate_limits"

    def row() -> dict[str, Any]:
        [found] = [each for each in looker.asks(f"{rates}.list_rate_limits", project, every=True) if each["model"] == MODEL]
        return dict(found)

    office.drifts(
        made,
        "requests_per_minute",
        change=lambda: looker.asks(f"{rates}.update_rate_limit", row()["id"], project_id=project, max_requests_per_1_minute=6_000),
        shown=lambda: row()["max_requests_per_1_minute"],
        takes=lambda key: key["rate_limit_rpm"] == 6_000,
    )
    office.drifts(
        made,
        "models",
        change=lambda: looker.asks("projects.model_permissions.update", project, mode="allow_list", model_ids=[MODEL, "gpt-4.1"]),
        shown=lambda: sorted(looker.asks("projects.model_permissions.retrieve", project)["model_ids"]),
        takes=lambda key: sorted(key["models"]) == sorted([MODEL, "gpt-4.1"]),
    )
    office.call("POST", f"/keys/{made['id']}/revoke")


def test_revoked_is_not_said_while_the_vendor_still_shows_the_key(office: Office, looker: Looker) -> None:
    made = office.provision(developer_id=office.developer("slow"))
    office.fault("keys.delete", status=500, calls=None)
    office.fault("projects.archive", status=500, calls=None)
    waiting = office.call("POST", f"/keys/{made['id']}/revoke", {"wait_seconds": 1})
    assert waiting["state"] in {"revoking", "irrevocable"}
    assert looker.chats(made["key"]) == 200
    office.heal()
    office.call("POST", f"/keys/{made['id']}/revoke")
    office.until(made["id"], lambda key: key["state"] == "revoked", seconds=60)
    assert looker.chats(made["key"]) == 401


def test_nothing_is_said_of_a_key_before_the_vendors_inference_side_knows_it(office: Office, looker: Looker) -> None:
    """No call fails in a rotation, and nothing is called revoked while the SDK gets answers; all with the vendor's own SDK."""
    dev = office.developer("late")
    with slow(office.account):
        from_provision_to_revocation(
            office, lambda: office.provision(developer_id=dev, models=[MODEL]), lambda made: looker.chats(made["key"]) == 200
        )


def test_a_former_key_in_use_is_not_cut_where_uses_are_told_late(office: Office, looker: Looker) -> None:
    """That no use is told yet is no proof: quiet is counted from when the next key worked, and what the vendor tells lags."""
    made = office.provision(developer_id=office.developer("quiet"))
    with slow(office.account, last_used_s=5, new_key_s=0, revoked_key_s=0):
        office.configure(last_use_delay_seconds="6")
        order = {"overlap_seconds": 1, "quiet_seconds": 2}
        office.call("POST", f"/keys/{made['id']}/rotate", order)
        used = time.monotonic() + 12
        while time.monotonic() < used:
            assert looker.chats(made["key"]) == 200, "in use: it is not cut"
        key = office.key(made["id"])
        assert (key["state"], key["former"]["waits_for"]) == ("rotating", "quiet")
        last = time.monotonic()
        office.until(made["id"], lambda key: key["former"] is None)
        assert time.monotonic() - last >= 2, "unused for the chosen time"
    office.configure()
    assert looker.chats(made["key"]) == 401


def test_an_ended_key_is_shown_also_when_its_account_is_gone(office: Office) -> None:
    settings = {"base_url": office.sandbox.openai_base_url, "calls_per_minute": "100000"}
    body = {"vendor": "openai", "name": "leaving", "admin_key": office.admin_key, "settings": settings}
    account = office.call("POST", "/vendors/configure", body)
    made = office.provision(developer_id=office.developer("lea"), account="leaving", budget_usd="5.00")
    assert office.key(made["id"])["budget"]["enforced_by"] == "vendor"
    office.call("POST", f"/keys/{made['id']}/revoke")
    office.call("DELETE", f"/vendors/accounts/{account['id']}")
    shown = office.key(made["id"])
    assert (shown["state"], shown["budget"], shown["restraint"]) == ("revoked", None, None)
