"""The load: keep-alive connections that send one request after another (closed), or at a steady rate (open), on uvloop.

Open load measures from the moment a request was due, so that a stall shows in every request that it delayed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle


@dataclass(slots=True)
class Tally:
    requests: int = 0
    failed: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class _Caller(asyncio.Protocol):
    """One connection: sends `request` when told, reads the answer to its end."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = bytearray()
        self._due = 0.0
        self._needed = -1
        self._chunked = False
        self._failed = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TCP client's transports are full ones

    def send(self, due: float) -> None:
        self._due = due
        self._needed = -1
        self._buffer.clear()
        self.transport.write(next(self._run.requests))

    def data_received(self, data: bytes) -> None:
        if self._chunked and self._needed == -2:
            if data.endswith(b"0\r\n\r\n"):
                self._finish()
            return
        self._buffer += data
        if self._needed == -1:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            self._failed = not head.startswith(b"http/1.1 200")
            self._chunked = b"transfer-encoding: chunked" in head
            if self._chunked:
                self._needed = -2
                if self._buffer.endswith(b"\r\n0\r\n\r\n"):
                    self._finish()
                return
            at = head.find(b"content-length:")
            self._needed = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) >= self._needed:
            self._finish()

    def _finish(self) -> None:
        self._run.finished(self, self._due, failed=self._failed)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio names it)
        self._run.lost()


class _Run:
    def __init__(self, requests: Sequence[bytes], *, seconds: float, rate: float | None, most: int | None) -> None:
        self.requests = cycle(requests)
        self._most = most
        self.tally = Tally()
        self._loop = asyncio.get_running_loop()
        self._rate = rate
        self._start = self._end = 0.0
        self._seconds = seconds
        self._idle: deque[_Caller] = deque()
        self._waiting: deque[float] = deque()
        self.done = self._loop.create_future()

    def start(self, callers: list[_Caller]) -> None:
        self._start = time.perf_counter()
        self._end = self._start + self._seconds
        if self._rate is None:
            for caller in callers:
                caller.send(time.perf_counter())
        else:
            self._idle.extend(callers)
            self._tick(0)
        self._loop.call_later(self._seconds + 0.05, self._stop)

    def _tick(self, sent: int) -> None:
        assert self._rate is not None
        now = time.perf_counter()
        while (due := self._start + sent / self._rate) <= now and due < self._end:
            sent += 1
            if self._idle:
                self._idle.popleft().send(due)
            else:
                self._waiting.append(due)
        if now < self._end:
            self._loop.call_later(max(0.0, self._start + sent / self._rate - time.perf_counter()), self._tick, sent)

    def finished(self, caller: _Caller, due: float, *, failed: bool) -> None:
        now = time.perf_counter()
        self.tally.requests += 1
        self.tally.failed += failed
        self.tally.latencies.append(now - due)
        if self._rate is None:
            if now < self._end and (self._most is None or self.tally.requests < self._most):
                caller.send(now)
            elif self._most is not None:
                self._stop()
        elif self._waiting:
            caller.send(self._waiting.popleft())
        else:
            self._idle.append(caller)

    def lost(self) -> None:
        if not self.done.done():
            self.tally.failed += 1

    def _stop(self) -> None:
        if self.done.done():
            return
        self.tally.seconds = time.perf_counter() - self._start
        self.done.set_result(None)


def request_bytes(path: str, body: bytes, *, token: str, port: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\n"
        "accept: application/json\r\nuser-agent: OpenAI/Python 2.54.0\r\nx-stainless-lang: python\r\n"
        "x-stainless-package-version: 2.54.0\r\nx-stainless-os: Linux\r\nx-stainless-arch: x64\r\nx-stainless-runtime: CPython\r\n"
        "x-stainless-runtime-version: 3.11.7\r\n"
        f"x-stainless-async: false\r\nx-stainless-retry-count: 0\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def drive(
    port: int, requests: bytes | Sequence[bytes], *, connections: int, seconds: float, rate: float | None = None, most: int | None = None
) -> Tally:
    """Sends `requests` in turn over `connections` for `seconds`, or until `most` are answered; at `rate` requests a second, or as fast as
    answers come."""
    run = _Run([requests] if isinstance(requests, bytes) else requests, seconds=seconds, rate=rate, most=most)
    callers = []
    for _ in range(connections):
        _, caller = await asyncio.get_running_loop().create_connection(lambda: _Caller(run), "127.0.0.1", port)
        callers.append(caller)
    run.start(callers)
    await run.done
    for caller in callers:
        caller.transport.abort()
    return run.tally
