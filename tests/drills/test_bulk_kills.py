"""Many developers from a CSV through the running product: command and server are killed in the middle, and each key is made once.

That the vendor's rate limit is kept through all of it stands in `tests/issued_keys/test_bulk.py`, where time is the test's.
"""

from __future__ import annotations

import csv
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.drills.figures import FULL, length, write
from tests.drills.vendors import changes
from tests.running import KEYGATE, RunningKeyGate

from keygate.sandbox import SandboxServer, Vendor

pytestmark = pytest.mark.drill
COUNT = length(25, 1_000)


def made(keygate: RunningKeyGate) -> int:
    orders = keygate.call("GET", "/bulk")["items"]
    return int(orders[0]["counts"]["made"]) if orders else 0


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + length(120, 900)
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.25 if FULL else 0.05)


@pytest.mark.timeout(3_600)
def test_a_csv_is_made_once_though_command_and_server_are_killed(tmp_path: Path, store: dict[str, str]) -> None:
    home, report = tmp_path / "home", tmp_path / "report.csv"
    home.mkdir()
    people = tmp_path / "people.csv"
    people.write_text("\n".join(["developer,budget", *(f"dev{number}@example.com,20.00" for number in range(COUNT))]) + "\n")
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path / "server", environment=store) as keygate:
        account = sandbox.state.admin[Vendor.OPENAI]
        body = {"vendor": "openai", "admin_key": account.create_credential().value}
        settings = {"base_url": sandbox.openai_base_url, "calls_per_minute": "100000", "ceiling": str(COUNT - 1)}
        keygate.call("POST", "/vendors/configure", body | {"settings": settings})
        words = [KEYGATE, "provision", "--vendor", "openai", "--csv", str(people), "--create-developers", "--report", str(report)]
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KEYGATE_URL": keygate.url, "KEYGATE_TOKEN": keygate.sign_in()}

        before = changes(account)
        refused = subprocess.run(words, env=environment, capture_output=True, timeout=120, check=False)
        assert f"{COUNT} keys need as many projects, and there is room for {COUNT - 2}" in refused.stderr.decode()
        assert changes(account) == before  # told before the first call that changes anything
        keygate.call("POST", "/vendors/configure", body | {"settings": settings | {"ceiling": str(COUNT + 1)}})

        began = time.monotonic()
        command = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: made(keygate) >= COUNT * 0.2)
        command.kill()
        command.wait()
        for share in (0.4, 0.7):
            until(lambda: made(keygate) >= COUNT * share)  # noqa: B023  (called at once)
            keygate.kill()
            keygate.start()
        done = subprocess.run(words, env=environment, capture_output=True, timeout=1_500, check=False)
        assert done.returncode == 0, done.stderr.decode()
        seconds = time.monotonic() - began

        [order] = keygate.call("GET", "/bulk")["items"]
        assert (order["state"], order["counts"]["made"]) == ("done", COUNT)
        rows = list(csv.DictReader(report.read_text().splitlines()))
        assert {row["state"] for row in rows} == {"active"}
        assert len({row["key_id"] for row in rows}) == COUNT
        with sandbox.state.admin.lock:
            standing = [entry for entry in account.shelves["projects"] if entry.body["status"] == "active"]
            projects = {entry.id for entry in standing} - {"proj_default"}
            keys = [entry for entry in account.shelves["keys"] if entry.parent in projects]
        assert (len(projects), len(keys)) == (COUNT, COUNT)
        # Every secret is still to be had, by the one who holds its link.
        token = rows[-1]["link"].rpartition("#")[2]
        assert keygate.call("POST", "/keys/deliveries", {"token": token})["key"]
    kind = "postgresql" if store else "sqlite"
    write(f"bulk-{kind}", f"{COUNT} keys in {seconds:.0f} s, through 1 kill of the command and 2 of the server; each once", keys=COUNT)
