"""What the sandbox keeps in its file: it is there before the caller has its answer, and works again in the next process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.running import KEYGATE, free_port
from tests.sandbox.keeping import differences

from keygate.sandbox import Behaviour, FaultPlan, SandboxServer, SandboxState, StateRefusedError, Store, Vendor

CHAT = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]}


def _project_key(address: str, admin: str) -> tuple[str, str]:
    """A project and the value of a key in it."""
    url, headers = f"{address}/openai/v1/organization/projects", {"authorization": f"Bearer {admin}"}
    with httpx.Client(headers=headers, timeout=10) as client:
        project = client.post(url, json={"name": "one"}).raise_for_status().json()["id"]
        made = client.post(f"{url}/{project}/service_accounts", json={"name": "one"}).raise_for_status().json()
        return project, made["api_key"]["value"]


def _status(address: str, key: str) -> int:
    url = f"{address}/openai/v1/chat/completions"
    return httpx.post(url, json=CHAT, headers={"authorization": f"Bearer {key}"}, timeout=10).status_code


@contextmanager
def _process(folder: Path, port: int, *more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`keygate sandbox`, and what it printed."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    command = [KEYGATE, "sandbox", "--port", str(port), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder) as process:
        assert process.stdout is not None
        said: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.removeprefix("export ").strip().partition("=")
            said[name] = value
            if name == "XAI_MANAGEMENT_KEY":
                break
        try:
            yield process, said
        finally:
            process.kill()


def test_what_was_answered_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    file, port = tmp_path / "vendor.db", free_port()
    address = f"http://127.0.0.1:{port}"
    with _process(tmp_path, port, "--state", str(file)) as (process, said):
        project, key = _project_key(address, said["OPENAI_ADMIN_KEY"])
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in tmp_path.glob("vendor.db*"))
    with _process(tmp_path, port, "--state", str(file)) as (_, again):
        assert again == said
        assert _status(address, key) == 200
        admin = {"authorization": f"Bearer {said['OPENAI_ADMIN_KEY']}"}
        url = f"{address}/openai/v1/organization/projects/{project}/archive"
        assert httpx.post(url, headers=admin, timeout=10).json()["status"] == "archived"
        assert _status(address, key) == 401


def test_without_a_file_the_next_process_begins_afresh(tmp_path: Path) -> None:
    port = free_port()
    with _process(tmp_path, port) as (_, said):
        pass
    with _process(tmp_path, port) as (_, again):
        assert again["OPENAI_ADMIN_KEY"] != said["OPENAI_ADMIN_KEY"]
        assert _status(f"http://127.0.0.1:{port}", said["OPENAI_API_KEY"]) == 401


@pytest.fixture
def restart(tmp_path: Path) -> Iterator[Callable[[], SandboxServer]]:
    """The sandbox, anew from its file; nothing is written at its end that a kill would not have left."""
    running: list[tuple[SandboxServer, Store]] = []

    def end() -> None:
        for server, store in running:
            server.stop()
            store.close()
        running.clear()

    def again() -> SandboxServer:
        end()
        store = Store(tmp_path / "sandbox.db")
        running.append((SandboxServer(store=store).start(), store))
        return running[-1][0]

    yield again
    end()


def test_use_is_in_the_books_and_on_the_key_after_a_restart(restart: Callable[[], SandboxServer]) -> None:
    sandbox = restart()
    admin = sandbox.state.admin[Vendor.OPENAI].own_credential().value
    sandbox.state.keep()
    _, key = _project_key(sandbox.address, admin)
    assert [_status(sandbox.address, key) for _ in range(3)] == [200] * 3
    before = sandbox.state
    after = restart().state
    assert after.admin[Vendor.OPENAI].books.total_usd() == before.admin[Vendor.OPENAI].books.total_usd() > 0
    assert after.keys[key].grant.last_used_ns.last() == before.keys[key].grant.last_used_ns.last() is not None  # type: ignore[union-attr]  # has a grant
    assert differences(before, after) == []


def test_settings_faults_plans_and_the_clock_are_kept(restart: Callable[[], SandboxServer]) -> None:
    sandbox = restart()
    key = sandbox.state.own_key(Vendor.OPENAI).value
    with httpx.Client(base_url=f"{sandbox.address}/_sandbox") as control:
        control.patch("/admin/openai", json={"lists_s": 7, "ceilings": {"projects": 5}}).raise_for_status()
        control.post("/admin/openai/faults", json={"operation": "projects.create", "calls": 2}).raise_for_status()
        control.post("/admin/clock", json={"advance_seconds": 3600}).raise_for_status()
        control.post(f"/keys/{key}/faults", json={"behaviour": {"fault": "status", "status": 503}, "calls": 2}).raise_for_status()
        control.put("/behaviour", json={"output_tokens": 5}).raise_for_status()
        control.post("/models", json={"name": "gpt-of-mine", "vendor": "openai"}).raise_for_status()
    assert _status(sandbox.address, key) == 503
    admin = sandbox.state.admin[Vendor.OPENAI].own_credential().value
    url, headers = f"{sandbox.address}/openai/v1/organization/projects", {"authorization": f"Bearer {admin}"}
    sandbox.state.keep()
    assert httpx.post(url, json={"name": "x"}, headers=headers).status_code == 500
    after = restart()
    account = after.state.admin[Vendor.OPENAI]
    assert (account.settings.lists_s, account.settings.ceilings["projects"]) == (7, 5)
    assert [fault.calls for fault in account.faults] == [1]
    assert after.state.admin.clock.ahead_ns == 3600 * 10**9
    assert after.state.behaviour == Behaviour(output_tokens=5)
    assert "gpt-of-mine" in after.state.models
    assert [_status(after.address, key) for _ in range(2)] == [503, 200]


def test_what_was_deleted_stays_deleted(restart: Callable[[], SandboxServer]) -> None:
    sandbox = restart()
    with httpx.Client(base_url=f"{sandbox.address}/_sandbox/admin/xai") as control:
        made = control.post("/credentials", json={}).json()["value"]
        control.request("DELETE", "/credentials", json={"value": made}).raise_for_status()
    assert made not in restart().state.admin[Vendor.XAI].credentials


def test_a_file_serves_one_process_and_no_foreign_file_is_touched(tmp_path: Path) -> None:
    first = Store(tmp_path / "one.db")
    with pytest.raises(StateRefusedError, match="another sandbox"):
        Store(tmp_path / "one.db")
    first.close()
    (tmp_path / "other").write_text("my notes, which are no database at all, and long enough to be sure of it " * 20)
    with pytest.raises(StateRefusedError, match="no sandbox's state"):
        Store(tmp_path / "other")
    assert (tmp_path / "other").read_text().startswith("my notes")


def test_a_state_that_can_not_be_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path / "one.db")
    SandboxState(store=store)
    store.write([("openai:account", [("settings", b'{"lists_s": "late"}')], False)])
    store.close()
    again = Store(tmp_path / "one.db")
    with pytest.raises(StateRefusedError, match="delete it to begin afresh"):
        SandboxState(store=again)
    again.close()


def test_a_plan_of_faults_goes_on_counting(tmp_path: Path) -> None:
    store = Store(tmp_path / "one.db")
    state = SandboxState(store=store)
    key = state.own_key(Vendor.OPENAI)
    state.plan_fault(key.value, FaultPlan({"latency_ms": 1}, calls=3))
    state.behaviour_of(key)
    state.keep()
    store.close()
    again = Store(tmp_path / "one.db")
    assert [plan.calls for plan in SandboxState(store=again).keys[key.value].plans] == [2]
    again.close()
