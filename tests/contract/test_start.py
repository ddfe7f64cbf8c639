"""Starting KeyGate: the first start's words, settings and their other names, secrets that are made and never assumed."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.contract.house import CHAT
from tests.contract.recorder import Recorder
from tests.running import KEYGATE, RunningKeyGate


def _chat(keygate: RunningKeyGate, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{keygate.url}/openai/v1/chat/completions", json=CHAT, headers=headers, timeout=30).status_code


def test_the_first_start_prints_a_login_and_a_curl_that_works_once(tmp_path: Path) -> None:
    keygate = RunningKeyGate(tmp_path, sandbox=True, environment={"KEYGATE_ADMIN_EMAIL": "", "KEYGATE_ADMIN_PASSWORD": ""})
    with keygate:
        said = keygate.log.read_text()
        curl = next(line for line in said.splitlines() if line.startswith("curl"))
        answer = subprocess.run(shlex.split(curl), capture_output=True, text=True, timeout=30, check=True)
        assert '"choices"' in answer.stdout
        email = re.search(r"sign in as\s+(\S+)", said)
        password = re.search(r"password\s+(\S+)", said)
        assert email is not None
        assert password is not None
        keygate.EMAIL, keygate.password = email[1], password[1]
        assert keygate.sign_in()
        key = re.search(r"sk-kg-[0-9A-Za-z]+", curl)
        assert key is not None
        assert said.count(password[1]) == 1
        keygate.stop()
        keygate.log.unlink()
        keygate.start()
        again = keygate.log.read_text()
        assert password[1] not in again
        assert "curl" not in again
        assert keygate.sign_in()
        assert _chat(keygate, key[0]) == 200
    assert stat.S_IMODE(keygate.data_dir.stat().st_mode) == 0o700
    [master] = [path for path in keygate.data_dir.rglob("*") if "master" in path.name]
    assert stat.S_IMODE(master.stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def environed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningKeyGate, Path]]:
    """Started with nothing but other names: aliases of our settings, and vendors' own names for their keys."""
    folder = tmp_path_factory.mktemp("environed")
    database = folder / "elsewhere.db"
    environment = {
        "KEYGATE_ADMIN_EMAIL": "",
        "KEYGATE_ADMIN_PASSWORD": "",
        "ADMIN_EMAIL": "other@example.com",
        "ADMIN_PASSWORD": "an-other-password",
        "DATABASE_URL": f"sqlite:///{database}",
        "SECRET_KEY": "a-secret-of-the-operators-own-choice-4715",
        "OPENAI_API_KEY": "sk-vendor-from-the-environment",
        "ANTHROPIC_API_KEY": "sk-ant-from-the-environment",
        "OPENAI_ADMIN_KEY": "sk-admin-not-used-yet",
        "AZURE_SUBSCRIPTION_ID": "x",
        "GCP_PROJECT_ID": "y",
    }
    with RunningKeyGate(folder, environment=environment) as keygate:
        keygate.EMAIL, keygate.password = "other@example.com", "an-other-password"
        yield keygate, database


def test_settings_are_taken_under_their_other_names(environed: tuple[RunningKeyGate, Path]) -> None:
    keygate, database = environed
    assert keygate.call("GET", "/auth/me")["email"] == "other@example.com"
    assert database.exists()
    assert "4715" not in keygate.log.read_text()
    assert not [path for path in keygate.data_dir.rglob("*") if "master" in path.name]


def test_vendor_keys_in_the_environment_make_a_working_gateway(environed: tuple[RunningKeyGate, Path]) -> None:
    keygate, _ = environed
    credentials = {one["vendor"]: one for one in keygate.call("GET", "/credentials")["items"]}
    assert set(credentials) == {"openai", "anthropic"}
    assert credentials["openai"]["hint"].endswith("ment")
    assert credentials["openai"]["base_url"] == "https://api.openai.com/v1"
    assert "from-the-environment" not in keygate.log.read_text()
    key = keygate.key("first")["key"]
    with Recorder() as vendor:
        body = {"base_url": f"{vendor.address}/v1", "secret": "sk-vendor-from-the-environment"}
        keygate.call("PATCH", f"/credentials/{credentials['openai']['id']}", body)
        assert _chat(keygate, key) == 200
    keygate.stop()
    keygate.start()
    assert len(keygate.call("GET", "/credentials")["items"]) == 2


def test_a_start_without_the_right_master_key_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with RunningKeyGate(tmp_path) as keygate:
        keygate.credential("openai", "http://127.0.0.1:1/v1", "sk-kept")
    [made] = [path for path in keygate.data_dir.rglob("*") if "master" in path.name]
    made.rename(tmp_path / "away")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KEYGATE_DATA_DIR": str(keygate.data_dir)}
    environment["KEYGATE_PORT"] = str(keygate.port)
    for wrong in ({}, {"KEYGATE_MASTER_KEY": "an other master key that never was the right one"}):
        ended = subprocess.run(
            [KEYGATE, "serve"], capture_output=True, text=True, timeout=60, env=environment | wrong, cwd=tmp_path, check=False
        )
        said = ended.stdout + ended.stderr
        assert ended.returncode > 0, said
        assert "KEYGATE_MASTER_KEY" in said
        assert "Traceback" not in said
    assert not made.exists()
