"""`keygate serve --sandbox`, killed and started again: the vendor is where it was, with everything that was made there."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.running import RunningKeyGate, free_port

CHAT = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def keygate(tmp_path: Path) -> Iterator[RunningKeyGate]:
    with RunningKeyGate(tmp_path, sandbox=True) as running:
        yield running


def address(keygate: RunningKeyGate) -> str:
    """Where its log said last that the sandbox stands."""
    said = [line for line in keygate.log.read_text().splitlines() if line.startswith("Sandbox vendor on ")]
    return said[-1].split()[3]


def configured(keygate: RunningKeyGate) -> dict[str, Any]:
    """An account at the sandbox's OpenAI, entered as the sandbox itself says."""
    made = httpx.post(f"{address(keygate)}/_sandbox/admin/openai/credentials", json={}, timeout=10).raise_for_status().json()
    return keygate.call("POST", "/vendors/configure", made["configure"])  # type: ignore[no-any-return]  # JSON


def provisioned(keygate: RunningKeyGate, **terms: Any) -> dict[str, Any]:
    dev = keygate.call("POST", "/developers", {"name": "priya", "email": "priya@example.com"})
    return keygate.call("POST", "/keys/provision", {"developer_id": dev["id"], "vendor": "openai", **terms})  # type: ignore[no-any-return]  # JSON


def answers(keygate: RunningKeyGate, key: str) -> int:
    """What the vendor itself answers to the key."""
    url = f"{address(keygate)}/openai/v1/chat/completions"
    return httpx.post(url, json=CHAT, headers={"authorization": f"Bearer {key}"}, timeout=10).status_code


def through(keygate: RunningKeyGate, key: str) -> int:
    url = f"{keygate.url}/openai/v1/chat/completions"
    return httpx.post(url, json=CHAT, headers={"authorization": f"Bearer {key}"}, timeout=10).status_code


def test_an_issued_key_works_after_a_kill_and_is_refused_once_revoked(keygate: RunningKeyGate) -> None:
    configured(keygate)
    made = provisioned(keygate, budget_usd="5.00", rate_limit_rpm=60, models=["gpt-4.1-mini"])
    virtual = keygate.key()["key"]
    assert (answers(keygate, made["key"]), through(keygate, virtual)) == (200, 200)
    stood = address(keygate)
    keygate.kill()
    keygate.start()
    assert address(keygate) == stood
    assert (answers(keygate, made["key"]), through(keygate, virtual)) == (200, 200)
    read = keygate.call("POST", f"/keys/{made['id']}/check")
    assert set(read["enforcement"].values()) == {"confirmed"}, "the limits at the vendor are those that were set"
    assert keygate.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert answers(keygate, made["key"]) == 401
    keygate.kill()
    keygate.start()
    assert answers(keygate, made["key"]) == 401
    file = keygate.data_dir / "sandbox.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_start_changes_nothing_where_nothing_has_moved(keygate: RunningKeyGate) -> None:
    before = keygate.call("GET", "/credentials")["items"]
    entries = len(keygate.call("GET", "/audit", limit=200)["items"])
    keygate.stop()
    keygate.start()
    assert keygate.call("GET", "/credentials")["items"] == before
    signing_in = 1
    assert len(keygate.call("GET", "/audit", limit=200)["items"]) <= entries + signing_in


def test_where_the_address_is_taken_the_sandbox_moves_and_its_accounts_follow(keygate: RunningKeyGate) -> None:
    account = configured(keygate)
    made = provisioned(keygate)
    virtual = keygate.key()["key"]
    stood = address(keygate)
    keygate.kill()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(stood.rpartition(":")[2])))
        other.listen()
        keygate.start()
        assert address(keygate) != stood
        assert through(keygate, virtual) == 200
        [moved] = [each for each in keygate.call("GET", "/vendors/accounts")["items"] if each["id"] == account["id"]]
        assert moved["settings"]["base_url"] == f"{address(keygate)}/openai/v1"
        assert keygate.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
        assert answers(keygate, made["key"]) == 401


def test_a_port_of_the_operators_own_is_taken_or_the_start_refused(tmp_path: Path) -> None:
    port = free_port()
    environment = {"KEYGATE_SANDBOX_PORT": str(port)}
    with RunningKeyGate(tmp_path / "one", sandbox=True, environment=environment) as keygate:
        assert address(keygate) == f"http://127.0.0.1:{port}"
        other = RunningKeyGate(tmp_path / "two", sandbox=True, environment=environment)
        with pytest.raises(AssertionError, match=f"KEYGATE_SANDBOX_PORT {port} can't be used"):
            other.start()


def test_without_the_sandbox_nothing_of_it_is_loaded_or_written(tmp_path: Path) -> None:
    with RunningKeyGate(tmp_path) as keygate:
        assert not list(keygate.data_dir.glob("sandbox.db*"))
    code = "import sys, keygate.processes.serve; print(any(name.startswith('keygate.sandbox') for name in sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "False"
