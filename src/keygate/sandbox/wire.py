"""Bytes to and from one request: a bounded body in, JSON or a stream out, and the ways to break an answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from keygate.sandbox.model import Fault

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_BODY = 64 * 2**20
TRANSPORT = "keygate.sandbox.transport"  # ASGI extension of our own server: the connection itself
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER, no time: closing sends RST
_ENDLESS_PAUSE = 0.01


class CallerGoneError(Exception):
    """The caller closed the connection."""


class BodyTooLargeError(Exception):
    """The body is larger than `MAX_BODY`."""


class Connection:
    """One request's side of the wire."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        transport = scope.get("extensions", {}).get(TRANSPORT)
        self._transport: asyncio.Transport | None = transport

    async def body(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > MAX_BODY:
                raise BodyTooLargeError
            if not message.get("more_body"):
                return b"".join([*parts, part]) if parts else part
            parts.append(part)

    def gone(self) -> bool:
        return self._transport is not None and self._transport.is_closing()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def close(self) -> None:
        """Closes after what was written has left, without finishing the answer."""
        self._broken().close()
        await self.until_gone()

    async def reset(self) -> None:
        transport = self._broken()
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
        await self.until_gone()

    async def raw(self, data: bytes) -> None:
        """Bytes straight onto the connection, then its end."""
        self._broken().write(data)
        await self.close()

    def _broken(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("faults on the wire need the sandbox's own server")
        return self._transport

    async def misframed(self, fault: Fault, headers: Headers, body: bytes) -> None:
        """`body` in a frame that lies: LONG_LENGTH, SHORT_LENGTH, BAD_CHUNK, ENDLESS, CUT or HANG of a plain answer."""
        lines = [b"HTTP/1.1 200 OK", *(name + b": " + value for name, value in headers)]
        chunked = fault in {Fault.BAD_CHUNK, Fault.ENDLESS}
        length = {Fault.LONG_LENGTH: len(body) + 100, Fault.SHORT_LENGTH: max(len(body) - 10, 0)}.get(fault, len(body))
        lines.append(b"transfer-encoding: chunked" if chunked else b"content-length: " + str(length).encode())
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        match fault:
            case Fault.BAD_CHUNK:
                await self.raw(head + b"zz\r\n" + body + b"\r\n0\r\n\r\n")
            case Fault.ENDLESS:
                transport = self._broken()
                transport.write(head + f"{len(body):x}".encode() + b"\r\n" + body + b"\r\n")
                while not transport.is_closing():
                    if transport.get_write_buffer_size() < 2**20:
                        transport.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
                    await asyncio.sleep(_ENDLESS_PAUSE)
                await self.until_gone()
            case Fault.CUT:
                await self.raw(head + body[: len(body) // 2])
            case Fault.HANG:
                self._broken().write(head + body[: len(body) // 2])
                await self.until_gone()
            case _:
                await self.raw(head + body)
