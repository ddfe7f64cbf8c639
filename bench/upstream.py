"""A vendor that costs almost nothing: fixed answers in OpenAI's dialect, plain or as server-sent events.

    python -m bench.upstream PORT

`POST …` with `"stream":true` in the body gets `CHUNKS` events, one every `SPACING` seconds, each written by itself; else one JSON answer.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

CHUNKS = 66
SPACING = 0.002

_ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,"model":"gpt-4.1-mini-2025-04-14","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"'
    + b"All of it stands in the ledger. "
    * 24
    + b'","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":19,"completion_tokens":160,"total_tokens":179,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},'
    b'"service_tier":"default","system_fingerprint":"fp_bench"}'
)
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_DELTA = _chunk(
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4.1-mini-2025-04-14",'
    b'"service_tier":"default","system_fingerprint":"fp_bench","choices":[{"index":0,"delta":{"content":" ledger"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)
_USAGE = _chunk(
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4.1-mini-2025-04-14","choices":[],'
    b'"usage":{"prompt_tokens":19,"completion_tokens":64,"total_tokens":83}}\n\n'
)
_DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Vendor(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP server's transports are full ones

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            if len(rest) < length:
                return
            body, self._buffer = rest[:length], rest[length:]
            if b'"stream":true' in body:
                self._transport.write(_STREAM_HEAD)
                self._loop.call_later(SPACING, self._next, CHUNKS - 2)
            else:
                self._transport.write(_PLAIN)

    def _next(self, left: int) -> None:
        if self._transport.is_closing():
            return
        if left:
            self._transport.write(_DELTA)
            self._loop.call_later(SPACING, self._next, left - 1)
        else:
            self._transport.write(_USAGE)
            self._loop.call_later(SPACING, self._transport.write, _DONE)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Vendor, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
