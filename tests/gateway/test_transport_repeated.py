"""A client that repeats itself on a connection gets the same answers as one that doesn't, however its bytes are cut."""

from __future__ import annotations

import asyncio
import json
import random
import time

import pytest
from tests.gateway.rig import chat, read_reply, request, running
from tests.gateway.upstream import CHAT

from keygate.gateway.http1 import read_request_head, request_spellings
from keygate.gateway.keyring import KeyEntry
from keygate.gateway.pipeline import Caller, Routes
from keygate.gateway.repeated import HeadTemplate, Request
from keygate.policies import KeyState, KeyStatus

SPELLINGS = request_spellings()
NO_MATCH = (-1, 0)
ROUTE = Routes().find(b"POST", b"/openai/v1/chat/completions")
assert ROUTE is not None


def caller() -> Caller:
    state = KeyState("vk_1", "p", "key", "org_1", None, None, None, KeyStatus.ACTIVE, (), None, (), (), ())
    return Caller(KeyEntry(state), b"", 0, state)


def head(length: bytes, key: bytes = b"Bearer k", first: bytes = b"POST /x HTTP/1.1", *, length_first: bool = False) -> bytes:
    lines = [first, b"Host: a", b"Authorization: " + key, b"X-A: b", b"Content-Length: " + length, b"X-C: d"]
    if length_first:
        lines[2], lines[4] = lines[4], lines[2]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def template(data: bytes) -> HeadTemplate:
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in data.split(b"\r\n\r\n")[0].split(b"\r\n")[1:])]
    parsed = read_request_head(headers, SPELLINGS)
    made = HeadTemplate.of(data, headers, SPELLINGS, Request(parsed, ROUTE, b"POST", b"", caller()))
    assert made is not None
    return made


@pytest.mark.parametrize("length_first", [False, True])
def test_only_the_length_may_differ(length_first: bool) -> None:
    made = template(head(b"5", length_first=length_first) + b"hello")
    for length in (b"0", b"5", b"12", b"999999999"):
        data = head(length, length_first=length_first)
        assert made.match(data + b"body") == (int(length), len(data))
    for odd in (b"", b"-1", b"+5", b" 5", b"5 ", b"5,5", b"0x5", b"1234567890", b"\xb2"):
        assert made.match(head(odd, length_first=length_first)) == NO_MATCH
    assert made.match(head(b"5", b"Bearer j", length_first=length_first)) == NO_MATCH
    assert made.match(head(b"5", b"Bearer kk", length_first=length_first)) == NO_MATCH
    assert made.match(head(b"5", first=b"POST /y HTTP/1.1", length_first=length_first)) == NO_MATCH
    assert made.match(head(b"5", length_first=not length_first)) == NO_MATCH


@pytest.mark.parametrize("length_first", [False, True])
def test_no_changed_byte_is_overlooked(length_first: bool) -> None:
    data = head(b"5", length_first=length_first)
    made = template(data + b"hello")
    digit = data.index(b"Content-Length: 5") + 16
    for at in range(len(data)):
        for other in (b"\r", b"\n", b":", b"x", b"\x00"):
            changed = data[:at] + other + data[at + 1 :]
            if changed != data and at != digit:
                assert made.match(changed) == NO_MATCH, (at, other)
        assert made.match(data[:at]) == NO_MATCH


@pytest.mark.parametrize("seed", range(8))
async def test_repeated_requests_are_answered_in_order_however_they_are_cut(seed: int) -> None:
    choose = random.Random(seed)
    async with running() as rig:
        token, _ = rig.key()
        other, _ = rig.key()
        sent, data = [], b""
        for number in range(12):
            body = chat(max_tokens=number + 1, user="u" * choose.randrange(200))
            sent.append(body)
            data += request(choose.choice([token, token, token, other]), body)
            if choose.random() < 0.2:
                data += b"POST /api/x HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nok"
                sent.append(None)
        reader, writer = await rig.open()

        async def pour() -> None:
            at = 0
            while at < len(data):
                step = choose.choice([1, 7, 60, 400, 400, 2000])
                writer.write(data[at : at + step])
                at += step
                await asyncio.sleep(choose.choice([0, 0, 0.001]))

        pouring = asyncio.create_task(pour())
        for body in sent:
            reply = await asyncio.wait_for(read_reply(reader), 10)
            assert reply.body == (b"asgi /api/x ok" if body is None else CHAT)
        await pouring
        assert [json.loads(seen.body) for seen in rig.upstream.seen] == [body for body in sent if body is not None]
        rig.nothing_leaks()
        writer.close()


async def test_repeated_head_with_a_late_body_times_out() -> None:
    async with running(client_timeout=0.75) as rig:
        token, _ = rig.key()
        data = request(token, chat(max_tokens=1))
        reader, writer = await rig.open()
        for _ in range(3):
            writer.write(data)
            assert (await read_reply(reader)).status == 200
        writer.write(data[:-5])
        assert (await asyncio.wait_for(read_reply(reader), 5)).status == 408
        writer.close()
        rig.nothing_leaks()


async def test_repeated_head_that_promises_too_much_is_refused() -> None:
    async with running(max_body_bytes=2000) as rig:
        token, _ = rig.key()
        data = request(token, chat(max_tokens=1))
        reader, writer = await rig.open()
        for _ in range(3):
            writer.write(data)
            assert (await read_reply(reader)).status == 200
        writer.write(data.partition(b"\r\n\r\n")[0].replace(b"Content-Length: ", b"Content-Length: 9999") + b"\r\n\r\n" + b"x" * 10)
        assert (await asyncio.wait_for(read_reply(reader), 5)).status == 413
        writer.close()
        rig.nothing_leaks()


async def test_key_that_expires_between_two_repetitions_is_refused() -> None:
    async with running() as rig:
        token, _ = rig.key(expires_at_ns=time.time_ns() + 500_000_000)
        data = request(token, chat(max_tokens=1))
        reader, writer = await rig.open()
        for _ in range(3):
            writer.write(data)
            assert (await read_reply(reader)).status == 200
        await asyncio.sleep(0.55)
        writer.write(data)
        assert (await read_reply(reader)).status == 401
        writer.close()
