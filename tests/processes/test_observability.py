"""What operators see: metrics that Prometheus reads, log lines with request ids, and the same ids in answers."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.processes.vendor import ANSWER, PROMPT, MarkedVendor, chat
from tests.running import RunningKeyGate

SECRET = "sk-vendor-secret-0000000"
UNITS = ("_seconds", "_bytes", "_usd", "_total", "_info", "_ratio")


@pytest.fixture(scope="module")
def marked() -> Iterator[MarkedVendor]:
    with MarkedVendor() as vendor:
        yield vendor


@pytest.fixture(scope="module")
def keygate(tmp_path_factory: pytest.TempPathFactory, marked: MarkedVendor) -> Iterator[RunningKeyGate]:
    with RunningKeyGate(
        tmp_path_factory.mktemp("seen"), environment={"KEYGATE_LOG_FORMAT": "json", "KEYGATE_TRUSTED_PROXIES": "127.0.0.1"}
    ) as running:
        running.credential("openai", marked.url, SECRET)
        yield running


def send(keygate: RunningKeyGate, key: str, **members: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{keygate.url}/openai/v1/chat/completions", json=chat(**members), headers=headers, timeout=10)


def samples(keygate: RunningKeyGate) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = httpx.get(f"{keygate.url}/metrics").text
    return {(s.name, frozenset(s.labels.items())): s.value for family in text_string_to_metric_families(text) for s in family.samples}


def risen(before: dict[Any, float], after: dict[Any, float], name: str, **labels: str) -> float:
    key = (name, frozenset(labels.items()))
    return after.get(key, 0) - before.get(key, 0)


def lines(keygate: RunningKeyGate, request_id: str, *, seconds: float = 5) -> list[dict[str, Any]]:
    """JSON log lines that name this request."""
    until = time.monotonic() + seconds
    while True:
        every = [json.loads(line) for line in keygate.log.read_text().splitlines() if line.startswith("{")]
        found = [line for line in every if line.get("request_id") == request_id]
        if found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def test_metrics_are_what_prometheus_reads_under_names_by_its_conventions(keygate: RunningKeyGate) -> None:
    answer = httpx.get(f"{keygate.url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert family.documentation
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        if not family.name.startswith("keygate_"):
            continue
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total")
            if family.type == "gauge":
                assert not sample.name.endswith("_total")
            if family.type == "histogram":
                assert family.name.endswith(UNITS)
    assert {
        "keygate_build_info",
        "keygate_gateway_holds_open",
        "keygate_gateway_refusals",
        "keygate_gateway_requests",
        "keygate_gateway_unfinished",
        "keygate_gateway_upstream_duration_seconds",
        "keygate_holds_usd",
        "keygate_holds_waiting",
        "keygate_journal_lag_bytes",
        "keygate_journal_lag_seconds",
        "keygate_journal_settles_waiting",
        "keygate_ledger_entries_folded",
        "keygate_worker_failures",
        "process_resident_memory_bytes",
    } <= set(names)


def test_requests_refusals_and_bad_ends_are_counted(keygate: RunningKeyGate, marked: MarkedVendor) -> None:
    narrow, poor = (
        keygate.key(models=["openai/gpt-4.1-mini"]),
        keygate.key(budgets=[{"amount_usd": "0.000001", "period": "day", "mode": "hard"}]),
    )
    before = samples(keygate)
    assert send(keygate, narrow["key"]).status_code == 200
    assert send(keygate, narrow["key"], model="gpt-4.1").status_code == 403
    assert send(keygate, poor["key"]).status_code == 402
    assert send(keygate, "sk-kg-made-up").status_code == 401
    marked.fail = 500
    assert send(keygate, narrow["key"]).status_code == 500
    marked.fail = None
    after = samples(keygate)
    count = {"vendor": "openai", "endpoint": "chat"}
    assert risen(before, after, "keygate_gateway_requests_total", **count, status="200") == 1
    assert risen(before, after, "keygate_gateway_requests_total", **count, status="500") == 1
    assert risen(before, after, "keygate_gateway_upstream_duration_seconds_count", **count) == 2
    assert risen(before, after, "keygate_gateway_upstream_duration_seconds_sum", **count) > 0
    for rule in ("model_not_allowed", "budget_spent", "invalid_api_key"):
        assert risen(before, after, "keygate_gateway_refusals_total", rule=rule) == 1
    assert risen(before, after, "keygate_gateway_unfinished_total", outcome="upstream_error") == 1
    assert risen({}, after, "keygate_gateway_holds_open") == 0
    assert risen({}, after, "keygate_holds_usd") == 0


def test_each_call_of_the_control_api_is_one_line_without_its_query(keygate: RunningKeyGate) -> None:
    key = keygate.key()
    token = keygate.sign_in()
    headers = {"authorization": f"Bearer {token}", "x-forwarded-for": "198.51.100.1, 203.0.113.5"}
    answer = httpx.get(f"{keygate.url}/api/v1/virtual-keys/{key['id']}?mark=CANARY-query", headers=headers)
    (line,) = lines(keygate, answer.headers["x-request-id"])
    me = keygate.call("GET", "/auth/me")["id"]
    assert (line["logger"], line["level"], line["message"]) == ("keygate.api", "info", "request")
    assert (line["method"], line["route"], line["status"], line["actor"]) == ("GET", "/api/v1/virtual-keys/{key_id}", 200, me)
    assert isinstance(line["ms"], float)
    assert line["client"] == "203.0.113.5"  # as the proxy says
    nowhere = httpx.get(f"{keygate.url}/api/v1/CANARY-path")
    (line,) = lines(keygate, nowhere.headers["x-request-id"])
    assert (line["route"], line["status"], line["actor"]) == ("-", 404, "-")
    httpx.get(f"{keygate.url}/health")
    assert "CANARY" not in keygate.log.read_text()
    assert "/health" not in keygate.log.read_text()


def test_the_request_id_in_a_problem_is_the_one_in_the_log(keygate: RunningKeyGate) -> None:
    token = keygate.sign_in()
    for method, path, status in (("GET", "/virtual-keys/vk_nope", 404), ("POST", "/virtual-keys", 422), ("GET", "/teams", 401)):
        headers = {} if status == 401 else {"authorization": f"Bearer {token}"}
        answer = httpx.request(method, f"{keygate.url}/api/v1{path}", headers=headers, json={"nonsense": 1} if method == "POST" else None)
        assert answer.status_code == status
        problem = answer.json()
        assert problem["request_id"] == answer.headers["x-request-id"]
        (line,) = lines(keygate, problem["request_id"])
        assert line["status"] == status


def test_bad_ends_at_the_gateway_are_logged_with_the_callers_request_id(keygate: RunningKeyGate, marked: MarkedVendor) -> None:
    key = keygate.key()["key"]
    marked.fail = 503
    failed = send(keygate, key)
    marked.fail = None
    (line,) = lines(keygate, failed.headers["x-request-id"])
    assert (line["outcome"], line["status"], line["vendor"]) == ("upstream_error", 503, "openai")
    with socket.socket() as silent:  # accepts and says nothing more
        silent.bind(("127.0.0.1", 0))
        credential = keygate.credential("anthropic", f"http://127.0.0.1:{silent.getsockname()[1]}", "sk-ant-secret-0000000")
        body = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": PROMPT}]}
        unreached = httpx.post(f"{keygate.url}/anthropic/v1/messages", json=body, headers={"x-api-key": key}, timeout=20)
    assert unreached.status_code == 503
    (line,) = lines(keygate, unreached.headers["x-request-id"])
    assert line["level"] == "warning"
    assert line["message"].startswith("not sent")
    keygate.call("DELETE", f"/credentials/{credential['id']}")


def test_no_line_holds_content_or_a_secret(keygate: RunningKeyGate) -> None:
    key = keygate.key()["key"]
    send(keygate, key)
    text = keygate.log.read_text()
    for mark in (PROMPT, ANSWER, SECRET, key, keygate.password):
        assert mark not in text


def test_lines_for_people_hold_the_same(tmp_path: Path) -> None:
    with RunningKeyGate(tmp_path) as running:
        running.sign_in()
        answer = httpx.get(f"{running.url}/api/v1/teams")
    request_id = answer.headers["x-request-id"]
    wanted = rf"\S+Z info    keygate\.api: request  method=GET route=/api/v1/teams status=401 ms=[\d.]+ request_id={request_id} actor=-"
    assert re.search(wanted, running.log.read_text())
