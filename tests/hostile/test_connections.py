"""Connections that only wait, drip or don't read: they cost little, they end, and they stand in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psutil
import pytest
from tests.hostile import wire
from tests.hostile.house import CHAT_PATH, House

IDLE = 2000


async def _open(house: House, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for _ in range(0, count, 100):
        opened += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", house.port, limit=1024) for _ in range(100)))
    return opened


def _drop(opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    for _, writer in opened:
        writer.transport.abort()


async def _open_at_the_house(house: House) -> int:
    assert house.keygate.process is not None
    found = await asyncio.to_thread(psutil.Process(house.keygate.process.pid).net_connections, "tcp")
    return sum(connection.laddr.port == house.port and connection.status == psutil.CONN_ESTABLISHED for connection in found)


async def test_two_thousand_idle_connections_stand_in_nobodys_way(house: House) -> None:
    """Some say nothing at all, some have been served before and are kept alive, some have begun a head."""
    before = house.resident()
    opened = await _open(house, IDLE)
    try:
        for _, writer in opened[::3]:
            writer.write(wire.get("/health", "", close=False))
        for _, writer in opened[1::3]:
            writer.write(b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: keyg")
        await asyncio.sleep(0.5)
        took = []
        for _ in range(20):
            began = time.perf_counter()
            assert wire.status(await house.chat()) == 200
            assert wire.status(await house.raw(wire.get("/health", ""))) == 200
            took.append(time.perf_counter() - began)
        assert sorted(took)[10] < 0.5, took
        assert house.resident() - before < 64 * 2**20
    finally:
        _drop(opened)
    until = time.monotonic() + 10
    while await _open_at_the_house(house) > 10:
        assert time.monotonic() < until, "connections stay open after their callers have gone"
        await asyncio.sleep(0.1)


async def test_heads_that_never_end_are_ended(house: House) -> None:
    for path in (CHAT_PATH, "/api/v1/auth/login"):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: key".encode())

        async def drip(to: asyncio.StreamWriter = writer) -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    to.write(b"x")
                    await to.drain()
                    await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(wire.PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert wire.status(await reader.read(-1)) in {0, 408}
        dripping.cancel()
        writer.transport.abort()


@pytest.mark.parametrize("path", [CHAT_PATH, "/anthropic/v1/messages", "/api/v1/teams"])
async def test_bodies_that_never_come_are_ended(house: House, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: keygate\r\nAuthorization: Bearer {house.token}\r\nContent-Type: application/json\r\n"
    for framing in (b"Content-Length: 1000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
        answer = await house.raw(head.encode() + framing, seconds=40)
        assert wire.status(answer) in {0, 401, 408, 422}, answer[:300]


@pytest.mark.timeout(180)
async def test_fifty_slow_readers_cost_little_and_leave_no_hold(house: House) -> None:
    before = house.resident()
    readers = []
    for _ in range(50):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1024)
        writer.transport.pause_reading()
        writer.write(wire.post(CHAT_PATH, house.token, wire.chat(stream=True), "x-mode: torrent"))
        readers.append((reader, writer))
    await asyncio.sleep(1)
    took = []
    for _ in range(10):
        began = time.perf_counter()
        assert wire.status(await house.chat()) == 200
        took.append(time.perf_counter() - began)
    assert sorted(took)[5] < 1, took
    assert house.resident() - before < 120 * 2**20  # 50 answers, each held back after about a megabyte
    house.vendor.go()
    await house.calm(seconds=20)
    _drop(readers)


async def test_callers_who_vanish_at_any_moment_leave_nothing_behind(house: House) -> None:
    plain = wire.post(CHAT_PATH, house.token, wire.chat())
    streamed = wire.post(CHAT_PATH, house.token, wire.chat(stream=True))
    api = wire.post("/api/v1/teams", house.keygate.sign_in(), b'{"name": "left"}')
    for number, data in enumerate([plain, streamed, api] * 60):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(data if number % 2 else data[: len(data) * (number % 17) // 17])
        await asyncio.sleep(0.0005 * (number % 20))
        writer.transport.abort()
    await house.calm()


async def test_flood_of_made_up_keys_is_refused_quickly(house: House) -> None:
    """None of them reaches the database; real callers are served meanwhile."""
    made_up = [f"sk-kg-{n:051d}" for n in range(1000)]
    began = time.monotonic()
    for at in range(0, len(made_up), 50):
        found = await asyncio.gather(*(house.raw(wire.post(CHAT_PATH, key, wire.chat())) for key in made_up[at : at + 50]))
        assert {wire.status(answer) for answer in found} == {401}
        assert wire.status(await house.chat()) == 200
    assert time.monotonic() - began < 20
