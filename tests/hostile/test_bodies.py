"""Bodies that are too large, endless, not JSON, or JSON that two readers understand differently."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from tests.hostile import wire
from tests.hostile.house import CHAT_PATH, House

GATEWAY = {
    "/openai/v1/chat/completions": {"model": "gpt-4.1", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]},
    "/openai/v1/completions": {"model": "gpt-3.5-turbo-instruct", "max_tokens": 5, "prompt": "hi"},
    "/openai/v1/responses": {"model": "gpt-4.1", "max_output_tokens": 16, "input": "hi"},
    "/openai/v1/embeddings": {"model": "text-embedding-3-small", "input": "hi"},
    "/openai/v1/moderations": {"model": "omni-moderation-latest", "input": "hi"},
    "/v1/chat/completions": {"model": "openai/gpt-4.1", "max_tokens": 5, "messages": []},
    "/anthropic/v1/messages": {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]},
    "/anthropic/v1/messages/count_tokens": {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}]},
}
CONTROL = (
    "/api/v1/teams",
    "/api/v1/virtual-keys",
    "/api/v1/credentials",
    "/api/v1/policies",
    "/api/v1/auth/login",
    "/api/v1/policies/explain",
)

NOT_JSON = {
    "empty": b"",
    "a word": b"nonsense",
    "cut off": b'{"model": "gpt-4.1", "messages": [',
    "two documents": b'{"model":"gpt-4.1"} {"model":"gpt-5"}',
    "trailing comma": b'{"model": "gpt-4.1",}',
    "single quotes": b"{'model': 'gpt-4.1'}",
    "comment": b'{"model": "gpt-4.1" /* x */}',
    "not a number": b'{"model": "gpt-4.1", "max_tokens": NaN}',
    "infinity": b'{"model": "gpt-4.1", "max_tokens": Infinity}',
    "invalid UTF-8": b'{"model": "\xff\xfe"}',
    "encoded surrogate": b'{"model": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"model": "\xc0\xafgpt"}',
    "UTF-16": '{"model": "gpt-4.1"}'.encode("utf-16"),
    "UTF-32": '{"model": "gpt-4.1"}'.encode("utf-32"),
    "control character": b'{"model": "gpt\x00-4.1"}',
    "raw newline": b'{"model": "gpt\r\n-4.1"}',
    "null": b"null",
    "list": b"[]",
    "number": b"5",
    "string": b'"gpt-4.1"',
    "deep lists": b"[" * 200_000,
    "deep lists, closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "half a surrogate escape": b'{"model": "\\ud8"}',
    "form": b"model=gpt-4.1&max_tokens=5",
    "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
}
ODD_MEMBERS: dict[str, bytes] = {
    "deep below a member": b'"metadata": ' + b"[" * 50_000 + b"]" * 50_000,
    "lone surrogate as model": b'"model": "\\ud800"',
    "NUL in the model": b'"model": "gpt-4.1\\u0000"',
    "line break in the model": b'"model": "gpt-4.1\\r\\nx-evil: 1"',
    "very long model": b'"model": "' + b"a" * 300_000 + b'"',
    "model twice": b'"model": "gpt-4.1", "model": "gpt-5"',
    "model twice, once escaped": b'"model": "gpt-4.1", "mod\\u0065l": "gpt-5"',
    "maximum twice": b'"max_tokens": 1, "max_tokens": 100000',
    "stream twice": b'"stream": false, "stream": true',
    "model is null": b'"model": null',
    "model is a list": b'"model": ["gpt-4.1"]',
    "model is empty": b'"model": ""',
    "huge maximum": b'"max_tokens": ' + b"9" * 400,
    "endless digits": b'"max_tokens": ' + b"9" * 100_000,
    "huge exponent": b'"max_tokens": 1e400',
    "absurd exponent": b'"max_tokens": 1e' + b"9" * 5_000,
    "negative maximum": b'"max_tokens": -5',
    "fraction": b'"max_tokens": 1.5',
    "maximum of a million digits behind the point": b'"max_tokens": 1.' + b"0" * 300_000,
    "maximum is a string": b'"max_tokens": "5"',
    "maximum is true": b'"max_tokens": true',
    "maximum is an object": b'"max_tokens": {"a": 1}',
    "stream is a string": b'"stream": "yes"',
    "stream is a number": b'"stream": 1',
    "answers without end": b'"n": 1000000000',
    "negative answers": b'"n": -1',
    "messages are a number": b'"messages": 5',
    "messages are nested": b'"messages": [[[[]]]]',
    "stream options are a list": b'"stream": true, "stream_options": []',
    "tools are a string": b'"tools": "all"',
    "service tier is an object": b'"service_tier": {}',
}


def _with(body: dict[str, object], members: bytes) -> bytes:
    names = {part for part in ("model", "max_tokens", "stream", "messages", "n") if b'"%b"' % part.encode() in members}
    rest = json.dumps({name: value for name, value in body.items() if name not in names}).encode()
    return rest[:-1] + (b", " if len(rest) > 2 else b"") + members + b"}"


@pytest.mark.parametrize("path", GATEWAY)
async def test_gateway_refuses_what_is_not_json_and_forwards_none_of_it(house: House, path: str) -> None:
    seen = len(house.vendor.upstream.seen)
    for name, body in NOT_JSON.items():
        answer = await house.raw(wire.post(path, house.token, body))
        ((status, _, told),) = wire.answers(answer)
        assert status == 400, (name, answer[:500])
        assert json.loads(told)["error"], name
    assert len(house.vendor.upstream.seen) == seen


@pytest.mark.parametrize("path", GATEWAY)
async def test_odd_members_are_refused_or_passed_but_never_break_anything(house: House, path: str) -> None:
    for name, members in ODD_MEMBERS.items():
        body = _with(GATEWAY[path], members)
        before = len(house.vendor.upstream.seen)
        answer = await house.raw(wire.post(path, house.token, body))
        ((status, headers, _),) = wire.answers(answer)
        assert status in {200, 400, 402, 403, 404, 413}, (name, answer[:500])
        assert "x-evil" not in headers, name
        for seen in house.vendor.upstream.seen[before:]:
            assert not any(header == "x-evil" for header, _ in seen.headers), name
            assert "x-evil" not in seen.line, name
        if "twice" in name and status == 200:
            assert len(set(json.loads(house.vendor.upstream.seen[-1].body, object_pairs_hook=list)[0])) == 2, name


@pytest.mark.parametrize("members", ["model twice", "model twice, once escaped", "maximum twice", "stream twice"])
async def test_members_that_readers_understand_differently_are_refused(house: House, members: str) -> None:
    answer = await house.raw(wire.post(CHAT_PATH, house.token, _with(GATEWAY[CHAT_PATH], ODD_MEMBERS[members])))
    assert wire.status(answer) == 400, answer[:500]


@pytest.mark.parametrize("path", CONTROL)
async def test_control_api_refuses_what_is_not_json(house: House, path: str) -> None:
    owner = house.keygate.sign_in()
    bodies = NOT_JSON | {
        "surrogate": b'{"name": "\\ud800"}',
        "surrogate as a name": b'{"\\ud800": 1}',
        "very many names": b"{" + b",".join(b'"n%d":1' % n for n in range(60_000)) + b"}",
        "endless digits": b'{"name": ' + b"9" * 100_000 + b"}",
        "huge exponent": b'{"name": 1e999999}',
        "NUL": b'{"name": "a\\u0000b"}',
        "deep value": b'{"name": ' + b"[" * 900 + b"]" * 900 + b"}",
        "deep tags": b'{"name": "a", "tags": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    }
    for name, body in bodies.items():
        ((status, headers, told),) = wire.answers(await house.raw(wire.post(path, owner, body)))
        assert status in {401, 413, 422, 429}, (name, told[:500])
        assert headers["content-type"].startswith("application/problem+json"), name
        assert json.loads(told)["code"], name


@pytest.mark.parametrize("path", [CHAT_PATH, "/anthropic/v1/messages", "/api/v1/teams", "/api/v1/auth/login", "/nothing"])
async def test_declared_oversize_is_refused_without_reading_it(house: House, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: keygate\r\nAuthorization: Bearer {house.token}\r\nContent-Type: application/json\r\n".encode()
    answer = await house.raw(head + b"Content-Length: 99999999999\r\n\r\n", seconds=8)
    assert wire.status(answer) in {413, 404}, answer[:500]
    expecting = await house.raw(head + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n", seconds=8)
    assert wire.status(expecting) in {413, 404}, expecting[:500]


@pytest.mark.parametrize("path", [CHAT_PATH, "/anthropic/v1/messages", "/api/v1/teams", "/api/v1/auth/login", "/nothing", "/health"])
@pytest.mark.parametrize("piece", [b"10000\r\n" + b" " * 65536 + b"\r\n", b"1\r\n \r\n" * 5000], ids=["large chunks", "small chunks"])
async def test_endless_bodies_end(house: House, path: str, piece: bytes) -> None:
    """In large and in tiny chunks; whoever pours is cut off, and little of it is ever kept."""
    before = house.resident()
    head = f"POST {path} HTTP/1.1\r\nHost: keygate\r\nAuthorization: Bearer {house.token}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with asyncio.timeout(wire.PATIENCE), wire.connection(house.port) as (reader, writer):
        writer.write(head)

        async def pour() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(piece)
                    await writer.drain()

        pouring = asyncio.create_task(pour())
        with contextlib.suppress(ConnectionError):
            answer = await reader.read(65536)
            assert wire.status(answer) in {413, 400, 404, 405, 401, 422}, answer[:300]
        await pouring
    assert house.resident() - before < 48 * 2**20


async def test_chunk_extensions_and_odd_sizes_carry_nothing(house: House) -> None:
    """Allowed by RFC 9112 (section 7.1.1), of no meaning: the body is what the chunks hold."""
    body = wire.chat()
    pieces = b"".join(b"%X;name=value\r\n%b\r\n" % (1, body[n : n + 1]) for n in range(len(body)))
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: keygate\r\nAuthorization: Bearer {house.token}\r\n".encode()
    answer = await house.raw(head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + pieces + b"000000\r\n\r\n")
    assert wire.status(answer) == 200, answer[:500]
    assert house.vendor.upstream.seen[-1].body == body
