"""Names and ids that try to become something else: header lines, paths, SQL, markup."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from tests.hostile import wire
from tests.hostile.house import CHAT_PATH, House

NAMES = (
    "gpt-4.1\r\nx-evil: 1",
    "gpt-4.1\nx-evil: 1",
    "gpt-4.1\r\n\r\nGET /v1/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    "gpt-4.1\x00",
    "gpt-4.1\u2028x-evil: 1",
    "gpt-4.1\u010d\u010a",  # their low bytes are CR and LF
    "../../admin/keys",
    "..%2f..%2fadmin",
    "gpt-4.1?x=1#y",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "%s%s%s%n",
    "a" * 10_000,
    "\u202egpt",
    "😀" * 50,
    "openai/../anthropic/claude",
    "*",
)


@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/chat/completions", "/anthropic/v1/messages"])
async def test_model_names_stay_model_names(house: House, path: str) -> None:
    for name in NAMES:
        before = len(house.vendor.upstream.seen)
        ((status, headers, _),) = wire.answers(await house.raw(wire.post(path, house.token, wire.chat(model=name))))
        assert status in {200, 400, 402, 403, 404}, name
        assert "x-evil" not in headers, name
        for seen in house.vendor.upstream.seen[before:]:
            assert seen.line == f"POST {'/v1/messages' if 'anthropic' in path else '/v1/chat/completions'} HTTP/1.1"
            assert not any("evil" in header for header, _ in seen.headers)
            assert json.loads(seen.body)["model"] == name


@pytest.mark.parametrize(
    "path",
    ["/openai/v1/models/{}", "/v1/models/{}", "/openai/v1/responses/{}", "/openai/v1/files/{}", "/anthropic/v1/models/{}",
     "/api/v1/virtual-keys/{}",
     "/api/v1/teams/{}", "/api/v1/credentials/{}", "/api/v1/virtual-keys/{}/usage", "/api/v1/virtual-keys?q={}",
     "/api/v1/virtual-keys?cursor={}",
     "/api/v1/audit?actor={}", "/api/v1/audit?from={}", "/api/v1/usage?group_by={}", "/api/v1/usage?from={}",
     "/openai/v1/models?key={}", "/{}/v1/chat"],
)  # fmt: skip
async def test_ids_in_addresses_stay_ids(house: House, path: str) -> None:
    owner = house.keygate.sign_in()
    token = owner if path.startswith("/api") else house.token
    before = len(house.vendor.upstream.seen)
    for name in NAMES:
        ((status, headers, body),) = wire.answers(await house.raw(wire.get(path.format(quote(name, safe="")), token)))
        assert status < 500, (path, name, body[:500])
        assert "x-evil" not in headers, (path, name)
        assert b"<script>" not in body or "json" in headers["content-type"], (path, name)
    for raw in (b"%", b"%zz", b"%ff%fe", b"%00", b"%ed%a0%80", b"\xff\xfe", b"a\tb", b"\x7f"):
        data = wire.get(path.format("{}"), token).replace(b"{}", raw)
        answer = await house.raw(data)
        assert wire.status(answer) < 500, (path, raw, answer[:500])
    assert len(house.vendor.upstream.seen) == before


async def test_callers_headers_do_not_speak_for_the_house(house: House) -> None:
    """What names another organisation, another key or another hop never reaches the vendor."""
    headers = (
        "OpenAI-Organization: org-thief", "OpenAI-Project: proj-thief", "Forwarded: for=1.2.3.4", "Proxy-Authorization: Basic eDp5",
        "Connection: close, x-drop", "x-drop: 1", "TE: trailers", "Cookie: a=b", "X-Api-Key: " + house.token, "x-request-id: a b c",
    )  # fmt: skip
    answer = await house.raw(
        wire.post(CHAT_PATH, house.token, wire.chat(), *headers, close=False).replace(
            b"Connection: close, x-drop", b"Connection: close, x-drop"
        )
    )
    assert wire.status(answer) == 200, answer[:500]
    seen = house.vendor.upstream.seen[-1]
    sent = dict(seen.headers)
    assert sent["authorization"] == "Bearer sk-evil-openai-secret-000000"
    for name in ("openai-organization", "openai-project", "proxy-authorization", "x-drop", "te", "cookie", "x-api-key"):
        assert name not in sent, name
    assert not any(house.token in value for value in sent.values())


async def test_heads_beyond_any_reason_are_refused(house: House) -> None:
    for path in (CHAT_PATH, "/api/v1/auth/me", "/nothing"):
        start = f"GET {path} HTTP/1.1\r\nHost: keygate\r\nConnection: close\r\n".encode()
        for head in (b"X: " + b"a" * 300_000 + b"\r\n\r\n", b"X: a\r\n" * 20_000 + b"\r\n", b"a" * 300_000 + b": 1\r\n\r\n"):
            assert wire.status(await house.raw(start + head)) in {0, 400, 431}
        assert wire.status(await house.raw(f"GET {path}?{'a' * 100_000} HTTP/1.1\r\nHost: keygate\r\n\r\n".encode())) in {0, 400, 414, 431}
