"""KeyGate's own refusals: the status, body and headers that each dialect's SDK turns into the right exception."""

from __future__ import annotations

import socket
import time
from typing import Any

import httpx
import pytest
from tests.contract.house import CHAT, CLAUDE, MESSAGE, MODEL, House

CHAT_PATH, MESSAGES_PATH = "/openai/v1/chat/completions", "/anthropic/v1/messages"
DIALECTS = [(CHAT_PATH, CHAT), (MESSAGES_PATH, MESSAGE)]
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    402: "insufficient_quota",
    403: "invalid_request_error",
    404: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_exceeded",
    503: "server_error",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def refused(answer: httpx.Response, status: int, *, code: str | None = None, retry: bool = False) -> str:
    """Holds the answer against the dialect of its path; returns the message."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    request_id = answer.headers["x-request-id"]
    if "/anthropic/" in answer.request.url.path:
        assert body["type"] == "error"
        assert body["request_id"] == request_id == answer.headers["request-id"]
        assert body["error"]["type"] == ANTHROPIC_TYPES[status]
        found = body["error"]["details"]["error_code"]
    else:
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["type"] == OPENAI_TYPES[status]
        found = body["error"]["code"]
    if code is not None:
        assert found == code
    if retry:
        assert answer.headers.get("x-should-retry", "true") == "true"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    else:
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
    message: str = body["error"]["message"]
    return message


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_missing_made_up_or_mistyped_key_is_401(house: House, path: str, body: dict[str, Any]) -> None:
    good = house.key("typo")["key"]
    typo = good[:-1] + ("A" if good[-1] != "A" else "B")
    before = len(house.vendor.calls)
    for key in (None, "sk-made-up", "sk-kg-" + "a" * 60, typo):
        message = refused(house.send(key, path, body), 401, code="invalid_api_key")
        assert not key or key not in message
    assert len(house.vendor.calls) == before


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_revoked_key_is_401_on_the_next_request(house: House, path: str, body: dict[str, Any]) -> None:
    made = house.key("revoked")
    assert house.send(made["key"], path, body).status_code == 200
    house.call("POST", f"/virtual-keys/{made['id']}/revoke")
    refused(house.send(made["key"], path, body), 401)


def test_an_expired_key_is_401(house: House) -> None:
    at = time.gmtime(time.time() + 2)
    made = house.key("expiring", expires_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", at))
    assert house.send(made["key"]).status_code == 200
    time.sleep(2.1)
    refused(house.send(made["key"]), 401)


@pytest.mark.parametrize(("path", "body"), DIALECTS)
@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"models": ["openai/gpt-4o*", "anthropic/claude-3*"]}, "model"),
        ({"vendors": []}, "vendor"),
        ({"endpoints": ["embeddings"]}, "endpoint"),
    ],
)
def test_what_the_key_may_not_use_is_403_and_names_rule_and_scope(
    house: House, path: str, body: dict[str, Any], rules: dict[str, Any], named: str
) -> None:
    key = house.key(f"no-{named}", **rules)["key"]
    message = refused(house.send(key, path, body), 403, code=f"{named}_not_allowed")
    assert "key" in message
    assert named in message


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_spent_budget_is_402_and_says_spent_held_and_limit(house: House, path: str, body: dict[str, Any]) -> None:
    made = house.key("poor", budgets=[{"amount_usd": "0.0005", "period": "month", "mode": "hard"}])
    answer = house.send(made["key"], path, body)
    assert answer.status_code == 200
    while answer.status_code == 200:
        answer = house.send(made["key"], path, body)
    message = refused(answer, 402)
    [budget] = house.keygate.usage(made["id"])["budgets"]
    assert 0 < float(budget["spent_usd"]) <= 0.0005
    assert f"{budget['id']} of key {made['id']}" in message
    for said in (f"{budget['spent_usd']} USD spent", "0.00 held", "limit 0.0005"):
        assert said in message


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_limit_is_429_with_a_wait_that_sdks_accept(house: House, path: str, body: dict[str, Any]) -> None:
    made = house.key("slow", limits={"requests_per_minute": 1})
    assert house.send(made["key"], path, body).status_code == 200
    message = refused(house.send(made["key"], path, body), 429, retry=True)
    assert "1 requests per minute" in message
    assert f"key {made['id']}" in message


def test_a_vendor_without_a_credential_or_out_of_reach_is_503(house: House) -> None:
    key = house.key("nowhere")["key"]
    found = next(one for one in house.call("GET", "/credentials")["items"] if one["vendor"] == "openai")
    house.call("PATCH", f"/credentials/{found['id']}", {"status": "disabled"})
    try:
        refused(house.send(key), 503, code="no_credential")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        gone = house.keygate.credential("openai", f"http://127.0.0.1:{port}/v1", "sk-gone")
        refused(house.send(key), 503, code="vendor_unreachable", retry=True)
        house.call("DELETE", f"/credentials/{gone['id']}")
    finally:
        house.call("PATCH", f"/credentials/{found['id']}", {"status": "enabled"})
    assert house.send(key).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/openai/v1/files"),
        ("GET", "/openai/v1/files/file-1"),
        ("POST", "/openai/v1/batches"),
        ("POST", "/openai/v1/audio/speech"),
        ("POST", "/openai/v1/images/generations"),
        ("GET", "/openai/v1/responses/resp_1"),
        ("POST", "/openai/v1/fine_tuning/jobs"),
        ("POST", "/anthropic/v1/messages/batches"),
        ("POST", "/anthropic/v1/files"),
        ("POST", "/v1/files"),
        ("POST", "/v1/openai/files"),
    ],
)
def test_what_is_not_served_yet_is_refused_by_name(house: House, method: str, path: str) -> None:
    key = house.key("files")["key"]
    before = len(house.vendor.calls)
    answer = house.client.request(method, path, headers={"authorization": f"Bearer {key}"})
    message = refused(answer, 403, code="endpoint_not_served")
    assert any(word in message for word in ("files", "batches", "audio", "images", "responses", "fine-tuning"))
    assert len(house.vendor.calls) == before


@pytest.mark.parametrize("path", ["/openai/v1/made-up", "/anthropic/v1/made-up", "/v1/made-up", "/openai/v1/chat/completions/../files"])
def test_unknown_paths_of_a_vendor_do_not_pass(house: House, path: str) -> None:
    key = house.key("paths")["key"]
    before = len(house.vendor.calls)
    answer = house.client.post(path, json=CHAT, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code in {403, 404}
    assert len(house.vendor.calls) == before


@pytest.mark.parametrize(
    "path", ["/openai/v1/responses", "/openai/v1/realtime?model=gpt-realtime", "/v1/responses", "/anthropic/v1/messages"]
)
def test_a_websocket_upgrade_is_426(house: House, path: str) -> None:
    key = house.key("socket")["key"]
    headers = {
        "authorization": f"Bearer {key}",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = house.client.get(path, headers=headers)
    assert answer.status_code == 426
    assert answer.headers["upgrade"]


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_body_above_the_maximum_is_413(house: House, path: str, body: dict[str, Any]) -> None:
    key = house.key("large")["key"]
    answer = house.send(key, path, body | {"messages": [{"role": "user", "content": "x" * (1 << 20)}]})
    assert answer.status_code == 413
    assert "error" in answer.json()


def test_a_compressed_body_is_415(house: House) -> None:
    key = house.key("packed")["key"]
    assert house.send(key, content_encoding="gzip").status_code == 415


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model":1,"messages":[]}', b'{"messages":[]}', b"\xff\xfe"])
@pytest.mark.parametrize("path", [CHAT_PATH, MESSAGES_PATH])
def test_a_body_that_cannot_be_read_is_400(house: House, path: str, content: bytes) -> None:
    key = house.key("garbled")["key"]
    answer = house.client.post(path, content=content, headers={"authorization": f"Bearer {key}", "content-type": "application/json"})
    refused(answer, 400)


def test_another_method_on_a_served_path_is_405(house: House) -> None:
    key = house.key("method")["key"]
    answer = house.client.get(CHAT_PATH, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT_PATH, MESSAGES_PATH])
def test_what_is_not_json_or_compressed_is_415(house: House, path: str) -> None:
    key = house.key("media")["key"]
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/json", "content-encoding": "gzip"}):
        answer = house.client.post(path, content=b"{}", headers={"authorization": f"Bearer {key}", **headers})
        refused(answer, 415, code="unsupported_media_type")


def test_a_model_without_a_price_is_refused_under_a_hard_budget_and_unpriced_otherwise(house: House) -> None:
    body = CHAT | {"model": "gpt-made-up-9"}
    hard = house.key("hard", budgets=[{"amount_usd": "10.00", "period": "day", "mode": "hard"}])
    before = len(house.vendor.calls)
    message = refused(house.send(hard["key"], body=body | {"model": "openai/gpt-made-up-9"}), 403, code="unpriced")
    assert "Write 'gpt-made-up-9' without 'openai/'" in message
    message = refused(house.send(hard["key"], body=body), 403, code="unpriced")
    assert "Write" not in message
    assert "gpt-made-up-9" in message
    assert len(house.vendor.calls) == before
    soft = house.key("soft", budgets=[{"amount_usd": "10.00", "period": "day", "mode": "soft"}])
    answer = house.send(soft["key"], body=body)
    assert answer.status_code == 200
    assert "x-keygate-cost-usd" not in answer.headers
    [entry] = house.call("GET", "/usage/entries", key_id=soft["id"])["items"]
    assert (entry["cost_usd"], entry["model"]) == (None, "gpt-made-up-9")
    [row] = house.call("GET", "/usage", key_id=soft["id"])["items"]
    assert (row["requests"], row["unpriced_requests"]) == (1, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/openai/v1/responses", {"model": MODEL, "input": "hi", "max_output_tokens": 16, "tools": [{"type": "web_search"}]}),
        (MESSAGES_PATH, MESSAGE | {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ],
)
def test_server_side_tools_need_a_ceiling_under_a_hard_budget(house: House, path: str, body: dict[str, Any]) -> None:
    budgets = [{"amount_usd": "10.00", "period": "day", "mode": "hard"}]
    assert house.send(house.key("unlimited")["key"], path, body).status_code == 200
    message = refused(house.send(house.key("bounded", budgets=budgets)["key"], path, body), 403, code="unbounded_cost")
    assert "server_tool_ceiling_usd" in message
    policy = house.call("POST", "/policies", {"name": f"ceiling {path}", "server_tool_ceiling_usd": "0.50"})
    assert house.send(house.key("capped", budgets=budgets, policy_id=policy["id"])["key"], path, body).status_code == 200


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_request_that_never_fits_a_limit_is_not_worth_another_try(house: House, path: str, body: dict[str, Any]) -> None:
    key = house.key("tokens", limits={"tokens_per_minute": 3})["key"]
    message = refused(house.send(key, path, body), 429)
    assert "3 tokens per minute" in message


def test_a_limit_of_the_day_does_not_put_sdks_to_sleep(house: House) -> None:
    key = house.key("daily", limits={"requests_per_day": 1})["key"]
    assert house.send(key).status_code == 200
    answer = house.send(key)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-should-retry"] == "false"


def test_names_of_models_cannot_break_out_of_the_refusal(house: House) -> None:
    key = house.key("names", models=[f"anthropic/{CLAUDE}"])["key"]
    answer = house.send(key, body=CHAT | {"model": "gpt-x\r\nx-evil: 1"})
    assert "x-evil" not in answer.headers
    refused(answer, 400)
    assert "gpt-unheard-of" in refused(house.send(key, body=CHAT | {"model": "gpt-unheard-of"}), 403, code="model_not_allowed")
