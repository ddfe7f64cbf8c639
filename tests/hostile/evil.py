"""A vendor that lies, floods, stalls and breaks off: `Upstream` of the transport tests, in a thread of its own, with more to try.

The header `x-mode` of a request chooses what comes back; without it the answer is as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import threading
from types import TracebackType
from typing import Self

from tests.gateway.upstream import CHAT, DONE, SSE_HEAD, USAGE, Seen, Upstream, chunk, delta, event, plain

MESSAGE = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
).encode()


BOMB = gzip.compress(b" " * 100_000_000)


def usage(**members: object) -> bytes:
    return json.dumps({**json.loads(CHAT), "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15} | members}).encode()


class EvilUpstream(Upstream):
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the end of the vendor
            await super()._serve(reader, writer)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """As the other, and it believes nothing of what a body says but whether it wants a stream."""
        line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")[:-4].split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (text.partition(":") for text in rest)]
        sent = dict(headers)
        body = await reader.readexactly(int(sent.get("content-length", "0")))
        self.seen.append(Seen(line, headers, body))
        mode = sent.get("x-mode") or ("sse" if re.search(rb'"stream": ?true', body) else "plain")
        answered: bool = await getattr(self, f"_{mode.replace('-', '_')}")(writer)
        return answered

    async def _plain(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(MESSAGE if "/messages" in self.seen[-1].line else CHAT))
        return True

    async def _drip(self, writer: asyncio.StreamWriter, data: bytes, pause: float) -> None:
        for byte in data:
            await self._send(writer, bytes((byte,)))
            await asyncio.sleep(pause)

    async def _informational_flood(self, writer: asyncio.StreamWriter) -> bool:
        while True:
            await self._send(writer, b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * 200)

    async def _slow_informational(self, writer: asyncio.StreamWriter) -> bool:
        while True:  # a byte now and then must not keep a call alive for ever
            await self._send(writer, b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.2)

    async def _slow_head(self, writer: asyncio.StreamWriter) -> bool:
        await self._drip(writer, b"HTTP/1.1 200 OK\r\nx-slow: " + b"a" * 10_000, 0.2)
        return False

    async def _huge_header(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"x-huge: " + b"a" * 5_000_000 + b"\r\n"))
        return True

    async def _folded_header(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"x-folded: a\r\n x-evil: b\r\n"))
        return True

    async def _bare_line_feed(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"x-a: b\nx-evil: c\r\n"))
        return True

    async def _bare_carriage_return(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"x-a: b\rx-evil: c\r\n"))
        return True

    async def _nul_header(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(extra=b"x-a: b\x00c\r\n"))
        return True

    async def _negative_length(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n" + CHAT)
        return False

    async def _huge_length(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999999999999999\r\n\r\n" + CHAT)
        return False

    async def _overflowing_length(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n" + CHAT)
        return False

    async def _odd_coding(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n" + chunk(CHAT) + b"0\r\n\r\n")
        return False

    async def _chunk_overflow(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(delta("one")), b"ffffffffffffffffff\r\nabc\r\n")
        return False

    async def _chunk_extension_flood(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(delta("one")), b"5;")
        while True:
            await self._send(writer, b"a" * 65536)

    async def _trailer_flood(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(delta("one")), chunk(USAGE), chunk(DONE), b"0\r\n")
        while True:
            await self._send(writer, b"x-evil: a\r\n" * 5000)

    async def _trailer(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(delta("one")), chunk(USAGE), chunk(DONE), b"0\r\nx-evil: a\r\n\r\n")
        return True

    async def _slow_body(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(CHAT))
        await self._drip(writer, CHAT[:20], 0.05)
        await asyncio.sleep(60)
        return False

    async def _endless_body(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await self._send(writer, chunk(b" " * 65536))

    async def _endless_event(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD, chunk(b"data: "))
        while True:  # one event that never ends
            await self._send(writer, chunk(b"x" * 65536))

    async def _endless_events(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, SSE_HEAD)
        while True:
            await self._send(writer, chunk(b"\n" * 65536))

    async def _gzip_bomb(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(BOMB, extra=b"Content-Encoding: gzip\r\n"))
        return True

    async def _no_status(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, CHAT)
        return False

    async def _odd_status(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(status="999 Strange"))
        return True

    async def _zero_status(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(status="000 Nothing"))
        return True

    async def _reason_injection(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(status="200 OK\tx\x01"))
        return True

    async def _no_content(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")
        return True

    async def _not_modified(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n")
        return True

    async def _http2(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(
            writer, b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff"
        )
        await asyncio.sleep(60)
        return False

    async def _silent_close(self, writer: asyncio.StreamWriter) -> bool:
        return False

    async def _half_head(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: applic")
        return False

    async def _usage_huge(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(usage(prompt_tokens=10**30, completion_tokens=10**30)))
        return True

    async def _usage_negative(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(usage(prompt_tokens=-10, completion_tokens=-1_000_000)))
        return True

    async def _usage_nonsense(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(usage(prompt_tokens="ten", completion_tokens=[5], prompt_tokens_details="x")))
        return True

    async def _usage_float(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(usage(prompt_tokens=1e308, completion_tokens=0.5)))
        return True

    async def _deep_answer(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(b'{"usage":' + b"[" * 200_000 + b"]" * 200_000 + b"}"))
        return True

    async def _not_utf8(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(CHAT.replace(b"hello", b"\xff\xfe\xed\xa0\x80")))
        return True

    async def _stream_not_utf8(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(
            writer, SSE_HEAD, chunk(b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n'), chunk(USAGE), chunk(DONE), b"0\r\n\r\n"
        )
        return True

    async def _stream_nonsense(self, writer: asyncio.StreamWriter) -> bool:
        pieces = (
            event("{"),
            event("null"),
            event('{"usage": 5}'),
            event("[" * 50_000),
            b"\r\r\n\n: \x00\n\ndata\n\n",
            event('{"choices": {}}'),
        )
        await self._send(writer, SSE_HEAD, *map(chunk, pieces), chunk(USAGE), chunk(DONE), b"0\r\n\r\n")
        return True

    async def _stream_plain(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(b"<html>busy</html>", kind=b"text/html"))
        return True

    async def _error_page(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(b"<html>\xff\x00</html>", "500 Internal Server Error", kind=b"text/html"))
        return True

    async def _injected_headers(self, writer: asyncio.StreamWriter) -> bool:
        mine = (
            b"x-keygate-cost-usd: 0\r\nx-keygate-origin: gateway\r\nSet-Cookie: a=b\r\nConnection: x-secret\r\nx-secret: 1\r\n"
            b"Keep-Alive: timeout=9999\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic\r\nopenai-organization: org-of-the-house\r\n"
        )
        await self._send(writer, plain(extra=mine))
        return True

    async def _chatter_after(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain())
        await asyncio.sleep(0.3)  # on a connection that lies idle in the pool
        await self._send(writer, plain(b'{"stolen": true}'))
        return True

    async def _answer_early(self, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, plain(b'{"error":{"message":"no"}}', "400 Bad Request", b"Connection: close\r\n"))
        return False


class EvilVendor:
    """`with EvilVendor() as vendor: vendor.upstream.seen`; base URLs: `{vendor.url}/v1` for OpenAI, `vendor.url` for Anthropic."""

    def __init__(self) -> None:
        self.upstream = EvilUpstream()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="evil-vendor", daemon=True)

    @property
    def url(self) -> str:
        return self.upstream.url

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.upstream.start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.close()

    def go(self) -> None:
        """Lets what waits (`held`, `stepped`, `torrent`…) come to its end; `hold()` makes later ones wait again."""
        self._loop.call_soon_threadsafe(self.upstream.go.set)

    def hold(self) -> None:
        self._loop.call_soon_threadsafe(self.upstream.go.clear)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _end(self) -> None:
        answering = asyncio.all_tasks() - {asyncio.current_task()}
        for task in answering:
            task.cancel()  # some of them would never end by themselves
        await asyncio.gather(*answering, return_exceptions=True)
        await self.upstream.stop()
