"""An HTTP/1.1 client for load: one keep-alive connection each, one request at a time, that can leave as rudely as real clients do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HANG = 90.0  # seconds after which an answer that doesn't end is a failure of the server
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER without time: closing sends RST


class Hangs(AssertionError):
    """The server neither answered nor closed."""


@dataclass(slots=True)
class Answer:
    """What came back. `status` 0: nothing did. `whole`: the answer ended as its framing said."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    left: bool = False  # the caller went away
    ended: float = 0.0  # time.monotonic()

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The error of a refusal, OpenAI's and Anthropic's the same: `code` and `message`."""
        found = self.json()["error"]
        return {"message": found["message"], "code": found.get("code") or found.get("details", {}).get("error_code")}

    def events(self) -> list[dict[str, Any]]:
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


class Caller:
    """A client's connection; opened at the first call, and anew whenever it was closed."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(
        self, request: bytes, *, leave_after: float | None = None, watch: Callable[[bytes], None] | None = None, rudely: bool = True
    ) -> Answer:
        """Sends `request` and reads its answer; never raises for what the server does, but for a hang. `leave_after`: seconds until the
        caller vanishes, `rudely` by a reset. `watch` sees each piece of the body as it comes."""
        answer = Answer()
        try:
            async with asyncio.timeout(HANG if leave_after is None else leave_after):
                kept = self._reader
                reader, writer = await self._open()
                writer.write(request)
                try:
                    await self._read(reader, answer, watch)
                except (OSError, EOFError):
                    if answer.status or reader is not kept:
                        raise
                    self.close()  # kept, and closed by the server as we wrote: what every client's pool tries again
                    reader, writer = await self._open()
                    writer.write(request)
                    await self._read(reader, answer, watch)
        except TimeoutError:
            if leave_after is None:
                self.vanish()
                raise Hangs(f"no end of the answer within {HANG} s: {request[:80]!r}") from None
            answer.left = True
            self.vanish(rudely=rudely)
        except (OSError, EOFError):
            self.close()
        answer.ended = time.monotonic()
        return answer

    async def begin(self, request: bytes) -> None:
        """Sends without reading anything."""
        _, writer = await self._open()
        writer.write(request)
        await writer.drain()

    def half_close(self) -> None:
        if self._writer is not None:
            self._writer.write_eof()

    def vanish(self, *, rudely: bool = True) -> None:
        """Gone without another word; rudely: by a reset."""
        if self._writer is not None:
            connection = self._writer.get_extra_info("socket")
            if rudely and connection is not None:
                with contextlib.suppress(OSError):  # it is gone already
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._writer.transport.abort()
        self._reader = self._writer = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            made = socket.socket()
            made.setblocking(False)
            if self._receive_buffer is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            try:
                await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self._port))
                self._reader, self._writer = await asyncio.open_connection(sock=made, limit=max(self._receive_buffer or 2**16, 2**15))
            except BaseException:
                made.close()
                raise
        return self._reader, self._writer

    async def _read(self, reader: asyncio.StreamReader, answer: Answer, watch: Callable[[bytes], None] | None) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        answer.status = int(first.split(" ", 2)[1])
        answer.headers = headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
                piece = (await reader.readexactly(size + 2))[:-2]
                answer.body += piece
                if watch is not None:
                    watch(piece)
            await reader.readexactly(2)
        elif answer.status not in (204, 304):
            needed = int(headers.get("content-length", "0"))
            while needed:
                piece = await reader.read(min(needed, 2**16))
                if not piece:
                    raise EOFError
                needed -= len(piece)
                answer.body += piece
                if watch is not None:
                    watch(piece)
        answer.whole = True
        if headers.get("connection") == "close":
            self.close()


def request(method: str, path: str, token: str, body: Any = None, *, anthropic: bool = False) -> bytes:
    """The bytes of a JSON request, with the key as each vendor's SDK sends it."""
    data = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    key = f"x-api-key: {token}\r\nanthropic-version: 2023-06-01" if anthropic else f"authorization: Bearer {token}"
    return (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{key}\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    ).encode() + data
