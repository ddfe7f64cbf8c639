"""`kill -9` while a call to Google is under way: after the restart nothing stands there that KeyGate doesn't know, and no key is lost.

By default in one call of each kind; `KEYGATE_DRILL=full`: in each call that changes something.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.drills.figures import FULL
from tests.drills.killing import killed_in
from tests.issued_keys.test_google import House
from tests.running import RunningKeyGate
from tests.sdks.bridge import Bridge
from tests.sdks.google_clients import admin_client, genai_client

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin.google.api import PROJECT, cloud_of

__all__ = ["admin_client", "genai_client"]

MAKING = [
    ("shared", "apikeys.keys.create"),
    ("shared", "iam.serviceAccounts.create"),
    ("shared", "apikeys.keys.keyString"),
    ("own", "cloudresourcemanager.projects.create"),
    ("own", "cloudbilling.projects.billingInfo"),
    ("own", "serviceusage.services.enable"),
    ("own", "billingbudgets.budgets.create"),
]
ENDING = ["apikeys.keys.delete", "iam.serviceAccounts.disable", "iam.serviceAccounts.delete"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, admin_client: Bridge, genai_client: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("house")) as keygate:
        yield House(keygate, sandbox, admin_client, genai_client)


def standing(house: House) -> dict[str, set[str]]:
    """What of ours stands at Google."""
    with house.sandbox.state.admin.lock:
        cloud = cloud_of(house.sandbox.state.admin[Vendor.GOOGLE])
        return {
            "projects": {each.id for each in cloud.projects.values() if each.state == "ACTIVE" and each.id != PROJECT},
            "accounts": {
                each.email
                for each in cloud.accounts.values()
                if each.deleted_at is None and each.account_id.startswith("kg-") and cloud.projects[each.project].state == "ACTIVE"
            },
            "keys": {
                each.value for each in cloud.keys.values() if each.deleted_at is None and cloud.projects[each.project].state == "ACTIVE"
            },
            "budgets": {each.name for each in cloud.budgets.values()},
        }


@pytest.mark.parametrize(("account", "operation"), MAKING if FULL else MAKING[:1])
def test_key_that_was_being_made_is_made_once(house: House, account: str, operation: str) -> None:
    before = standing(house)
    known = {key["id"] for key in house.call("GET", "/keys")["items"]}
    budget = {"budget_usd": "7.00"} if account == "own" else {}
    killed_in(
        house.keygate,
        house.sandbox.state.admin[Vendor.GOOGLE],
        operation,
        lambda: house.provision(account=account, deliver="link", **budget),
    )
    [made] = [key for key in house.call("GET", "/keys")["items"] if key["id"] not in known]
    done = house.until(made["id"], lambda key: key["state"] in {"active", "failed"})
    assert done["state"] == "active", done
    after = standing(house)
    assert len(after["keys"] - before["keys"]) == 1, "one key, and KeyGate knows it"
    assert len(after["accounts"] - before["accounts"]) == 1
    link = house.call("POST", f"/keys/{made['id']}/link", {"expires_in_seconds": 600})
    opened = house.call("POST", "/keys/deliveries", {"token": link["token"]})
    assert {opened["key"]} == after["keys"] - before["keys"]
    assert house.answers(opened["key"])
    house.call("POST", f"/keys/{made['id']}/revoke")
    house.until(made["id"], lambda key: key["state"] == "revoked" and not key.get("owed"))
    assert standing(house) == before


@pytest.mark.parametrize("operation", ENDING if FULL else ENDING[:1])
def test_key_that_was_being_revoked_is_revoked(house: House, operation: str) -> None:
    before = standing(house)
    made = house.provision(account="shared")
    killed_in(house.keygate, house.sandbox.state.admin[Vendor.GOOGLE], operation, lambda: house.call("POST", f"/keys/{made['id']}/revoke"))
    house.until(made["id"], lambda key: key["state"] == "revoked")
    assert not house.answers(made["key"])
    assert standing(house) == before


def test_key_that_was_being_rotated_has_one_successor(house: House) -> None:
    before = standing(house)
    made = house.provision(account="shared")
    killed_in(
        house.keygate,
        house.sandbox.state.admin[Vendor.GOOGLE],
        "apikeys.keys.create",
        lambda: house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 1, "insist": True}),
    )
    done = house.until(made["id"], lambda key: key["state"] == "active" and key["former"] is None)
    assert done["generation"] == 2
    assert not house.answers(made["key"])
    [successor] = standing(house)["keys"] - before["keys"]
    assert house.answers(successor)
    house.call("POST", f"/keys/{made['id']}/revoke")
    house.until(made["id"], lambda key: key["state"] == "revoked")
    assert standing(house) == before
