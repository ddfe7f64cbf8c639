"""Drill: the running product rotates keys by itself, by schedule and by policy; at full length on both databases. An app that calls its
vendor all the time never sees a failed call, whether its owner takes over the new secret or nobody does."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.drills.figures import FULL, write
from tests.issued_keys.office import MODEL, ApiError, Office
from tests.running import RunningKeyGate

from keygate.sandbox import SandboxServer

pytestmark = pytest.mark.parametrize("store", ["sqlite", "postgresql"] if FULL else ["sqlite"], indirect=True)

DAY = 86_400
_AGE = "UPDATE issued_keys SET made_at_ns = made_at_ns - {age}, version = version + 1 WHERE id = '{key}'"


class Bureau(Office):
    """An office whose keys can be made older, and whose developers sign in."""

    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer, store: dict[str, str]) -> None:
        super().__init__(keygate, sandbox)
        self._url = store.get("KEYGATE_DATABASE_URL")
        self._clients: list[httpx.Client] = []

    def age(self, key_id: str, days: int) -> None:
        """Time that tests can't wait for: the key's row says that it was made so many days earlier."""
        statement = _AGE.format(age=days * DAY * 10**9, key=key_id)
        if self._url is None:
            connection = sqlite3.connect(next(self.keygate.data_dir.glob("*.db")), timeout=10)
            with connection:
                connection.execute(statement)
            connection.close()
            return
        with ThreadPoolExecutor(1) as thread:  # a loop of its own, whatever the test's loop is doing
            thread.submit(asyncio.run, _execute(self._url, statement)).result(30)

    def holder(self, name: str) -> tuple[str, httpx.Client]:
        """A developer and their own sign-in."""
        developer = self.developer(name)
        password = f"pw-{name}-long-enough"
        body = {"email": f"{name}@example.com", "password": password}
        self.call("POST", "/users", {**body, "name": name, "role": "developer", "developer_id": developer})
        client = httpx.Client(base_url=f"{self.keygate.url}/api/v1", timeout=30)
        self._clients.append(client)
        client.headers["authorization"] = f"Bearer {client.post('/auth/login', json=body).json()['access_token']}"
        return developer, client

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def rotated(self, key_id: str, generation: int = 2) -> dict[str, Any]:
        return self.until(
            key_id, lambda key: key["state"] == "rotating" and key["former"]["works_until"] is not None and key["generation"] == generation
        )


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def bureau(tmp_path: Path, store: dict[str, str], sandbox: SandboxServer) -> Iterator[Bureau]:
    with RunningKeyGate(tmp_path, environment=store) as keygate:
        made = Bureau(keygate, sandbox, store)
        made.configure()
        yield made
        made.close()


@contextmanager
def app(office: Office, current: Callable[[], str]) -> Iterator[list[bool]]:
    """Calls the vendor with `current()` again and again; yields what became of each call."""
    calls: list[bool] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            key = current()
            calls.append(office.works(key) or key != current())
            time.sleep(0.05)

    caller = threading.Thread(target=work)
    caller.start()
    try:
        yield calls
    finally:
        done.set()
        caller.join()


def test_app_never_sees_a_failed_call_while_its_key_is_rotated_by_schedule(bureau: Bureau) -> None:
    developer, holder = bureau.holder("priya")
    made = bureau.provision(developer_id=developer, rate_limit_rpm=10_000, rotate_every_days=30, rotate_overlap_seconds=2, models=[MODEL])
    assert made["rotation"]["cause"] == "schedule"
    assert made["rotation"]["next_at"] > made["made_at"]
    current = [made["key"]]
    with app(bureau, lambda: current[0]) as calls:
        bureau.age(made["id"], 31)
        turned = bureau.rotated(made["id"])
        assert (turned["former"]["cause"], turned["former"]["waits_for"], turned["secret"]) == ("schedule", "handover", "waiting")
        assert set(turned["enforcement"].values()) == {"confirmed"}
        assert (turned["rate_limit_rpm"], turned["models"]) == (10_000, [MODEL])
        time.sleep(4)  # the overlap is over, and nobody has fetched the new secret
        assert bureau.key(made["id"])["state"] == "rotating"
        with pytest.raises(ApiError, match="open already"):
            bureau.call("POST", f"/keys/{made['id']}/rotate")
        assert holder.get("/events").status_code == 403
        assert holder.get("/keys").json()["items"][0]["secret"] == "waiting"
        told = holder.post(f"/keys/{made['id']}/collect")
        assert told.status_code == 200, told.text
        current[0] = told.json()["key"]
        with pytest.raises(ApiError, match="No secret of this key waits"):
            bureau.call("POST", f"/keys/{made['id']}/collect")
        quiet = bureau.until(made["id"], lambda key: (key["former"] or {}).get("waits_for") == "quiet")
        assert quiet["former"]["last_used_at"] is not None, "used a moment ago: it is not cut without proof"
        assert bureau.works(made["key"])
        done = bureau.call("POST", f"/keys/{made['id']}/cut")
    assert all(calls)
    assert len(calls) > 20
    assert done["state"] == "active"
    assert not bureau.works(made["key"])
    assert bureau.works(current[0])
    [begun] = [
        entry
        for entry in bureau.call("GET", f"/audit?target={made['id']}")["items"]
        if (entry["action"], entry["outcome"]) == ("issued_key.rotate", "done")
    ]
    assert (begun["actor"]["kind"], begun["actor"]["id"]) == ("system", "schedule")
    events = bureau.call("GET", "/events", type="issued_key.secret_waits")["items"]
    assert events[-1]["payload"]["owner"] == developer
    assert current[0] not in json.dumps([events, bureau.call("GET", "/audit?limit=500"), bureau.call("GET", "/keys")])
    write("rotation", f"rotated by schedule under {len(calls)} calls of its app: none failed", calls=len(calls))


def test_former_key_is_watched_for_a_quiet_day_after_the_handover_and_cut_when_told(bureau: Bureau) -> None:
    developer, holder = bureau.holder("quinn")
    made = bureau.provision(developer_id=developer, rotate_every_days=1, rotate_overlap_seconds=1)
    bureau.age(made["id"], 400)
    bureau.rotated(made["id"])
    fresh = holder.post(f"/keys/{made['id']}/collect").json()["key"]
    waiting = bureau.until(made["id"], lambda key: key["former"]["waits_for"] == "quiet")
    assert waiting["state"] == "rotating"
    assert bureau.works(made["key"])
    assert bureau.works(fresh)
    bureau.call("POST", f"/keys/{made['id']}/cut")
    done = bureau.until(made["id"], lambda key: key["state"] == "active")
    assert (done["generation"], done["former"], done["error"]) == (2, None, None)
    assert done["rotation"]["next_at"] > done["made_at"], "four hundred days, one rotation"
    assert not bureau.works(made["key"])
    assert bureau.works(fresh)


def test_policy_rotates_what_is_too_old_and_is_there_for_admins_only(bureau: Bureau) -> None:
    developer, holder = bureau.holder("ravi")
    made = bureau.provision(developer_id=developer)
    young = bureau.provision(developer_id=developer)
    bureau.age(made["id"], 100)
    checked = bureau.call("POST", "/rotation-policies/check", {"max_age_days": 90})
    assert checked == {"keys": 2, "due": 1, "too_old": 1, "by_person": 0}
    policy = bureau.call("POST", "/rotation-policies", {"max_age_days": 90})
    assert holder.get("/rotation-policies").status_code == 403
    assert holder.post("/rotation-policies", json={"max_age_days": 1}).status_code == 403
    turned = bureau.rotated(made["id"])
    assert (turned["former"]["cause"], turned["former"]["policy_id"], turned["rotation"]["overdue"]) == ("policy", policy["id"], True)
    assert bureau.key(young["id"])["rotation"]["policy_id"] == policy["id"]
    assert bureau.key(young["id"])["state"] == "active"
    bureau.keygate.kill()  # in the middle of a rotation that waits
    bureau.keygate.start()
    assert bureau.works(made["key"])
    assert holder.post(f"/keys/{made['id']}/collect").status_code == 200
    assert bureau.call("GET", f"/rotation-policies/{policy['id']}")["coverage"]["keys"] == 2
    bureau.call("DELETE", f"/rotation-policies/{policy['id']}")
    assert bureau.key(young["id"])["rotation"]["next_at"] is None
