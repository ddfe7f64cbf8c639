"""Bytes to a KeyGate and bytes back, always within a time: a test here that waits for ever is a product that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

PATIENCE = 15.0  # seconds; more than every time-out that the house is started with, together
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def post(path: str, token: str, body: bytes, *headers: str, close: bool = True) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: keygate",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
        *(["Connection: close"] if close else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, token: str, *headers: str, close: bool = True) -> bytes:
    ending = ["Connection: close"] if close else []
    return (
        "\r\n".join([f"GET {path} HTTP/1.1", "Host: keygate", f"Authorization: Bearer {token}", *headers, *ending]).encode() + b"\r\n\r\n"
    )


def chat(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4.1", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]} | members).encode()


def messages(**members: Any) -> bytes:
    return json.dumps(
        {"model": "claude-sonnet-4-5", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]} | members
    ).encode()


@contextlib.asynccontextmanager
async def connection(port: int, *, limit: int = 2**16) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Ends with the block, whatever happens in it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def raw(port: int, data: bytes, *, seconds: float = PATIENCE, half_close: bool = False) -> bytes:
    """Sends all of it and returns all that comes until KeyGate closes the connection. TimeoutError: it hangs."""
    async with asyncio.timeout(seconds), connection(port, limit=2**24) as (reader, writer):
        got = bytearray()

        async def listen() -> None:
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(65536):
                    got.extend(piece)

        listening = asyncio.create_task(listen())
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
                if half_close:
                    writer.write_eof()
            await listening
        finally:
            listening.cancel()
    return bytes(got)


def status(answer: bytes) -> int:
    """Of the first answer; 0 where the connection was closed without one."""
    found = _STATUS.match(answer)
    return int(found[1]) if found else 0


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Every answer on a connection, framed strictly: anything that doesn't fit raises."""
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"an answer's head is cut off: {head[:200]!r}"
        line, *rest = head.decode("latin-1").split("\r\n")
        match = _STATUS.match(line.encode() + b" ")
        assert match, f"not a status line: {line[:200]!r}"
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
        code = int(match[1])
        body = b""
        if "content-length" in headers:
            assert "transfer-encoding" not in headers
            length = int(headers["content-length"])
            body, data = data[:length], data[length:]
            assert len(body) == length, "an answer is shorter than it says"
        elif headers.get("transfer-encoding") == "chunked":
            body, data = _unchunk(data)
        found.append((code, headers, body))
    return found


def _unchunk(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, separator, data = data.partition(b"\r\n")
        assert separator, "a chunked answer is cut off"
        length = int(size, 16)
        body += data[:length]
        assert data[length : length + 2] == b"\r\n", "a chunk is not as long as it says"
        data = data[length + 2 :]
        if length == 0:
            return body, data
