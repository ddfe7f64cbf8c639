"""`kill -9` while a call to Azure or AWS is under way: after the restart nothing stands there unknown to KeyGate, and no key is lost.

By default in the call of each kind that makes or ends the key; `KEYGATE_DRILL=full`: in each call that changes something.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.drills.figures import FULL
from tests.issued_keys.test_clouds import House
from tests.running import RunningKeyGate
from tests.sdks.aws_clients import aws_bridge
from tests.sdks.azure_clients import azure_bridge
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import AdminFault, FaultKind

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


def killed_in(house: House, vendor: Vendor, operation: str, call: Callable[[], Any]) -> None:
    """Does the call, and kills KeyGate once the vendor has done the operation and not answered."""
    account = house.account(vendor)
    account.faults.append(AdminFault(operation, FaultKind.STALL, performed=True))

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            call()

    caller = threading.Thread(target=ask)
    caller.start()
    ends = time.monotonic() + 30
    while account.faults:
        assert time.monotonic() < ends, f"{operation} was never called"
        time.sleep(0.02)
    house.keygate.kill()
    caller.join(30)
    house.keygate.start()


@pytest.mark.parametrize(("vendor", "operation"), MAKING if FULL else MAKING[:2])
def test_a_key_that_was_being_made_is_made_once(house: House, vendor: Vendor, operation: str) -> None:
    before = house.standing(vendor)
    known = {key["id"] for key in house.call("GET", "/keys")["items"]}
    killed_in(house, vendor, operation, lambda: house.provision(vendor, deliver="later"))
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
    killed_in(house, vendor, operation, lambda: house.call("POST", f"/keys/{made['id']}/revoke"))
    house.until(made["id"], lambda key: key["state"] == "revoked" and not key.get("owed"))
    assert not house.opens(made)
    assert house.standing(vendor) == before


@pytest.mark.parametrize(("vendor", "operation"), ROTATING if FULL else ROTATING[:2])
def test_a_key_that_was_being_rotated_has_one_successor(house: House, vendor: Vendor, operation: str) -> None:
    before = house.standing(vendor)
    made = house.provision(vendor)
    order = {"overlap_seconds": 1, "insist": True}
    killed_in(house, vendor, operation, lambda: house.call("POST", f"/keys/{made['id']}/rotate", order))
    done = house.until(made["id"], lambda key: key["state"] == "active" and key["former"] is None)
    assert done["generation"] == 2
    assert not house.opens(made)
    after = house.standing(vendor)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
    house.call("POST", f"/keys/{made['id']}/revoke")
    house.until(made["id"], lambda key: key["state"] == "revoked")
    assert house.standing(vendor) == before
