"""No secret is lost where an answer doesn't arrive: callers who go away, who ask at once, who ask again."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.issued_keys.office import ApiError, Office
from tests.issued_keys.workshop import Workshop

from keygate.errors import Conflict
from keygate.issued_keys import IssueDraft, State
from keygate.issued_keys.model import PICKUP_NS
from keygate.kit.clock import NANOSECONDS
from keygate.policies import Place, Scope
from keygate.sandbox.admin import AdminFault, FaultKind
from keygate.vendors.admin import Terms


def impatient(office: Office, path: str, body: dict[str, Any]) -> None:
    """A caller who hangs up after a second, before the vendor is done."""
    client = office.keygate
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{client.url}/api/v1{path}", json=body, headers={"authorization": f"Bearer {client.sign_in()}"}, timeout=1)


def newest(office: Office, name: str) -> dict[str, Any]:
    found = [key for key in office.call("GET", "/keys")["items"] if key["name"] == name]
    return found[-1]


def fetched(office: Office, key_id: str) -> str:
    link = office.call("POST", f"/keys/{key_id}/link", {"expires_in_seconds": 60})
    return str(office.call("POST", "/keys/deliveries", {"token": link["token"]})["key"])


def test_a_caller_who_hung_up_is_told_nothing_and_the_secret_waits(office: Office) -> None:
    dev = office.developer("hung")
    office.fault("projects.create", status=429, retry_after="3")
    impatient(office, "/keys/provision", {"vendor": "openai", "developer_id": dev, "name": "hung"})
    made = newest(office, "hung")
    office.until(made["id"], lambda key: key["state"] == "active")
    time.sleep(1)  # what the server would have said to nobody
    assert office.key(made["id"])["secret"] == "waiting"
    assert office.works(fetched(office, made["id"]))
    office.fault("keys.create", status=429, retry_after="3")
    impatient(office, f"/keys/{made['id']}/rotate", {"overlap_seconds": 600})
    office.until(made["id"], lambda key: key["state"] == "rotating" and key["former"]["works_until"] is not None)
    time.sleep(1)
    assert office.key(made["id"])["secret"] == "waiting"
    assert office.works(fetched(office, made["id"]))
    office.heal()


def test_an_answer_that_got_lost_can_be_had_behind_a_link_by_whose_it_was(office: Office) -> None:
    made = office.provision(developer_id=office.developer("lost"))
    assert made["secret"] == "told"
    assert fetched(office, made["id"]) == made["key"]
    with pytest.raises(ApiError, match="told already"):  # somebody has it by now
        office.call("POST", f"/keys/{made['id']}/link", {"expires_in_seconds": 60})


def test_nobody_else_gets_what_an_answer_told(office: Office) -> None:
    made = office.provision(developer_id=office.developer("other"))
    signing_in = {"email": "second@example.com", "password": "another-long-password"}
    office.call("POST", "/users", {**signing_in, "name": "Second", "role": "admin"})
    token = office.call("POST", "/auth/login", signing_in)["access_token"]
    answer = httpx.post(
        f"{office.keygate.url}/api/v1/keys/{made['id']}/link",
        json={"expires_in_seconds": 60},
        headers={"authorization": f"Bearer {token}"},
        timeout=10,
    )
    assert answer.status_code == 409


async def test_no_link_is_made_that_could_never_be_opened(workshop: Workshop) -> None:
    handover, owner = workshop.orders.handover, workshop.owner
    developer = await workshop.developer("priya")
    draft = IssueDraft("openai", Place(Scope.DEVELOPER, developer.id), Terms())
    key = (await workshop.orders.keys.provision(owner, draft, tell=False)).key
    await handover.make_link(owner, key.id, expires_in_seconds=60)
    workshop.clock.advance(PICKUP_NS / NANOSECONDS)
    with pytest.raises(Conflict, match="nobody fetched it in time; rotate the key"):
        await handover.make_link(owner, key.id, expires_in_seconds=60)
    workshop.account.faults.append(AdminFault("keys.delete", kind=FaultKind.STATUS, status=403, calls=None))
    workshop.account.faults.append(AdminFault("projects.archive", kind=FaultKind.STATUS, status=403, calls=None))
    assert (await workshop.orders.keys.revoke(owner, key.id)).state is State.IRREVOCABLE
    with pytest.raises(Conflict, match="irrevocable: it has no secret to tell any more"):
        await handover.make_link(owner, key.id, expires_in_seconds=60)


def at_once(count: int, act: Any) -> list[Any]:
    ready = threading.Barrier(count)

    def go(_: int) -> Any:
        ready.wait(10)
        return act()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(go, range(count)))


def test_the_same_order_at_once_is_one_key_and_its_secret_for_each(office: Office) -> None:
    dev = office.developer("twin")
    before = office.standing()
    made = at_once(6, lambda: office.provision(developer_id=dev, request_id="twins", expires_in_days=30, wait_seconds=60))
    assert len({key["id"] for key in made}) == 1
    [secret] = {key["key"] for key in made}
    assert office.works(secret)
    after = office.standing()
    assert (after["projects"] - before["projects"], after["keys"] - before["keys"]) == (1, 1)
    wanted = {"overlap_seconds": 600, "request_id": "turn"}
    turned = at_once(6, lambda: office.call("POST", f"/keys/{made[0]['id']}/rotate", wanted))
    [second] = {key["key"] for key in turned}
    assert {key["generation"] for key in turned} == {2}
    assert office.works(second)


def test_an_end_in_days_is_the_same_order_a_moment_later_and_another_owner_is_not(office: Office) -> None:
    order = {"developer_id": office.developer("later"), "expires_in_days": 30, "request_id": "later"}
    made = office.provision(**order)
    time.sleep(1.1)
    assert office.provision(**order)["key"] == made["key"]
    for other in ({"developer_id": office.developer("else")}, {"expires_in_days": 31}, {"expires_in_days": 29}):
        with pytest.raises(ApiError, match="another order"):
            office.provision(**(order | other))


def test_a_rotation_that_failed_is_tried_again_under_its_request_id(office: Office) -> None:
    made = office.provision(developer_id=office.developer("retry"))
    office.fault("keys.create", status=403, message="no")
    wanted = {"overlap_seconds": 600, "request_id": "again"}
    with pytest.raises(ApiError, match="not rotated"):
        office.call("POST", f"/keys/{made['id']}/rotate", wanted)
    office.heal()
    turned = office.call("POST", f"/keys/{made['id']}/rotate", wanted)
    assert office.works(turned["key"])
    assert turned["key"] != made["key"]


@pytest.mark.parametrize(
    "terms",
    [{"budget_usd": "5.005"}, {"budget_usd": "0"}, {"expires_in_days": 400}, {"budget_usd": "5", "budget_period": "day"}],
)
def test_terms_that_openai_cannot_keep_call_no_vendor(office: Office, terms: dict[str, Any]) -> None:
    office.account.calls.clear()
    with pytest.raises(ApiError, match="422"):
        office.provision(**terms)
    assert not office.account.calls


def test_what_only_the_vendor_finds_wrong_is_the_callers_to_mend(office: Office) -> None:
    """A limit above the organization's own is told by OpenAI alone: 422, which nobody tries again as it is."""
    before = office.standing()
    with pytest.raises(ApiError, match="422"):
        office.provision(rate_limit_rpm=2**40)
    assert office.standing() == before
