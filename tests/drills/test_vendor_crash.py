"""Drill: `kill -9` at every step of provision, rotate and revoke, at every vendor where KeyGate makes keys. After the restart the state
converges: one of each stands at the vendor and KeyGate knows it, the holder has the secret and it works, the one before it doesn't, and
once the key is revoked nothing is left. At OpenRouter, which tells nothing of deleted keys, all that they spent is in the bill, once.

At full length at every commit, and before and after every call that changes something at the vendor, on both databases. Otherwise where it
hurts most: the vendor has made (or ended) the key, and KeyGate has not written that down.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import pytest
from tests.drills.figures import FULL, length, write
from tests.drills.mortal import MOST_STEPS, MortalKeyGate
from tests.drills.vendors import BEDROCK_MODEL, enter, standing, works
from tests.issued_keys.houses import KeyHouse, let_tokens_expire

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin.google.api import PROJECT

Json = dict[str, Any]
pytestmark = pytest.mark.timeout(length(120, 1_800))
WAIT = {"wait_seconds": 20}
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """`order`: of a key there. `confirms`: its terms that the vendor confirms. `makes`, `ends`: the beginning of what KeyGate calls the
    call that makes the key, and the one that ends it."""

    vendor: str
    order: Json
    confirms: set[str]
    makes: str
    ends: str = "delete the key"
    account: str = "default"

    @property
    def name(self) -> str:
        return self.vendor if self.account == "default" else f"{self.vendor}-{self.account}"


CASES = [
    Case(
        "openai",
        {"budget_usd": "5.00", "rate_limit_rpm": 600, "models": ["gpt-4.1-mini"]},
        {"budget", "requests_per_minute", "models"},
        "create the key",
    ),
    Case("anthropic", {"rate_limit_rpm": 600}, {"requests_per_minute"}, "create the federation rule", "archive the federation rule"),
    Case(
        "azure",
        {"models": ["gpt-4o-mini"], "rate_limit_tpm": 50_000},
        {"models", "tokens_per_minute"},
        "tag the account",  # from then on one of its two keys counts as handed out
        "regenerate",
    ),
    Case("google", {"budget_usd": "7.00", "rate_limit_rpm": 600}, {"budget", "requests_per_minute"}, "make the key"),
    Case("openrouter", {"budget_usd": "5.00", "expires_in_days": 90}, {"budget", "expiry"}, "create the key"),
    Case("bedrock", {"models": [BEDROCK_MODEL], "expires_in_days": 90}, {"models", "expiry"}, "create a key of"),
    Case("xai", {"rate_limit_rpm": 600, "models": ["grok-3"]}, {"requests_per_minute", "models"}, "make the key"),
]
if FULL:  # keys that share one project: the same calls, and fewer
    CASES.append(Case("google", {}, set(), "make the key", account="shared"))
VENDORS = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


class House(KeyHouse):
    """A KeyGate that can die, with an account at each vendor."""

    keygate: MortalKeyGate

    def __init__(self, keygate: MortalKeyGate, sandbox: SandboxServer) -> None:
        super().__init__(keygate, sandbox)
        self.over: list[str] = []  # keys that have ended: what KeyGate still does about them is no step of an action
        self.killed: dict[str, dict[str, list[str]]] = {case.name: {} for case in CASES}
        for case in CASES:
            enter(keygate, sandbox, case.vendor, name=case.account, own_projects=case.account == "default")

    def survived(self, act: Callable[[], Any]) -> Any:
        """What the call answers; None where the process died under it, and runs again."""
        try:
            return act()
        except httpx.HTTPError:
            assert self.keygate.died(), "no answer, and nothing died"
            return None

    def settled(self, key_id: str, holds: Callable[[Json], bool], meanwhile: Callable[[], None] = lambda: None) -> Json:
        """The key, once it is so, through a death."""
        while True:
            key = self.survived(lambda: self.until(key_id, holds, meanwhile=meanwhile, seconds=SECONDS))
            if key is not None:
                return key  # type: ignore[no-any-return]  # JSON

    def fetched(self, key_id: str) -> Json:
        """The key with its secret, as whoever has a link gets it."""
        link = self.call("POST", f"/keys/{key_id}/link", {"expires_in_seconds": 60})
        return self.call("POST", "/keys/deliveries", {"token": link["token"]})  # type: ignore[no-any-return]  # JSON


class Trial:
    """A case in the house. Whoever gives a request id asks again where the answer is lost (odd numbers); who gives none has the secret
    behind a link."""

    def __init__(self, house: House, case: Case) -> None:
        self.house, self.case = house, case
        self.keygate, self.call = house.keygate, house.call
        self.before = standing(house.sandbox, case.vendor)

    def kill(self, action: str, at: str, act: Callable[[int, Callable[[], None]], None]) -> None:
        """`act` with a death at its first step, its second, and so on, until one is outlived; at short length only after the call `at`."""
        where: list[str] = []
        for number in range(1, MOST_STEPS):
            before = self.keygate.deaths
            step = {"number": number} if FULL else {"number": 1, "at": f"after: {at}"}
            act(number, partial(self.keygate.die_at, **step, but=self.house.over))
            if self.keygate.deaths == before and not self.keygate.died():
                break
            where.append(self.keygate.steps()[-1])
            if not FULL:
                break
        else:
            raise AssertionError(f"an action with {MOST_STEPS} steps")
        assert any(each.startswith(f"after: {at}") for each in where), f"not killed where it hurts most: {where}"
        self._note(action, where)

    def _note(self, action: str, where: list[str]) -> None:
        kind, name = self.keygate.kind, self.case.name
        killed = self.house.killed[name]
        killed[action] = where
        if killed.keys() == {"provision", "rotate", "revoke"}:
            counts = " + ".join(str(len(killed[each])) for each in ("provision", "rotate", "revoke"))
            line = f"provision, rotate, revoke at {name} on {kind}: killed at {counts} steps, converged from each"
            write(f"vendor_crash-{name}-{kind}", line, deaths=killed)

    def provision(self, number: int, armed: Callable[[], None] = lambda: None) -> Json:
        """The key, with its secret, of an order under which the process may die."""
        holder = f"{self.case.name}-{time.monotonic_ns()}"
        developer = self.call("POST", "/developers", {"name": holder, "email": f"{holder}@example.com"})["id"]
        order = {"vendor": self.case.vendor, "account": self.case.account, "developer_id": developer, **self.case.order, **WAIT}
        if number % 2:
            order["request_id"] = f"{developer}-order"
        armed()
        made = self.house.survived(lambda: self.call("POST", "/keys/provision", order))
        if made is None and number % 2:
            made = self.call("POST", "/keys/provision", order)
        [key] = self.call("GET", "/keys", developer_id=developer)["items"]
        if made is None:
            self.house.settled(key["id"], lambda key: key["state"] == "active")
            made = self.house.fetched(key["id"])
        assert made["state"] == "active", made
        return made  # type: ignore[no-any-return]  # JSON

    def rotate(self, made: Json, number: int, armed: Callable[[], None]) -> Json:
        """The key with its next secret; its former one is cut."""
        order = {"overlap_seconds": 0, "insist": True, **WAIT}
        if number % 2:
            order["request_id"] = f"{made['id']}-{number}"
        path = f"/keys/{made['id']}/rotate"
        armed()
        turned = self.house.survived(lambda: self.call("POST", path, order))
        if turned is None and number % 2:
            turned = self.call("POST", path, order)

        def pass_time() -> None:
            if self.case.vendor == "anthropic":
                let_tokens_expire(self.house.sandbox, made)

        def done(key: Json) -> bool:
            return key["state"] == "active" and key["former"] is None and key["generation"] == made["generation"] + 1

        self.house.settled(made["id"], done, pass_time)
        turned = turned or self.house.fetched(made["id"])
        assert turned["key"] not in {None, made["key"]}, turned
        return turned  # type: ignore[no-any-return]  # JSON

    def revoke(self, made: Json, armed: Callable[[], None] = lambda: None) -> None:
        armed()
        self.house.survived(lambda: self.call("POST", f"/keys/{made['id']}/revoke", WAIT))
        key = self.house.settled(made["id"], lambda key: key["state"] == "revoked" and not key["owed"])
        self.house.over.append(made["id"])
        assert {each["vendor_says"] for each in key["evidence"]} == {"gone"}, key
        assert not works(self.house.sandbox, made)
        assert standing(self.house.sandbox, self.case.vendor) == self.before, "something is left at the vendor"

    def billed(self) -> None:
        """With no import of the bill: every key has ended, and what it cost was read before."""
        if self.case.vendor != "openrouter":
            return
        report = self.call("GET", "/usage", source="vendor", vendor="openrouter")
        books = self.house.sandbox.state.admin[Vendor.OPENROUTER].books
        assert sum(Decimal(row["cost_usd"]) for row in report["items"]) == books.total_usd() > 0

    def stands(self, made: Json) -> None:
        """One of each is at the vendor, KeyGate knows it, and the holder's secret works."""
        assert works(self.house.sandbox, made)
        key = self.call("GET", f"/keys/{made['id']}")
        assert (key["error"], key["owed"]) == (None, False), key
        known = {member: [] if value == PROJECT else [value] for member, value in key["at_vendor"].items()}
        now = standing(self.house.sandbox, self.case.vendor)
        new = {kind: sorted((Counter(ids) - Counter(self.before[kind])).elements()) for kind, ids in now.items()}
        assert new == {kind: known[kind.rpartition(" ")[2]] for kind in new}, "an orphan at the vendor"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"] if FULL else ["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    url = request.getfixturevalue("postgres_server").create("drill") if request.param == "postgresql" else None
    environment = {} if url is None else {"KEYGATE_DATABASE_URL": url}
    with SandboxServer() as sandbox, MortalKeyGate(tmp_path_factory.mktemp("house"), environment) as keygate:
        yield House(keygate, sandbox)


@pytest.fixture
def house(place: House) -> House:
    """Alive, whatever became of it in the test before."""
    place.keygate.live_on()
    if not place.keygate.running():
        place.keygate.start()
    return place


@VENDORS
def test_provision_converges_from_a_death_at_every_step(house: House, case: Case) -> None:
    trial = Trial(house, case)

    def act(number: int, armed: Callable[[], None]) -> None:
        made = trial.provision(number, armed)
        house.keygate.live_on()
        assert {term for term, said in made["enforcement"].items() if said == "confirmed"} == case.confirms
        trial.stands(made)
        trial.revoke(made)

    trial.kill("provision", case.makes, act)
    trial.billed()


@VENDORS
def test_rotate_converges_from_a_death_at_every_step(house: House, case: Case) -> None:
    trial = Trial(house, case)
    made = trial.provision(0)

    def act(number: int, armed: Callable[[], None]) -> None:
        nonlocal made
        former, made = made, trial.rotate(made, number, armed)
        assert not works(house.sandbox, former)
        assert "differs" not in made["enforcement"].values()
        trial.stands(made)

    trial.kill("rotate", case.makes, act)
    trial.revoke(made)
    trial.billed()


@VENDORS
def test_revoke_converges_from_a_death_at_every_step(house: House, case: Case) -> None:
    trial = Trial(house, case)

    def act(number: int, armed: Callable[[], None]) -> None:
        made = trial.provision(number)
        assert works(house.sandbox, made)
        trial.revoke(made, armed)

    trial.kill("revoke", case.ends, act)
    trial.billed()
