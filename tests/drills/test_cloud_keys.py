"""`kill -9` while a call to Azure or AWS is under way: after the restart nothing stands there unknown to KeyGate, and no key is lost.

By default in the call of each kind that makes or ends the key; `KEYGATE_DRILL=full`: in each call that changes something.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.drills.figures import FULL
from tests.drills.killing import killed_in
from tests.issued_keys.test_clouds import House
from tests.running import RunningKeyGate
from tests.sdks.aws_clients import aws_bridge
from tests.sdks.azure_clients import azure_bridge
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer, Vendor

__all__ = ["aws_bridge", "azure_bridge"]

MAKING = [
    (Vendor.AZURE, "accounts.update"),  # the tag by which the key counts as handed out
    (Vendor.BEDROCK, "CreateServiceSpecificCredential"),
    (Vendor.AZURE, "accounts.create"),
    (Vendor.AZURE, "deployments.create"),
    (Vendor.AZURE, "accounts.list_keys"),
    (Vendor.BEDROCK, "CreateUser"),
    (Vendor.BEDROCK, "PutUserPolicy"),
]
ENDING = [
    (Vendor.AZURE, "accounts.regenerate_key"),
    (Vendor.BEDROCK, "DeleteServiceSpecificCredential"),
    (Vendor.AZURE, "accounts.delete"),
    (Vendor.AZURE, "deleted_accounts.purge"),
    (Vendor.BEDROCK, "DeleteUserPolicy"),
    (Vendor.BEDROCK, "DeleteUser"),
]
ROTATING = [
    (Vendor.AZURE, "accounts.update"),
    (Vendor.BEDROCK, "CreateServiceSpecificCredential"),
    (Vendor.AZURE, "accounts.regenerate_key"),
    (Vendor.BEDROCK, "TagUser"),
    (Vendor.BEDROCK, "DeleteServiceSpecificCredential"),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, azure_bridge: Bridge, aws_bridge: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("house")) as keygate:
        yield House(keygate, sandbox, azure_bridge, aws_bridge)


@pytest.mark.parametrize(("vendor", "operation"), MAKING if FULL else MAKING[:2])
def test_a_key_that_was_being_made_is_made_once(house: House, vendor: Vendor, operation: str) -> None:
    before = house.standing(vendor)
    known = {key["id"] for key in house.call("GET", "/keys")["items"]}
    killed_in(house.keygate, house.account(vendor), operation, lambda: house.provision(vendor, deliver="later"))
    [made] = [key for key in house.call("GET", "/keys")["items"] if key["id"] not in known]
    done = house.until(made["id"], lambda key: key["state"] in {"active", "failed"})
    assert done["state"] == "active", done
    after = house.standing(vendor)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1), "one container, one key, and KeyGate knows it"
    link = house.call("POST", f"/keys/{made['id']}/link", {"expires_in_seconds": 600})
    opened = house.call("POST", "/keys/deliveries", {"token": link["token"]})
    assert house.opens({"vendor": vendor, "env": opened["env"]})
    house.call("POST", f"/keys/{made['id']}/revoke")
    house.until(made["id"], lambda key: key["state"] == "revoked" and not key.get("owed"))
    assert house.standing(vendor) == before


@pytest.mark.parametrize(("vendor", "operation"), ENDING if FULL else ENDING[:2])
def test_a_key_that_was_being_revoked_is_revoked(house: House, vendor: Vendor, operation: str) -> None:
    before = house.standing(vendor)
    made = house.provision(vendor)
    killed_in(house.keygate, house.account(vendor), operation, lambda: house.call("POST", f"/keys/{made['id']}/revoke"))
    house.until(made["id"], lambda key: key["state"] == "revoked" and not key.get("owed"))
    assert not house.opens(made)
    assert house.standing(vendor) == before


@pytest.mark.parametrize(("vendor", "operation"), ROTATING if FULL else ROTATING[:2])
def test_a_key_that_was_being_rotated_has_one_successor(house: House, vendor: Vendor, operation: str) -> None:
    before = house.standing(vendor)
    made = house.provision(vendor)
    order = {"overlap_seconds": 1, "insist": True}
    killed_in(house.keygate, house.account(vendor), operation, lambda: house.call("POST", f"/keys/{made['id']}/rotate", order))
    done = house.until(made["id"], lambda key: key["state"] == "active" and key["former"] is None)
    assert done["generation"] == 2
    assert not house.opens(made)
    after = house.standing(vendor)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
    house.call("POST", f"/keys/{made['id']}/revoke")
    house.until(made["id"], lambda key: key["state"] == "revoked")
    assert house.standing(vendor) == before
