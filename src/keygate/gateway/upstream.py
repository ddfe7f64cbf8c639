"""Connections to vendors: a thin HTTP/1.1 client on httptools. One request at a time on each, kept alive in a pool per origin.

What comes back is judged strictly: whatever breaks HTTP ends the exchange as lost and the connection with it, and a connection
on which anything stands behind a whole answer is never used again.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, NamedTuple, final

import httptools

from keygate.gateway.http1 import MAX_HEADERS, Header, HeadInvalid, ResponseHead, read_response_head
from keygate.gateway.ticker import Ticker

_MAX_OVERHEAD: Final = 512 * 1024  # bytes that are no body, between two pieces of body: head, chunk framing, trailers
_MAX_INFORMATIONAL: Final = 8
_JOIN_BELOW: Final = 64 * 1024  # head and body go out as one write below this


class Origin(NamedTuple):
    host: str
    port: int
    tls: bool


class Receiver(ABC):
    """Who gets an answer. Called outside the parser, in this order: head, data (any number of times), `complete` with the last."""

    __slots__ = ()

    @abstractmethod
    def upstream_head(self, status: int, head: ResponseHead) -> None:
        """Status and headers have come."""

    @abstractmethod
    def upstream_data(self, data: bytes, *, complete: bool) -> None:
        """A part of the body, decoded from its chunks; `complete` with the last, which may be empty."""

    @abstractmethod
    def upstream_whole(self, status: int, head: ResponseHead, body: bytes) -> None:
        """Head, body and end at once, instead of the two above."""

    @abstractmethod
    def upstream_lost(self, reason: str, *, timed_out: bool) -> None:
        """The answer ended before it was whole; nothing follows."""


@final
class UpstreamConnection:
    """One connection. Free (in its pool, `receiver` None) or busy with one request. An `asyncio.Protocol` by its methods, not by its class,
    which would not compile."""

    __slots__ = (
        "_answered",
        "_body",
        "_complete",
        "_head",
        "_headers",
        "_informational",
        "_keep",
        "_overhead",
        "_parser",
        "_reason",
        "_ticker",
        "closed",
        "fresh",
        "on_body",
        "parts",
        "paused",
        "pool",
        "receiver",
        "seen",
        "sent_at",
        "served",
        "transport",
        "untaken",
        "until_close",
    )

    def __init__(self, pool: Pool, ticker: Ticker) -> None:
        self.pool = pool
        self._ticker = ticker
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        self.closed = False
        self.served = 0  # whole answers so far; 0 means that the connection is fresh
        self.seen = self.sent_at = ticker.now
        self.untaken = False  # the vendor closed before it had the request: it can't have served it
        self.paused = False
        self.parts: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self.parts.append  # the parser calls the list itself
        self._headers: list[Header] = []
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._answered = self._complete = self._keep = self.until_close = False
        self._head: tuple[int, ResponseHead] | None = None
        self._reason: str | None = None
        self._overhead = self._informational = 0
        self._body = b""

    # the request

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        transport = self.transport
        assert transport is not None  # noqa: S101  (connections are handed out connected)
        self.receiver = receiver
        self.seen = self.sent_at = self._ticker.now
        self.pool.busy.add(self)
        if len(body) < _JOIN_BELOW:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    @property
    def answered(self) -> bool:
        """At least one byte of the answer has come."""
        return self._answered

    def pause(self) -> None:
        if not self.paused and not self.closed and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self.seen = self._ticker.now
            if not self.closed and self.transport is not None:
                self.transport.resume_reading()

    def abandon(self) -> None:
        """Nobody wants the rest of this answer: the connection ends, and no receiver hears of it."""
        self.receiver = None
        self._discard()

    # from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # loops give stream protocols a Transport

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:
            self._discard()  # nobody asked
            return
        self.seen = self._ticker.now
        self._answered = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                reason = self._reason or f"its answer is not valid HTTP ({error})"
                if not self._reason:
                    self._deliver(receiver)  # what stood before the fault is good
                self._lose(reason)
                return
            self._keep = False  # garbage behind a whole answer
        self._deliver(receiver)

    def _deliver(self, receiver: Receiver) -> None:
        """Hands on what the parser has found so far."""
        if self._complete:
            body = self._body
            self.parts.clear()  # of whatever stands behind the answer
        else:
            body = self._joined()
            if body:
                self._overhead = 0
            elif self._overhead > _MAX_OVERHEAD:
                self._lose("its answer has an endless head or trailer")
                return
        head = self._head
        if head is not None:
            self._head = None
            if self._complete:
                self._finish(receiver, body, head)
                return
            receiver.upstream_head(head[0], head[1])
        if self.receiver is receiver:
            if self._complete:
                self._finish(receiver, body)
            elif body:
                receiver.upstream_data(body, complete=False)

    def _joined(self) -> bytes:
        parts = self.parts
        if not parts:
            return b""
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def eof_received(self) -> bool:
        if self.receiver is not None and self.until_close and not self._complete:
            self._complete = True
            self._finish(self.receiver, b"")
        elif self.receiver is not None and not self._answered:
            self.untaken = self.served > 0 and _unacknowledged(self.transport) > 0
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        receiver = self.receiver
        if receiver is not None:
            if self.until_close and exc is None and not self._complete:
                self._finish(receiver, b"")
            else:
                self._lose("it closed the connection before its answer was whole" if self._answered else "it closed the connection")
        self.pool.forget(self)

    def pause_writing(self) -> None:
        """The transport keeps what the vendor does not take yet: at most one request, whose size is bounded."""

    def resume_writing(self) -> None: ...

    def _finish(self, receiver: Receiver, body: bytes, head: tuple[int, ResponseHead] | None = None) -> None:
        self.receiver = None
        self.pool.busy.discard(self)
        self.resume()
        if self._keep and not self.closed:
            self.served += 1
            self._reset()
            self.pool.give_back(self)
        else:
            self._discard()
        if head is not None:
            receiver.upstream_whole(head[0], head[1], body)
        else:
            receiver.upstream_data(body, complete=True)

    def _lose(self, reason: str, *, timed_out: bool = False) -> None:
        receiver, self.receiver = self.receiver, None
        self._discard()
        if receiver is not None:
            receiver.upstream_lost(reason, timed_out=timed_out)

    def _discard(self) -> None:
        self.closed = True
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.abort()

    def sweep(self, now: float, first_byte: float, idle: float) -> None:
        """Ends an answer that doesn't come or doesn't go on. While the caller is slow to read, the clock stands still."""
        if self.paused or self.receiver is None:
            return
        if self._informational != -1:  # no whole head yet: a byte of it now and then is no answer
            if now - self.sent_at > first_byte:
                self._lose(f"it did not answer within {first_byte:g} seconds", timed_out=True)
        elif now - self.seen > idle:
            self._lose(f"its answer stood still for {idle:g} seconds", timed_out=True)

    # from the parser

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # something stands behind a whole answer
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        headers.append((name, value))
        if len(headers) > MAX_HEADERS:
            raise self._refuse(f"its answer has more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._informational += 1
            if status < 100 or status == 101 or self._informational > _MAX_INFORMATIONAL:
                raise self._refuse(f"its answer has the status {status}, which nobody asked for")
            return
        if status > 599:
            raise self._refuse(f"its answer has the status {status}, which does not exist")
        try:
            head = read_response_head(self._headers)
        except HeadInvalid as error:
            raise self._refuse(f"its answer is not valid HTTP ({error})") from None
        self._headers = []  # trailers are counted from here, and dropped
        self._head = (status, head)
        self._keep = self._parser.should_keep_alive()
        self.until_close = head.content_length is None and not head.chunked and status not in (204, 304)
        self._informational = -1

    def on_message_complete(self) -> None:
        if self._informational == -1 and not self._complete:
            self._complete = True
            self._body = self._joined()

    def _refuse(self, reason: str) -> ValueError:
        self._reason = reason
        return ValueError(reason)


def _unacknowledged(transport: asyncio.Transport | None) -> int:
    """Bytes that were sent and that the other side's kernel has not acknowledged (Linux, tcp(7): SIOCOUTQ). The end of a connection
    acknowledges whatever was read before it, so bytes left open then were never read. 0 where that can't be told."""
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or sys.platform != "linux":
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


@final
class Pool:
    """The connections to one origin. The last one used is the next one used, so that idle ones grow old and are closed."""

    def __init__(self, origin: Origin, *, limit: int) -> None:
        self.origin = origin
        self.limit = limit
        self.free: list[UpstreamConnection] = []
        self.busy: set[UpstreamConnection] = set()
        self.connecting = 0

    def take(self) -> UpstreamConnection | None:
        free = self.free
        while free:
            connection = free.pop()
            if not connection.closed and connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    @property
    def full(self) -> bool:
        return len(self.busy) + self.connecting >= self.limit

    def give_back(self, connection: UpstreamConnection) -> None:
        self.free.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        self.busy.discard(connection)
        if connection in self.free:
            self.free.remove(connection)

    def sweep(self, now: float, *, first_byte: float, idle: float, keep: float) -> None:
        for connection in list(self.busy):
            connection.sweep(now, first_byte, idle)
        while self.free and now - self.free[0].seen > keep:  # the oldest stand in front
            self.free[0].abandon()

    def close(self) -> None:
        for connection in [*self.free, *self.busy]:
            connection.abandon()
