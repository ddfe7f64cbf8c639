"""Requests whose framing is meant to be read differently by two parties: on gateway paths and on the control API's alike."""

from __future__ import annotations

import asyncio

import pytest
from tests.gateway.test_transport_hostile import SMUGGLED
from tests.hostile import wire
from tests.hostile.house import CHAT_PATH, House

API_PATH = "/api/v1/auth/login"
UNKNOWN_PATH = "/nothing/here"

ODD = SMUGGLED | {
    "tab before the colon": b"Content-Length\t: 2\r\n\r\n{}",
    "name with a space": b"X Y: 1\r\nContent-Length: 2\r\n\r\n{}",
    "empty name": b": 1\r\nContent-Length: 2\r\n\r\n{}",
    "no colon": b"nonsense\r\nContent-Length: 2\r\n\r\n{}",
    "coding in capitals and a length": b"TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "coding with a tab": b"Transfer-Encoding:\tchunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "coding with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding list in two lines": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "coding with a comma": b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "coding in quotes": b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "length with a space inside": b"Content-Length: 1 2\r\n\r\n{}",
    "length in other digits": "Content-Length: ٢\r\n\r\n{}".encode(),
    "empty length": b"Content-Length:\r\n\r\n{}",
    "chunk without its end": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n",
    "negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "chunk extension with LF": b"Transfer-Encoding: chunked\r\n\r\n2;a\n{}\r\n0\r\n\r\n",
    "chunk size of nothing": b"Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n",
}


def _head(path: str, token: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: keygate\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n".encode()


@pytest.mark.parametrize("path", [CHAT_PATH, API_PATH, UNKNOWN_PATH])
@pytest.mark.parametrize("name", ODD)
async def test_nothing_behind_a_doubtful_request_is_taken_for_a_request(house: House, path: str, name: str) -> None:
    """The second request would be served if it stood alone: it must die with the connection."""
    seen = len(house.vendor.upstream.seen)
    second = wire.post(CHAT_PATH, house.token, wire.chat())
    answer = await house.raw(_head(path, house.token) + ODD[name] + second)
    assert answer.count(b"HTTP/1.1 ") <= 1, answer[:2000]
    assert wire.status(answer) in {0, 400, 404, 405, 413, 422, 501}, answer[:500]
    assert len(house.vendor.upstream.seen) == seen


@pytest.mark.parametrize("first", ["/health", "/api/v1/auth/me", "/nothing", CHAT_PATH])
async def test_pipelined_requests_are_answered_in_their_order(house: House, first: str) -> None:
    owner = house.keygate.sign_in()
    chat = wire.post(CHAT_PATH, house.token, wire.chat(), close=False)
    streamed = wire.post(CHAT_PATH, house.token, wire.chat(stream=True), close=False)
    begin = chat if first == CHAT_PATH else wire.get(first, owner, close=False)
    script = begin + chat + wire.get("/api/v1/auth/me", owner, close=False) + streamed + wire.get("/health", owner)
    found = wire.answers(await house.raw(script))
    statuses = [status for status, _, _ in found]
    assert statuses == [404 if first == "/nothing" else 200, 200, 200, 200, 200]
    bodies = [body for _, _, body in found]
    assert b'"choices"' in bodies[1]
    assert b'"permissions"' in bodies[2]
    assert b"data: [DONE]" in bodies[3]
    assert bodies[4] == b'{"status":"ok"}'
    identifiers = [headers["x-request-id"] for _, headers, _ in found]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize("first", ["chat", "stream", "refused key"])
async def test_request_is_answered_whatever_stands_behind_it_in_one_piece(house: House, first: str) -> None:
    token = house.token if first != "refused key" else "sk-kg-nobody"
    whole = wire.post(CHAT_PATH, token, wire.chat(stream=first == "stream"), close=False)
    await house.chat()  # its key is loaded
    seen = len(house.vendor.upstream.seen)
    for behind in (b"x", b"GARBAGE\r\n\r\n", _head(CHAT_PATH, token) + b"Content-Length: x\r\n\r\n"):
        found = wire.answers(await house.raw(whole + behind, seconds=5))
        assert found[0][0] == (401 if first == "refused key" else 200)
        assert [status for status, _, _ in found[1:]] in ([], [400])
    assert len(house.vendor.upstream.seen) - seen == (0 if first == "refused key" else 3)


async def test_pipelines_without_end_are_bounded(house: House) -> None:
    one = wire.post(CHAT_PATH, house.token, wire.chat(), close=False)
    answer = await house.raw(one * 500)
    assert 1 <= len(wire.answers(answer)) <= 500


async def test_key_of_one_request_never_serves_the_next_on_its_connection(house: House) -> None:
    good = wire.post(CHAT_PATH, house.token, wire.chat(), close=False)
    bad = wire.post(CHAT_PATH, house.token[:-1] + ("A" if house.token[-1] != "A" else "B"), wire.chat(), close=False)
    none = good.replace(f"Authorization: Bearer {house.token}\r\n".encode(), b"")
    found = [status for status, _, _ in wire.answers(await house.raw(good + bad + good + none + wire.get("/health", "")))]
    assert found == [200, 401, 200, 401, 200]


@pytest.mark.parametrize(
    "line",
    ["GET http://elsewhere.example/api/v1/auth/me HTTP/1.1", "GET http://keygate/openai/v1/models HTTP/1.1",
     "GET //api/v1/auth/me HTTP/1.1",
     "GET /api//v1/auth/me HTTP/1.1", "GET /api/v1/../v1/auth/me HTTP/1.1", "GET /api/v1/auth/me/ HTTP/1.1", "GET /API/v1/auth/me HTTP/1.1",
     "GET /api/v1/auth/me;x HTTP/1.1", "GET /api/v1/%61uth/me HTTP/1.1", "GET /openai/../api/v1/auth/me HTTP/1.1",
     "GET /api/v1/auth%2fme HTTP/1.1",
     "TRACE /api/v1/auth/me HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /api/v1/auth/me#x HTTP/1.1", "GET api/v1/auth/me HTTP/1.1",
     "GET /api/v1/auth/me HTTP/1.2", "GET /api/v1/auth/me HTTP/0.9", "GET /api/v1/auth/me", "get /api/v1/auth/me HTTP/1.1",
     "PRI * HTTP/2.0", "CONNECT 127.0.0.1:22 HTTP/1.1"],
)  # fmt: skip
async def test_odd_targets_reveal_nothing_without_a_key(house: House, line: str) -> None:
    answer = await house.raw(f"{line}\r\nHost: keygate\r\nConnection: close\r\n\r\n".encode())
    assert wire.status(answer) in {0, 400, 401, 403, 404, 405, 422, 505}, answer[:500]
    assert b"owner@example.com" not in answer


async def test_every_byte_of_a_head_may_come_alone(house: House) -> None:
    data = wire.post(CHAT_PATH, house.token, wire.chat())
    async with asyncio.timeout(wire.PATIENCE), wire.connection(house.port) as (reader, writer):
        for byte in data:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        answer = await reader.read(-1)
    assert wire.status(answer) == 200
