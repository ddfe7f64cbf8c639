"""A vendor for transport tests: plain asyncio, and every way to misbehave. `x-mode` in a request chooses what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from dataclasses import dataclass, field

CHAT = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4.1-2025-04-14",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
).encode()


def event(data: object) -> bytes:
    return b"data: " + (data.encode() if isinstance(data, str) else json.dumps(data).encode()) + b"\n\n"


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4.1", "choices": [choice]})


USAGE = event(
    {"id": "chatcmpl-1", "choices": [], "model": "gpt-4.1", "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
)
DONE = event("[DONE]")


def plain(body: bytes = CHAT, status: str = "200 OK", extra: bytes = b"", kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nx-request-id: up-1\r\n%b\r\n%b" % (
        status.encode(),
        kind,
        len(body),
        extra,
        body,
    )


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nopenai-organization: secret-org\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Seen:
    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)


@dataclass
class Upstream:
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)  # `held` and `stepped` answers wait for it
    events: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    deaths: int = 0  # `once`: how many requests have died already

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.go.set()
        self._server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110  (a counter tells nobody)
                await asyncio.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self.writers.discard(writer)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head[:-4].split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (text.partition(":") for text in rest)]
        length = next((int(value) for name, value in headers if name == "content-length"), 0)
        body = await reader.readexactly(length)
        self.seen.append(Seen(line, headers, body))
        mode = next((value for name, value in headers if name == "x-mode"), "")
        if not mode:
            mode = "sse" if json.loads(body or b"{}").get("stream") else "plain"
        return await getattr(self, f"_{mode.replace('-', '_')}")(writer)

    async def _send(self, writer: asyncio.StreamWriter, *pieces: bytes) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    async def _plain(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain())
        return True

    async def _sse(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD)
        for text in ("a", "b", "c"):
            await self._send(writer, chunk(delta(text)))
            await asyncio.sleep(0.001)
        await self._send(writer, chunk(USAGE), chunk(DONE), b"0\r\n\r\n")
        return True

    async def _stepped(self, writer: asyncio.StreamWriter) -> bool:
        """Two events, then the rest once `go` is set."""
        await self._send(writer, SSE_HEAD, chunk(delta("one")))
        await self._send(writer, chunk(delta("two")))
        await self.go.wait()
        await self._send(writer, chunk(delta("three")), chunk(USAGE), chunk(DONE), b"0\r\n\r\n")
        return True

    async def _ticking(self, writer: asyncio.StreamWriter) -> bool:
        """An event every 20 ms until `go`."""
        await self._send(writer, SSE_HEAD)
        while not self.go.is_set():
            await self._send(writer, chunk(delta("tick")))
            self.events += 1
            await asyncio.sleep(0.02)
        await self._send(writer, chunk(USAGE), chunk(DONE), b"0\r\n\r\n")
        return True

    async def _torrent(self, writer: asyncio.StreamWriter) -> bool:
        """As much as is taken."""
        await self._send(writer, SSE_HEAD)
        text = delta("x" * 60_000)
        for _ in range(2000):
            if self.go.is_set():
                break
            await self._send(writer, chunk(text))
            self.events += 1
        await self._send(writer, chunk(USAGE), chunk(DONE), b"0\r\n\r\n")
        return True

    async def _held(self, writer: asyncio.StreamWriter) -> bool:
        await self.go.wait()
        return await self._plain(writer)

    async def _stall(self, writer: asyncio.StreamWriter) -> bool:
        await self.go.wait()
        return False

    async def _stall_mid(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(delta("one")))
        await self.go.wait()
        return False

    def _cut(self, writer: asyncio.StreamWriter) -> bool:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False

    async def _reset(self, writer: asyncio.StreamWriter) -> bool:
        return self._cut(writer)

    async def _once(self, writer: asyncio.StreamWriter) -> bool:
        """Dies on the first request, answers the second."""
        self.deaths += 1
        return self._cut(writer) if self.deaths == 1 else await self._plain(writer)

    async def _reset_mid(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(delta("one")))
        await asyncio.sleep(0.05)
        return self._cut(writer)

    async def _reset_plain(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain()[:-20])
        await asyncio.sleep(0.05)
        return self._cut(writer)

    async def _short(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain().replace(b"Content-Length: ", b"Content-Length: 9"))
        return False

    async def _long(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain() + b"surplus")
        return True

    async def _second(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain() + plain(b'{"stolen":true}'))
        return True

    async def _garbage(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"\x00\x01\x02 not http at all\r\n\r\n")
        return False

    async def _lengths(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"Content-Length: 3\r\n"))
        return False

    async def _smuggle(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"Transfer-Encoding: chunked\r\n"))
        return False

    async def _bad_chunk(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(delta("one")), b"zz\r\nnonsense\r\n")
        return False

    async def _endless_head(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nx-a: ")
        for _ in range(400):
            await self._send(writer, b"a" * 10_000)
        return False

    async def _many_headers(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"".join(b"x-%d: 1\r\n" % n for n in range(1000))))
        return False

    async def _switch(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        return False

    async def _early(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", plain())
        return True

    async def _until_close(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + CHAT)
        return False

    async def _brotli(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"Content-Encoding: br\r\n"))
        return True

    async def _redirect(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(b"", "307 Temporary Redirect", b"Location: https://elsewhere.example/\r\n"))
        return True

    async def _busy(self, writer: asyncio.StreamWriter) -> bool:
        error = b'{"error":{"message":"slow down","type":"rate_limit","param":null,"code":"rate_limit_exceeded"}}'
        await self._send(writer, plain(error, "429 Too Many Requests", b"retry-after: 7\r\nx-ratelimit-remaining-requests: 0\r\n"))
        return True

    async def _leaky(self, writer: asyncio.StreamWriter) -> bool:
        key = self.seen[-1].header("authorization") or ""
        error = json.dumps({"error": {"message": f"Incorrect API key: {key.removeprefix('Bearer ')}", "code": "invalid_api_key"}}).encode()
        await self._send(writer, plain(error, "401 Unauthorized"))
        return True

    async def _large(self, writer: asyncio.StreamWriter) -> bool:
        body = CHAT[:-1] + b', "padding": "' + b"p" * 3_000_000 + b'"}'
        await self._send(writer, plain(body))
        return True

    async def _no_usage(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(b'{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-4.1","choices":[]}'))
        return True
