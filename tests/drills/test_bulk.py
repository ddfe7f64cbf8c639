"""Drill: developers from a CSV at a vendor that takes 100 calls a minute and holds so many projects. The server is killed in the
middle, the same command again finishes, and what stands at the vendor is what was ordered. The vendor's clock runs faster than ours;
its limit is 100 calls in each of its minutes."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.desk import Desk
from tests.drills.figures import FULL, length, write
from tests.drills.vendors import changes
from tests.issued_keys.office import Office
from tests.running import RunningKeyGate

from keygate.cli.client import Exit
from keygate.sandbox import SandboxServer

PEOPLE = length(24, 1_000)
FASTER = 20
A_MINUTE = 100
PATIENCE = length(240, 1_500)


@contextmanager
def hurried(sandbox: SandboxServer) -> Iterator[None]:
    """The vendor's time runs FASTER times as fast."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.05):
            with sandbox.state.admin.lock:
                sandbox.state.admin.clock.advance(0.05 * (FASTER - 1))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def killed_half_way(keygate: RunningKeyGate, office: Office, gone: threading.Event) -> None:
    """Ends the server with SIGKILL once half of the keys are at the vendor."""
    while office.standing()["keys"] < PEOPLE // 2:
        if gone.wait(0.05):
            return
    keygate.kill()


@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize("store", ["sqlite", "postgresql"] if FULL else ["sqlite"], indirect=True)
def test_a_csv_is_made_whole_across_a_crash_within_the_vendors_limits(tmp_path: Path, store: dict[str, str]) -> None:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path / "server", environment=store) as keygate:
        office = Office(keygate, sandbox)
        with sandbox.state.admin.lock:
            limits = {"requests_per_minute": A_MINUTE, "ceilings": {"projects": PEOPLE + 1}}
            office.account.settings = office.account.settings.with_changes(limits)
        pace = str(A_MINUTE * FASTER * 9 // 10)
        office.configure(calls_per_minute=pace, ceiling=str(PEOPLE - 1))
        home = tmp_path / "home"
        home.mkdir()
        desk = Desk(keygate, home)
        desk.sign_in()
        people, report = home / "people.csv", home / "report.csv"
        lines = [f"dev{number}@example.com,5.00" for number in range(PEOPLE)]
        people.write_text("\n".join(["developer,budget", *lines]) + "\n")
        words = ("provision", "--vendor", "openai", "--csv", str(people), "--report", str(report), "--create-developers")

        before = changes(office.account)
        refused = desk.run(*words, seconds=PATIENCE)
        assert refused.code == Exit.NOT_VALID
        assert f"{PEOPLE} keys need as many projects, and there is room for {PEOPLE - 2}" in refused.err, "the default project counts too"
        assert changes(office.account) == before, "the ceiling is told before the first call that changes anything"

        office.configure(calls_per_minute=pace, ceiling=str(PEOPLE + 1))
        began = time.monotonic()
        with hurried(sandbox):
            gone = threading.Event()
            killer = threading.Thread(target=killed_half_way, args=(keygate, office, gone))
            killer.start()
            crashed = desk.run(*words, seconds=PATIENCE)
            gone.set()
            killer.join()
            assert crashed.code == Exit.UNREACHABLE, crashed.err[-2000:]
            keygate.start()
            done = desk.run(*words, seconds=PATIENCE)
        assert done.code == Exit.OK, done.err[-2000:]
        seconds = time.monotonic() - began

        rows = list(csv.DictReader(report.read_text().splitlines()))
        assert [row["state"] for row in rows] == ["active"] * PEOPLE
        assert len({row["key_id"] for row in rows}) == PEOPLE
        assert all(row["link"] for row in rows)
        assert office.standing() == {"projects": PEOPLE, "keys": PEOPLE}
        known = {key["at_vendor"]["key"] for key in (office.key(row["key_id"]) for row in rows[:: max(1, PEOPLE // 20)])}
        with sandbox.state.admin.lock:
            assert known <= {entry.id for entry in office.account.shelves["keys"]}
            calls = list(office.account.calls)
        got = office.call("POST", "/keys/deliveries", {"token": rows[-1]["link"].rpartition("#")[2]})
        assert office.works(got["key"])
        limited = sum(call.status == 429 for call in calls)
        line = (
            f"{PEOPLE} keys from a CSV, killed once, {A_MINUTE} calls a minute of the vendor's: {len(calls)} calls, {limited} told to wait"
        )
        kind = "postgresql" if store else "sqlite"
        write(f"bulk_limited-{kind}", f"{line} ({kind}), whole after {seconds:.0f} s", seconds=seconds, calls=len(calls), limited=limited)
