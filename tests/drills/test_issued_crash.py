"""Drill: `kill -9` where nobody asks again. Whose answer was lost without a request id has the secret behind a link, and a death in the
middle of many orders loses none. At each step of each action, at every vendor: `test_vendor_crash.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.drills.figures import FULL, length, write
from tests.drills.mortal import MOST_STEPS, MortalKeyGate
from tests.issued_keys.office import Office

from keygate.sandbox import SandboxServer

STRIDE = length(8, 2)
TERMS = {"budget_usd": "5.00", "rate_limit_rpm": 60, "models": ["gpt-4.1-mini"]}

pytestmark = [
    pytest.mark.parametrize("store", ["sqlite", "postgresql"] if FULL else ["sqlite"], indirect=True),
    pytest.mark.timeout(length(120, 1_800)),
]


@pytest.fixture
def office(tmp_path: Path, store: dict[str, str]) -> Iterator[Office]:
    with SandboxServer() as sandbox, MortalKeyGate(tmp_path, store) as keygate:
        made = Office(keygate, sandbox)
        made.configure()
        yield made


def attempt(act: Callable[[], Any]) -> Any:
    """What the call answers; None where the process died under it."""
    try:
        return act()
    except httpx.HTTPError:
        return None


def mortal(office: Office) -> MortalKeyGate:
    assert isinstance(office.keygate, MortalKeyGate)
    return office.keygate


def settle(office: Office, key_id: str, states: set[str]) -> dict[str, Any]:
    return office.until(key_id, lambda key: key["state"] in states and key["error_code"] is None, seconds=40)


def steps_of(office: Office, act: Callable[[], Any]) -> list[str]:
    """The steps at which `act` could die, by living through it."""
    mortal(office).die_at(MOST_STEPS + 1)
    act()
    mortal(office).live_on()
    return mortal(office).steps()


def fetched(office: Office, key_id: str) -> str:
    link = office.call("POST", f"/keys/{key_id}/link", {"expires_in_seconds": 60})
    return str(office.call("POST", "/keys/deliveries", {"token": link["token"]})["key"])


def test_whose_answer_was_lost_has_the_secret_without_a_request_id(office: Office) -> None:
    """Killed at steps of a provision and a rotation that named no request id, and always at the last: the secret is told, the answer is not
    yet under way. The key is in the list; its secret is had behind a link."""
    dev = office.developer()
    orders = steps_of(office, lambda: office.provision(developer_id=dev, **TERMS))
    turns = steps_of(office, lambda: office.call("POST", f"/keys/{newest(office)['id']}/rotate", {"overlap_seconds": 600}))
    assert (orders[-1], turns[-1]) == ("told the secret", "told the secret")
    deaths = 0
    for number in (*range(3, len(orders), STRIDE), len(orders)):
        before = newest(office)["id"]
        mortal(office).die_at(number)
        assert attempt(lambda: office.provision(developer_id=dev, **TERMS)) is None
        assert mortal(office).died()
        made = newest(office)
        assert made["id"] != before
        settle(office, made["id"], {"active"})
        assert office.works(fetched(office, made["id"]))
        deaths += 1
    key_id = newest(office)["id"]
    mortal(office).die_at(len(turns))
    assert attempt(lambda: office.call("POST", f"/keys/{key_id}/rotate", {"overlap_seconds": 600})) is None
    assert mortal(office).died()
    assert settle(office, key_id, {"rotating"})["secret"] == "told"
    assert office.works(fetched(office, key_id))
    write("issued_lost_answers", f"no request id: killed at {deaths + 1} steps, every secret had behind a link")


def newest(office: Office) -> dict[str, Any]:
    found: list[dict[str, Any]] = office.call("GET", "/keys")["items"]
    return found[-1]


def test_a_death_beside_many_others_loses_none(office: Office) -> None:
    """Twelve orders at once, and the process killed in the middle of them."""
    people = [office.developer(f"dev{number}") for number in range(12)]

    def order(number: int) -> Any:
        wanted = {"developer_id": people[number], "request_id": f"many-{number}", "deliver": "later", "wait_seconds": 0}
        return attempt(lambda: office.provision(**wanted, **TERMS))

    mortal(office).die_at(25)
    answered = [order(number) is not None for number in range(12)]
    assert any(answered), "the process died before the first order was taken"
    ends = time.monotonic() + 20
    while mortal(office).running() and time.monotonic() < ends:
        time.sleep(0.05)
    assert mortal(office).died(), "nothing died: this shows nothing"
    standing = office.standing()
    assert standing["projects"] > 0, "it died before anything was made"
    for number in range(12):
        assert order(number) is not None
    for key in office.call("GET", "/keys")["items"]:
        settle(office, key["id"], {"active"})
    assert len(office.call("GET", "/keys")["items"]) == 12
    assert office.standing() == {"projects": 12, "keys": 12}
