"""Prompts and answers: nothing is kept unless a policy says so, and then sealed, for those whom it names, for as long as it is set."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.processes.vendor import ANSWER, PROMPT, MarkedVendor, chat
from tests.running import RunningKeyGate

DAY_NS = 86_400 * 10**9


@pytest.fixture(scope="module")
def marked() -> Iterator[MarkedVendor]:
    with MarkedVendor() as vendor:
        yield vendor


@pytest.fixture(scope="module")
def keygate(tmp_path_factory: pytest.TempPathFactory, marked: MarkedVendor) -> Iterator[RunningKeyGate]:
    with RunningKeyGate(
        tmp_path_factory.mktemp("kept"), environment={"KEYGATE_CONTENT_DAYS": "7", "KEYGATE_LOG_LEVEL": "debug"}
    ) as running:
        running.credential("openai", marked.url, "sk-vendor-secret-0000000")
        yield running


def send(keygate: RunningKeyGate, key: str, **members: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{keygate.url}/openai/v1/chat/completions", json=chat(**members), headers=headers, timeout=10)


def recording_policy(keygate: RunningKeyGate, *readers: str) -> dict[str, Any]:
    body = {"name": f"recorded {secrets.token_hex(4)}", "record_content": True, "content_readers": list(readers)}
    return keygate.call("POST", "/policies", body)


def content(keygate: RunningKeyGate, request_id: str, token: str | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {token or keygate.sign_in()}"}
    return httpx.get(f"{keygate.url}/api/v1/usage/entries/{request_id}/content", headers=headers, timeout=10)


def eventually(read: Callable[[], httpx.Response], status: int = 200, *, seconds: float = 15) -> httpx.Response:
    until = time.monotonic() + seconds
    while (answer := read()).status_code != status and time.monotonic() < until:
        time.sleep(0.1)
    assert answer.status_code == status, answer.text
    return answer


def kept_of(keygate: RunningKeyGate, key: dict[str, Any]) -> int:
    with sqlite3.connect(keygate.data_dir / "keygate.db") as database:
        (count,) = database.execute("select count(*) from recorded_contents where key_id = ?", (key["id"],)).fetchone()
    return int(count)


def in_the_clear(folder: Path, *marks: str) -> list[str]:
    """Files below `folder` that hold one of the marks: database, its log, journal, what the process printed."""
    return [f"{file.name}: {mark}" for file in folder.rglob("*") if file.is_file() for mark in marks if mark.encode() in file.read_bytes()]


def test_nothing_is_kept_by_default(keygate: RunningKeyGate, marked: MarkedVendor) -> None:
    made = keygate.key()
    key = made["key"]
    answers = [send(keygate, key), send(keygate, key, stream=True)]
    marked.fail = 400
    answers.append(send(keygate, key))
    marked.fail = None
    assert [answer.status_code for answer in answers] == [200, 200, 400]
    time.sleep(1.5)  # longer than the recorder waits
    assert kept_of(keygate, made) == 0
    assert content(keygate, answers[0].headers["x-request-id"]).status_code == 404
    assert in_the_clear(keygate.folder, PROMPT, ANSWER) == []


def test_a_policy_keeps_prompt_and_answer_sealed(keygate: RunningKeyGate, marked: MarkedVendor) -> None:
    policy = recording_policy(keygate, "owner")
    made = keygate.key(policy_id=policy["id"])
    key = made["key"]
    plain, streamed = send(keygate, key), send(keygate, key, stream=True)
    marked.fail = 400
    refused = send(keygate, key)
    marked.fail = None
    for answer in (plain, streamed, refused):
        kept = eventually(lambda answer=answer: content(keygate, answer.headers["x-request-id"])).json()
        assert PROMPT in kept["prompt"]
        assert kept["answer"] == answer.text
        assert ANSWER in kept["answer"]
        assert not kept["truncated"]
    assert kept_of(keygate, made) == 3
    keygate.stop()
    keygate.start()
    assert in_the_clear(keygate.folder, PROMPT, ANSWER) == []


def test_only_named_readers_see_it_and_every_look_is_audited(keygate: RunningKeyGate) -> None:
    password = "a-long-password-for-tests"
    made = [
        keygate.call("POST", "/users", {"email": f"{name}@example.com", "name": name, "role": "admin", "password": password})
        for name in ("named", "other")
    ]
    tokens = [
        httpx.post(f"{keygate.url}/api/v1/auth/login", json={"email": user["email"], "password": password}).json()["access_token"]
        for user in made
    ]
    policy = recording_policy(keygate, made[0]["id"])
    answer = send(keygate, keygate.key(policy_id=policy["id"])["key"])
    request_id = answer.headers["x-request-id"]
    assert PROMPT in eventually(lambda: content(keygate, request_id, tokens[0])).json()["prompt"]
    assert content(keygate, request_id, tokens[1]).status_code == 404
    assert content(keygate, request_id).status_code == 404  # the owner is not named
    looks = [
        entry
        for entry in keygate.call("GET", "/audit", limit=100)["items"]
        if entry["action"] == "content.read" and entry["target"] == request_id
    ]
    assert len(looks) == 3


def test_a_policy_turned_off_keeps_nothing_from_then_on(keygate: RunningKeyGate) -> None:
    policy = recording_policy(keygate, "owner")
    made = keygate.key(policy_id=policy["id"])
    key = made["key"]
    before = send(keygate, key)
    eventually(lambda: content(keygate, before.headers["x-request-id"]))
    keygate.call("PATCH", f"/policies/{policy['id']}", {"record_content": False})
    after = send(keygate, key)
    time.sleep(1.5)
    assert content(keygate, after.headers["x-request-id"]).status_code == 404
    assert kept_of(keygate, made) == 1


def test_what_is_too_old_goes(keygate: RunningKeyGate) -> None:
    policy = recording_policy(keygate, "owner")
    key = keygate.key(policy_id=policy["id"])["key"]
    old, young = (send(keygate, key).headers["x-request-id"] for _ in range(2))
    eventually(lambda: content(keygate, young))
    keygate.stop()
    for request_id, days in ((old, 8), (young, 6)):
        with sqlite3.connect(keygate.data_dir / "keygate.db") as database:
            database.execute("update recorded_contents set at_ns = ? where request_id = ?", (time.time_ns() - days * DAY_NS, request_id))
    keygate.start()
    eventually(lambda: content(keygate, old), 404)
    assert content(keygate, young).status_code == 200


def test_long_prompts_are_cut_and_said_to_be(keygate: RunningKeyGate) -> None:
    policy = recording_policy(keygate, "owner")
    key = keygate.key(policy_id=policy["id"])["key"]
    answer = send(keygate, key, messages=[{"role": "user", "content": "x" * 300_000}])
    kept = eventually(lambda: content(keygate, answer.headers["x-request-id"])).json()
    assert kept["truncated"]
    assert len(kept["prompt"]) == 256 * 1024
