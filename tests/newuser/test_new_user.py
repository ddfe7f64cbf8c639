"""What somebody sees who starts KeyGate for the first time: `keygate serve --sandbox` in an empty folder, as a process of its own."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.running import KEYGATE, RunningKeyGate, free_port


class NewUser(RunningKeyGate):
    """No settings but a port: owner and password are KeyGate's to make."""

    def __init__(self, folder: Path, *, sandbox: bool = True, environment: dict[str, str] | None = None) -> None:
        super().__init__(folder, sandbox=sandbox, environment=environment)
        for name in ("KEYGATE_ADMIN_EMAIL", "KEYGATE_ADMIN_PASSWORD", "KEYGATE_DATA_DIR"):
            if name not in (environment or {}):
                del self._environment[name]
        self.data_dir = folder / ".keygate"

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def curl(self) -> str:
        lines = [line for line in self.printed.splitlines() if line.startswith("curl ")]
        assert len(lines) == 1, f"one line begins with curl:\n{self.printed}"
        return lines[0]

    def shown(self, label: str) -> str:
        found = re.findall(rf"^  {label}\s+(\S+)$", self.printed, re.MULTILINE)
        assert len(found) == 1, f"{label!r} is shown once:\n{self.printed}"
        return str(found[0])


@pytest.fixture
def new_user(tmp_path: Path) -> Iterator[NewUser]:
    with NewUser(tmp_path) as keygate:
        yield keygate


def bash(line: str) -> dict[str, Any]:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True, env={"PATH": os.environ["PATH"]})
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refused(folder: Path, **environment: str) -> tuple[int, str]:
    """Exit code and everything printed by a start that must not happen."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"PATH": os.environ["PATH"], "HOME": str(folder), "KEYGATE_PORT": str(free_port()), **environment}
    done = subprocess.run([KEYGATE, "serve"], env=whole, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode != 0, printed
    assert "Traceback" not in printed, printed
    return done.returncode, printed


def test_first_start_prints_a_login_once_and_a_curl_that_works_as_printed(new_user: NewUser) -> None:
    answer = bash(new_user.curl)
    assert answer["choices"][0]["message"]["content"]
    login = {"email": new_user.shown("sign in as"), "password": new_user.shown("password")}
    assert httpx.post(f"{new_user.url}/api/v1/auth/login", json=login).status_code == 200
    for name in ("keygate.db", "master.key", "audit-heads.jsonl", "journal"):
        assert (new_user.data_dir / name).stat().st_mode & 0o077 == 0, f"{name} can be read by others"
    assert (new_user.data_dir.stat().st_mode & 0o777) == 0o700


def test_second_start_prints_neither_and_keeps_everything(new_user: NewUser) -> None:
    curl, email, password = new_user.curl, new_user.shown("sign in as"), new_user.shown("password")
    bash(curl)
    new_user.EMAIL, new_user.password = email, password
    team = new_user.call("POST", "/teams", {"name": "research"})
    key = new_user.call("GET", "/virtual-keys")["items"][0]
    spent = new_user.usage(key["id"])
    assert spent["requests"] == 1
    new_user.stop()
    first = new_user.printed
    exported = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY"), new_user.shown("virtual key"))  # as the README's tour has it
    new_user._environment |= exported
    new_user.start()
    second = new_user.printed.removeprefix(first)
    assert all(f"{name} holds a token of KeyGate's own" in second for name in exported)
    assert "Not to the sandbox" not in second
    assert "curl" not in second
    assert "password" not in second
    assert f"listens on {new_user.url}" in second
    assert [each["id"] for each in new_user.call("GET", "/teams")["items"]] == [team["id"]]
    assert new_user.usage(key["id"])["spent_usd"] == spent["spent_usd"]
    assert bash(curl)["choices"]
    assert new_user.usage(key["id"])["requests"] == 2


def test_ctrl_c_finishes_requests_in_flight_and_ends_within_five_seconds(new_user: NewUser) -> None:
    sandbox = re.findall(r"^Sandbox vendor on (\S+)", new_user.printed, re.MULTILINE)[0]
    httpx.put(f"{sandbox}/_sandbox/behaviour", json={"latency_ms": 1500}).raise_for_status()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        plain = threads.submit(bash, new_user.curl)
        streamed = threads.submit(
            subprocess.run, ["bash", "-c", new_user.curl.replace('{"model"', '{"stream":true,"model"')], capture_output=True, timeout=30
        )
        until = time.monotonic() + 10
        while httpx.get(f"{sandbox}/_sandbox/served").json()["seen"] < 2:
            assert time.monotonic() < until, "both requests are in flight"
            time.sleep(0.02)
        seconds = new_user.stop()
        assert plain.result()["choices"][0]["finish_reason"] == "stop"
        assert streamed.result().stdout.rstrip().endswith(b"data: [DONE]")
    assert seconds < 5, f"ended after {seconds:.1f} s"
    new_user.start()
    assert "in doubt" not in new_user.printed


def test_ctrl_c_ends_within_five_seconds_also_when_a_stream_goes_on_for_ever(new_user: NewUser) -> None:
    endless = new_user.curl.replace('{"model"', '{"stream":true,"model"').replace("Say hello.", "sandbox(chunk_ms=3000 chunks=100) hi")
    with subprocess.Popen(["bash", "-c", f"exec {endless} -sN"], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline()
        seconds = new_user.stop()
    assert seconds < 5, f"ended after {seconds:.1f} s"
    assert caller.returncode == 18, "the caller sees that the answer was cut off"
    new_user.start()
    assert "in doubt" not in new_user.printed, "what was produced until then is charged"


@pytest.mark.parametrize("second", [None, signal.SIGINT])
def test_sigterm_stops_in_order_and_ctrl_c_on_top_of_it_at_once(new_user: NewUser, second: signal.Signals | None) -> None:
    endless = new_user.curl.replace('{"model"', '{"stream":true,"model"').replace("Say hello.", "sandbox(chunk_ms=3000 chunks=100) hi")
    with subprocess.Popen(["bash", "-c", f"exec {endless} -sN"], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline()
        assert new_user.process is not None
        began = time.monotonic()
        new_user.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        if second is not None:
            new_user.process.send_signal(second)
            time.sleep(0.1)
        assert new_user.process.wait(10) == 0, new_user.printed
        seconds = time.monotonic() - began
        new_user.process = None
    assert seconds < (5 if second is None else 2), f"ended after {seconds:.1f} s"
    with closing(sqlite3.connect(new_user.data_dir / "keygate.db")) as books:
        assert not books.execute("SELECT * FROM budget_slices").fetchall(), "the budgets are given back, so that another machine can start"
        assert books.execute("SELECT outcome FROM ledger_entries").fetchall() == [("upstream_lost",)], "the journal is folded"
    new_user.start()
    assert "in doubt" not in new_user.printed, "nothing is left open"


def test_a_missing_or_wrong_master_key_refuses_the_start_with_the_remedy(new_user: NewUser) -> None:
    new_user.stop()
    key = new_user.data_dir / "master.key"
    right = key.read_text()
    key.unlink()
    _, printed = refused(new_user.folder)
    assert "master.key is missing. Restore it from a backup, or set KEYGATE_MASTER_KEY" in printed
    assert not key.exists(), "a new key would hide that the old one is lost"
    _, printed = refused(new_user.folder, KEYGATE_MASTER_KEY="another-master-key-0123456789")
    assert "KEYGATE_MASTER_KEY is not the one that this database was encrypted with" in printed
    assert "another-master-key" not in printed
    key.write_text(right)
    key.chmod(0o644)
    _, printed = refused(new_user.folder)
    assert f"chmod 600 {key}" in printed
    key.chmod(0o600)
    new_user.start()


def test_a_data_directory_serves_its_own_database_only(new_user: NewUser, tmp_path: Path) -> None:
    """Another database would get this one's journal into its ledger, and its audit log would not fit the heads that are kept here."""
    new_user.stop()
    journal = sorted((file.name, file.stat().st_size) for file in (new_user.data_dir / "journal").iterdir())
    heads = (new_user.data_dir / "audit-heads.jsonl").read_text()
    _, printed = refused(new_user.folder, KEYGATE_DATABASE_URL=f"sqlite:///{tmp_path}/other.db")
    assert "belongs to another database" in printed
    assert "KEYGATE_DATA_DIR of its own" in printed
    with NewUser(tmp_path / "other") as other:
        other.stop()
        _, printed = refused(
            new_user.folder,
            KEYGATE_DATABASE_URL=f"sqlite:///{other.data_dir}/keygate.db",
            KEYGATE_MASTER_KEY_FILE=str(other.data_dir / "master.key"),
        )
        assert "belongs to another database" in printed
    assert (new_user.data_dir / "audit-heads.jsonl").read_text() == heads
    assert sorted((file.name, file.stat().st_size) for file in (new_user.data_dir / "journal").iterdir()) == journal
    new_user.start()
    assert bash(new_user.curl)["choices"]


def test_a_database_file_that_is_none_refuses_the_start_with_the_remedy(new_user: NewUser) -> None:
    new_user.stop()
    file = new_user.data_dir / "keygate.db"
    whole = file.read_bytes()
    for content in (b"not a database" * 1_000, whole[: len(whole) // 2]):
        file.write_bytes(content)
        _, printed = refused(new_user.folder)
        assert f"the file {file} can't be used" in printed
        assert "restore it from a backup" in printed
    file.write_bytes(whole)
    new_user.start()
    assert bash(new_user.curl)["choices"]


def test_a_lost_heads_file_is_said_at_the_start(new_user: NewUser) -> None:
    new_user.stop()
    (new_user.data_dir / "audit-heads.jsonl").unlink()
    new_user.start()
    assert "the heads file lacks the entries 1 to " in new_user.printed
    new_user.EMAIL, new_user.password = new_user.shown("sign in as"), new_user.shown("password")
    assert new_user.call("GET", "/audit", action="audit.heads_lost")["items"]
    assert new_user.call("GET", "/audit/verify")["fault"]["kind"] == "heads_lost"


def test_a_second_process_on_the_same_data_directory_or_port_is_refused(new_user: NewUser, tmp_path: Path) -> None:
    _, printed = refused(new_user.folder)
    assert "another KeyGate process serves from" in printed
    _, printed = refused(tmp_path / "other", KEYGATE_PORT=str(new_user.port))
    assert f"port {new_user.port} on 127.0.0.1 is in use" in printed
    assert "KEYGATE_PORT" in printed
    assert bash(new_user.curl)["choices"]


def test_a_data_directory_that_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, printed = refused(tmp_path, KEYGATE_DATA_DIR=str(tmp_path / "file" / "data"))
    assert "KEYGATE_DATA_DIR" in printed
    assert "name a directory that this user may write" in printed


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("KEYGATE_PORT", "eighty", "integer"),
        ("KEYGATE_PORT", "70000", "less than or equal to 65535"),
        ("KEYGATE_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("KEYGATE_PUBLIC_URL", "keys", "https://keys.example.com"),
        ("KEYGATE_ADMIN_EMAIL", "me", "owner@example.com"),
        ("KEYGATE_TRUSTED_PROXIES", "*", "addresses and networks"),
        ("KEYGATE_ADMIN_PASSWORD", "short-one", "between 12 and 200 characters"),
        ("KEYGATE_MASTER_KEY", "short", "openssl rand -base64 32"),
        ("KEYGATE_DATABASE_URL", "mysql://localhost/keygate", "postgresql://"),
        ("KEYGATE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/keygate", "is its server up"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(tmp_path: Path, name: str, value: str, remedy: str) -> None:
    _, printed = refused(tmp_path, **{name: value})
    assert name in printed
    assert remedy in printed
    assert "short-one" not in printed


def test_settings_are_read_from_a_file_named_env(tmp_path: Path) -> None:
    port = free_port()
    with NewUser(tmp_path) as keygate:
        keygate.stop()
        del keygate._environment["KEYGATE_PORT"]
        (tmp_path / ".env").write_text(f"KEYGATE_PORT={port}\n")
        keygate.url = f"http://127.0.0.1:{port}"
        keygate.start()
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_a_misspelt_setting_is_said(tmp_path: Path) -> None:
    with NewUser(tmp_path, environment={"KEYGATE_PROT": "1"}) as keygate:
        assert "KEYGATE_PROT is not a setting of KeyGate" in keygate.printed


def test_a_vendor_key_in_the_environment_becomes_a_credential(tmp_path: Path) -> None:
    secret = "sk-from-the-environment-0123456789"
    with NewUser(tmp_path, sandbox=False, environment={"OPENAI_API_KEY": secret}) as keygate:
        keygate.EMAIL, keygate.password = keygate.shown("sign in as"), keygate.shown("password")
        assert [each["vendor"] for each in keygate.call("GET", "/credentials")["items"]] == ["openai"]
        assert keygate.curl, "a working gateway: there is a key to try at once"
        keygate.stop()
        keygate.start()
        assert len(keygate.call("GET", "/credentials")["items"]) == 1
        assert secret not in keygate.printed


def test_without_credentials_the_first_start_says_what_comes_next(tmp_path: Path) -> None:
    with NewUser(tmp_path, sandbox=False) as keygate:
        assert "keygate credentials add openai" in keygate.printed
        assert "curl" not in keygate.printed


def test_a_vendor_key_of_ones_own_takes_the_sandboxs_place_at_the_next_start(new_user: NewUser) -> None:
    new_user.EMAIL, new_user.password = new_user.shown("sign in as"), new_user.shown("password")
    new_user.credential("openai", "http://127.0.0.1:9/v1", "sk-of-ones-own-0123456789")
    new_user.stop()
    new_user.start()
    found = {(each["vendor"], each["name"]): each["status"] for each in new_user.call("GET", "/credentials")["items"]}
    assert found["openai", "sandbox"] == "disabled"
    assert found["anthropic", "sandbox"] == "enabled"
    assert "Not to the sandbox: calls to openai go to http://127.0.0.1:9/v1 with the credential " in new_user.printed
    assert "calls to anthropic go to" not in new_user.printed
