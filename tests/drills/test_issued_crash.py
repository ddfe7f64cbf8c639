"""Drill: `kill -9` at every step of provision, rotate and revoke (at full length; at some of them otherwise). After the restart the state
converges: what the vendor holds is what KeyGate knows, every secret can be had by who asked for it, nothing is called revoked that
works."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.drills.figures import FULL, length, write
from tests.issued_keys.office import ApiError, Office
from tests.running import RunningKeyGate

from keygate.sandbox import SandboxServer

_PROGRAM = str(Path(__file__).with_name("dying.py"))
_MOST = 60  # steps of one action, at most
STRIDE = length(4, 1)  # every step at full length
TERMS = {"budget_usd": "5.00", "rate_limit_rpm": 60, "models": ["gpt-4.1-mini"]}


class MortalKeyGate(RunningKeyGate):
    """Dies at a step that it is told, and comes back."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.file = folder / "die"
        super().__init__(folder, environment={"DRILL_FILE": str(self.file), "PYTHONPATH": str(Path.cwd()), **environment})
        self.command = [sys.executable, _PROGRAM]
        self.kind = "postgresql" if "KEYGATE_DATABASE_URL" in environment else "sqlite"
        self.deaths = 0

    def die_at(self, step: int) -> None:
        self.file.with_suffix(".steps").unlink(missing_ok=True)
        self.file.write_text(str(step))

    def died(self) -> bool:
        """Whether it has: then it is started again. Else it is no longer told to."""
        assert self.process is not None
        self.file.unlink(missing_ok=True)
        try:
            self.process.wait(0.3)
        except subprocess.TimeoutExpired:
            return False
        self.process = None
        self.deaths += 1
        self.start()
        return True

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def last_step(self) -> str:
        return self.file.with_suffix(".steps").read_text().splitlines()[-1]


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


def note(office: Office, action: str, deaths: list[str]) -> None:
    """The drill's line; one for each database."""
    kind = mortal(office).kind
    line = f"{action} on {kind}: killed at {len(deaths)} steps, converged from each"
    write(f"issued_{action}_crash-{kind}", line, deaths=deaths)


def settle(office: Office, key_id: str, states: set[str]) -> dict[str, Any]:
    return office.until(key_id, lambda key: key["state"] in states and key["error_code"] is None, seconds=40)


def at_every_step(office: Office, act: Callable[[int], None]) -> list[str]:
    """Runs `act` with a death at its first step, its second, and so on until one is outlived. Returns where it died."""
    deaths = []
    for number in range(1, _MOST, STRIDE):
        before = mortal(office).deaths
        mortal(office).die_at(number)
        act(number)
        if mortal(office).deaths == before:  # outlived: there was no such step
            mortal(office).file.unlink(missing_ok=True)
            return deaths
        deaths.append(mortal(office).last_step())
    raise AssertionError(f"an action with {_MOST} steps")


def test_provision_converges_from_a_death_at_every_step(office: Office) -> None:
    dev = office.developer()
    standing = office.standing()

    def provision(number: int) -> None:
        order = {"developer_id": dev, "request_id": f"order-{number}", **TERMS}
        made = attempt(lambda: office.provision(**order))
        if made is None:
            assert mortal(office).died()
            made = office.provision(**order)  # the caller asks again, under the same request id
        mortal(office).file.unlink(missing_ok=True)
        assert made["state"] == "active", made
        assert set(made["enforcement"].values()) == {"confirmed"}
        assert office.works(made["key"])
        after = office.standing()
        assert {name: after[name] - standing[name] for name in after} == {"projects": 1, "keys": 1}, "an orphan at the vendor"
        assert office.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
        assert office.standing() == standing

    deaths = at_every_step(office, provision)
    assert len(deaths) >= 12 // STRIDE
    assert not FULL or any(step.startswith("after: create the key") for step in deaths)
    known = office.call("GET", "/keys", state="active")["items"]
    assert known == []
    note(office, "provision", deaths)


def test_rotate_converges_from_a_death_at_every_step(office: Office) -> None:
    dev = office.developer()
    made = office.provision(developer_id=dev, **TERMS)
    current = {"key": made["key"]}

    def rotate(number: int) -> None:
        wanted = {"overlap_seconds": 0, "insist": True, "request_id": f"turn-{number}"}
        turned = attempt(lambda: office.call("POST", f"/keys/{made['id']}/rotate", wanted))
        if turned is None:
            assert mortal(office).died()
            turned = office.call("POST", f"/keys/{made['id']}/rotate", wanted)
        assert turned["key"], turned
        mortal(office).died()  # it may also die after the answer, when it cuts the former key
        key = settle(office, made["id"], {"active"})
        assert key["former"] is None
        assert office.works(turned["key"])
        assert not office.works(current["key"])
        assert office.standing()["keys"] == 1, "an orphan at the vendor"
        current["key"] = turned["key"]

    deaths = at_every_step(office, rotate)
    assert len(deaths) >= 6 // STRIDE
    note(office, "rotate", deaths)


def test_revoke_converges_from_a_death_at_every_step(office: Office) -> None:
    dev = office.developer()

    def revoke(number: int) -> None:
        file = mortal(office).file
        step = file.read_text()
        file.unlink()
        made = office.provision(developer_id=dev, request_id=f"order-{number}", **TERMS)
        file.write_text(step)
        done = attempt(lambda: office.call("POST", f"/keys/{made['id']}/revoke"))
        if done is None:
            assert mortal(office).died()
        key = settle(office, made["id"], {"revoked"})
        assert key["evidence"][0]["vendor_says"] == "gone"
        assert not office.works(made["key"])
        assert office.standing() == {"projects": 0, "keys": 0}

    deaths = at_every_step(office, revoke)
    assert len(deaths) >= 5 // STRIDE
    note(office, "revoke", deaths)


def steps_of(office: Office, act: Callable[[], Any]) -> list[str]:
    """The steps at which `act` could die, by living through it."""
    mortal(office).die_at(_MOST + 1)
    act()
    mortal(office).file.unlink()
    return mortal(office).file.with_suffix(".steps").read_text().splitlines()


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
    for number in (*range(3, len(orders), 2 * STRIDE), len(orders)):
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


__all__ = ["ApiError"]
