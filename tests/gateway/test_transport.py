"""Plain answers and streams, end to end over sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.gateway.rig import Rig, chat, read_reply, request, running
from tests.gateway.upstream import CHAT

from keygate.ledger import Outcome


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running(client_timeout=1.0, drain_timeout=2.0, first_byte_timeout=1.0, idle_timeout=1.0, max_body_bytes=1 << 20) as rig:
        yield rig


async def test_plain_answer_passes_unchanged_with_its_cost(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=50))
    assert reply.status == 200
    assert reply.body == CHAT
    assert reply.headers["x-keygate-cost-usd"] == "0.000015"
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-upstream-request-id"] == "up-1"
    assert rig.accounts.last.outcome is Outcome.FINISHED
    assert rig.accounts.last.usage is not None
    assert rig.accounts.last.usage.input == 10
    assert rig.accounts.last.credential_id == "cred_1"
    rig.nothing_leaks()


async def test_upstream_gets_its_own_key_and_none_of_the_callers(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(
        token, chat(max_tokens=50), OpenAI_Organization="org-x", Cookie="a=b", X_Forwarded_For="1.2.3.4", OpenAI_Beta="assistants=v2"
    )
    seen = rig.upstream.seen[0]
    assert seen.line == "POST /v1/chat/completions HTTP/1.1"
    assert seen.header("authorization") == "Bearer sk-upstream-openai-secret"
    assert [name for name, _ in seen.headers].count("authorization") == 1
    for name in ("openai-organization", "cookie", "x-forwarded-for", "x-api-key"):
        assert seen.header(name) is None
    assert seen.header("openai-beta") == "assistants=v2"
    assert token not in str(seen)


async def test_streamed_answer_passes_and_hides_the_usage_that_nobody_asked_for(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(stream=True, max_tokens=50))
    assert reply.status == 200
    assert b"usage" not in reply.body
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert reply.body.count(b"data: ") == 4
    assert "openai-organization" not in reply.headers
    assert json.loads(rig.upstream.seen[0].body)["stream_options"] == {"include_usage": True}
    assert rig.accounts.last.usage is not None
    assert rig.accounts.last.usage.output == 5
    rig.nothing_leaks()


async def test_stream_is_settled_before_its_last_byte_leaves(rig: Rig) -> None:
    token, _ = rig.key()
    reader, writer = await rig.open()
    writer.write(request(token, chat(stream=True, max_tokens=50)))
    await reader.readuntil(b"[DONE]")
    assert len(rig.accounts.settled) == 1
    writer.close()


async def test_maximum_set_by_the_gateway_is_sent_and_said(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat())
    assert reply.headers["x-keygate-max-output-tokens"] == "100"
    assert json.loads(rig.upstream.seen[0].body)["max_completion_tokens"] == 100


async def test_connections_to_the_vendor_are_kept(rig: Rig) -> None:
    token, _ = rig.key()
    for _ in range(5):
        await rig.call(token, chat(max_tokens=5))
    assert rig.upstream.connections == 1


async def test_large_answers_pass_whole(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=5), X_Mode="large")
    assert len(reply.body) > 3_000_000
    await rig.settled()
    assert rig.accounts.last.usage is not None
    rig.nothing_leaks()


async def test_upstream_errors_pass_as_they_are_and_cost_nothing(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=5), X_Mode="busy")
    assert reply.status == 429
    assert reply.json()["error"]["message"] == "slow down"
    assert reply.headers["x-keygate-origin"] == "upstream"
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert next(iter(rig.accounts.settled.values()))[0] == 0
    rig.nothing_leaks()


async def test_credential_never_comes_back_in_an_upstream_error(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=5), X_Mode="leaky")
    assert reply.status == 401
    assert b"sk-upstream" not in reply.body


async def test_pipelined_requests_are_answered_in_order_whichever_kind(rig: Rig) -> None:
    token, _ = rig.key()
    reader, writer = await rig.open()
    slow = request(token, chat(max_tokens=1), X_Mode="held")
    api = b"POST /api/v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    writer.write(slow + api + request(token, chat(max_tokens=2)) + api + request("sk-kg-nonsense", chat()))
    await asyncio.sleep(0.1)
    rig.upstream.go.set()
    replies = [await asyncio.wait_for(read_reply(reader), 5) for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 401]
    assert [reply.body for reply in replies[:4]] == [CHAT, b"asgi /api/v1/x abc", CHAT, b"asgi /api/v1/x abc"]
    writer.write(request(token, chat(max_tokens=3)))
    assert (await asyncio.wait_for(read_reply(reader), 5)).status == 200
    writer.close()
    rig.nothing_leaks()


async def test_requests_byte_by_byte_are_read(rig: Rig) -> None:
    token, _ = rig.key()
    reader, writer = await rig.open()
    for byte in request(token, chat(max_tokens=1)):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(read_reply(reader), 5)).body == CHAT
    writer.close()


async def test_chunked_bodies_are_read_and_sent_on_with_a_length(rig: Rig) -> None:
    token, _ = rig.key()
    body = json.dumps(chat(max_tokens=1)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nx-api-key: {token}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    reader, writer = await rig.open()
    writer.write(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    assert (await asyncio.wait_for(read_reply(reader), 5)).body == CHAT
    assert rig.upstream.seen[0].header("content-length") == str(len(body))
    assert rig.upstream.seen[0].header("transfer-encoding") is None
    writer.close()


async def test_expectations_are_answered_before_the_body(rig: Rig) -> None:
    token, _ = rig.key()
    data = request(token, chat(max_tokens=1), Expect="100-continue")
    head, _, body = data.partition(b"\r\n\r\n")
    await rig.call(token, chat(max_tokens=1))  # the key is known
    reader, writer = await rig.open()
    writer.write(head + b"\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await asyncio.wait_for(read_reply(reader), 5)).status == 200
    writer.close()


async def test_http_1_0_gets_a_closed_stream(rig: Rig) -> None:
    token, _ = rig.key()
    data = request(token, chat(stream=True, max_tokens=5)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    answer = await rig.raw(data)
    assert b"transfer-encoding" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_probes_are_answered_unbilled(rig: Rig) -> None:
    answer = await rig.raw(b"HEAD /anthropic HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert not rig.accounts.settled


async def test_models_are_only_those_that_the_key_may_use(rig: Rig) -> None:
    token, _ = rig.key()
    answer = await rig.raw(
        f"GET /openai/v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
    )
    listed = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert [model["id"] for model in listed["data"]] == ["gpt-4.1", "gpt-4.1-mini"]
    assert not rig.upstream.seen


async def test_websockets_are_told_to_use_http(rig: Rig) -> None:
    token, _ = rig.key()
    answer = await rig.raw(
        f"GET /openai/v1/responses HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 426")


async def test_other_paths_are_left_to_asgi(rig: Rig) -> None:
    answer = await rig.raw(b"POST /api/v1/teams?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    assert answer.endswith(b"asgi /api/v1/teams ok")
    assert rig.asgi == ["/api/v1/teams"]
