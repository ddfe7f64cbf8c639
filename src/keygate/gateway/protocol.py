"""The server's side of a connection: uvicorn's own protocol, which here answers gateway mounts straight from the parser and leaves every
other path to ASGI. Answers leave in the order of their requests, whichever kind they are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keygate.gateway.connection import GatewayConnection
from keygate.gateway.exchange import Exchange
from keygate.gateway.http1 import (
    CONTINUE,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    STATUS_LINES,
    Header,
    HeadInvalid,
    read_request_head,
)
from keygate.gateway.incoming import Incoming

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from keygate.gateway.gateway import Gateway

_VERSIONS = frozenset({"1.1", "1.0"})
_MAX_PIPELINED = 16
_MAX_URL = 16 * 1024
_HEAD_TOO_LARGE = "The request's head is too large."
_LINGER = 2.0  # seconds that a refused caller may still send, so that it reads our answer and not a reset
_MAX_OVERHEAD = 1 << 20  # bytes of chunk framing between two pieces of body
_MAX_LINGER_BYTES = 64 << 20


class _Busy:
    """Stands in for a running ASGI cycle, so that uvicorn queues the next one."""

    response_complete = False


class GatewayProtocol(HttpToolsProtocol):
    """Made by `Gateway.http_class`, which sets `gateway`."""

    gateway: Gateway
    pipeline: deque[tuple[Any, Any]]  # uvicorn's queue: (cycle, app); here also (exchange, None)

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.ticker = self.gateway.ticker
        self.caller = GatewayConnection(self.gateway, self, server_state)
        self.data_received = self.caller.data_received  # type: ignore[method-assign]  # what transports call, with nothing between
        self.head_since = self.ticker.now
        self.head_bytes = 0
        self.large = False  # what is being read may end a head that is larger than it may be
        self.overhead = 0
        self.skipping = False  # the request that is being read is not taken: it came behind the last one
        self.broken_since: float | None = None  # no more requests can be read; answers that are due still leave
        self.closing_since: float | None = None
        self.lingered = -1  # bytes thrown away since the last answer; -1: not lingering
        self.stalled_since: float | None = None
        self.stalled_bytes = 0
        self.url = b""
        self.headers: list[Header] = []
        self.header_count = 0

    # transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.caller.connected(transport)
        self.gateway.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gateway.connections.discard(self)
        caller = self.caller
        current, caller.current, caller.reading = caller.current, None, None
        waiting = [entry for entry, app in self.pipeline if app is None]
        self.pipeline.clear()
        super().connection_lost(exc)
        if current is not None:
            current.caller_gone()
        for exchange in waiting:
            exchange.caller_gone()

    def parse(self, data: bytes) -> None:
        caller = self.caller
        if self.lingered >= 0:
            self.lingered += len(data)
            if self.lingered > _MAX_LINGER_BYTES:
                self.transport.abort()
            return
        if self.broken_since is not None or (caller.last and caller.reading is None and caller.current is not None):
            return  # nothing more is taken on this connection
        size = len(data)
        self.large = size > MAX_HEAD_BYTES or caller.in_head
        if not caller.in_head:
            self.overhead += size
        fresh = caller.current is None and not caller.in_head and caller.reading is None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            fresh = False
            self._upgrade()
        except httptools.HttpParserError as error:
            fresh = False
            reason = error.__context__
            self._refuse_bytes(*(reason.args if isinstance(reason, _Malformed) else (400, f"This is not valid HTTP: {error}.")))
        else:
            if caller.in_head:
                self._count_head(size)
            elif self.overhead > _MAX_OVERHEAD and caller.reading is not None:
                self._refuse_bytes(400, "The body's framing is larger than the body.")
        current = caller.current
        if current is not None and current.ready:  # whatever stood behind it in this piece
            if fresh and not self.pipeline:
                caller.keep_template(data, current, self.headers)
            current.start()

    def _count_head(self, size: int) -> None:
        """A piece has ended within a head. Behind another request nobody knows where in it the head began: it counts for nothing."""
        self.head_bytes += size if self.head_bytes or self.free else 1
        if self.head_bytes > MAX_HEAD_BYTES:
            self._refuse_bytes(431, _HEAD_TOO_LARGE)

    def _upgrade(self) -> None:
        exchange = self.caller.reading
        if exchange is not None:
            self.caller.reading = None
            exchange.received = True
            if exchange is self.caller.current and exchange.ready:
                exchange.start()
        elif not self.free:
            self._refuse_bytes(400, "An upgrade can't stand behind other requests.")
        elif self._should_upgrade():
            self.handle_websocket_upgrade()
        else:
            self._refuse_bytes(400, "This upgrade is not served.")

    def handle_websocket_upgrade(self) -> None:
        self.gateway.connections.discard(self)
        super().handle_websocket_upgrade()

    # parser

    def on_message_begin(self) -> None:
        self.caller.in_head = True
        self.head_since = self.ticker.now
        self.head_bytes = 0
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > _MAX_URL:
            raise _Malformed(414, "The URL is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.caller.in_head = False
        self.overhead = 0
        headers = self.headers
        self.header_count = len(headers)
        if self.header_count > MAX_HEADERS:
            raise _Malformed(431, "The request has too many headers.")
        url = self.url
        if self.large and len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD_BYTES:
            raise _Malformed(431, _HEAD_TOO_LARGE)
        self.skipping = self.caller.last
        if self.skipping:
            return
        parser = self.parser
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise _Malformed(400, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        method: bytes = parser.get_method()
        path, _, query = url.partition(b"?")
        route = self.gateway.routes.find(method, path)
        if route is None and not url.startswith(b"/"):
            url = _origin_form(url)
            path, _, query = url.partition(b"?")
            route = self.gateway.routes.find(method, path)
        if route is None:
            self._leave_to_asgi(url)
            return
        try:
            head = read_request_head(headers, self.gateway.spellings)
        except HeadInvalid as error:
            raise _Malformed(400, f"This is not valid HTTP: {error}.") from None
        http10 = version == "1.0"
        if not head.hosted and not http10:
            raise _Malformed(400, "The Host header is missing.")
        if b"#" in url:
            raise _Malformed(400, "A fragment can't stand in a request.")
        exchange = Exchange(self.gateway, self.caller, route, method, query, http10=http10, keep_alive=parser.should_keep_alive())
        self.caller.reading = exchange
        if parser.should_upgrade():
            head.websocket = True
            exchange.keep_alive = False
        if self.free:
            self.caller.current = exchange
        else:
            self._queue(exchange)
        exchange.begin(head)
        if exchange is self.caller.current and exchange.wants_continue():
            self.transport.write(CONTINUE)

    def _leave_to_asgi(self, url: bytes) -> None:
        self.caller.mixed = True
        try:
            read_request_head(self.headers, self.gateway.spellings)  # for its judgement: framing is doubtful wherever the path leads
        except HeadInvalid as error:
            raise _Malformed(400, f"This is not valid HTTP: {error}.") from None
        headers = self.headers
        super().on_message_begin()
        self.url = url
        self.headers = self.scope["headers"] = [(name.lower(), value) for name, value in headers]
        self.expect_100_continue = any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers)
        self.caller.reading = None
        if self.free:
            super().on_headers_complete()
            return
        running = self.cycle
        self.cycle = _Busy()  # type: ignore[assignment]  # uvicorn then queues, and sets the new one
        super().on_headers_complete()
        if isinstance(self.cycle, _Busy):
            self.cycle = running  # a WebSocket upgrade, judged in `_upgrade`
        self._bound_queue()

    @property
    def free(self) -> bool:
        return self.caller.current is None and not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def _queue(self, exchange: Exchange) -> None:
        self.stop_reading()
        self.pipeline.appendleft((exchange, None))
        self._bound_queue()

    def _bound_queue(self) -> None:
        if len(self.pipeline) > _MAX_PIPELINED:
            self.caller.last = True

    def on_body(self, body: bytes) -> None:
        self.overhead = 0
        exchange = self.caller.reading
        if exchange is not None:
            exchange.body_received(body)
            if exchange.greedy:
                self.stop_reading()
        elif not self.skipping and self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if len(self.headers) != self.header_count:
            raise _Malformed(400, "Trailers are not taken.")
        exchange = self.caller.reading
        if exchange is not None:
            if not self.parser.should_upgrade():
                self.caller.reading = None
                exchange.received = True
        elif not self.skipping and self.cycle is not None:
            super().on_message_complete()

    # exchanges

    def read_on(self, exchange: Incoming) -> None:
        if exchange is self.caller.reading or not self.pipeline:
            self.flow.resume_reading()

    def stop_reading(self) -> None:
        self.caller.mixed = True
        self.flow.pause_reading()

    def take_next(self) -> None:
        if self.caller.last and not self.pipeline:
            self.close()
        elif self.pipeline or self.flow.read_paused:
            self._next()

    def on_response_complete(self) -> None:
        """From uvicorn: an ASGI answer has been written."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.caller.seen = self.ticker.now
        if self.cycle is not None and self.cycle.more_body and not self.pipeline:  # answered before its body was whole
            self.linger()
        elif self.caller.last and not self.pipeline:
            self.close()
        else:
            self._next()

    def _next(self) -> None:
        if not self.pipeline:
            if self.flow.read_paused:
                self.flow.resume_reading()
            return
        entry, app = self.pipeline.pop()
        if app is not None:
            self._start_asgi_task(entry, app)
        else:
            self.caller.current = exchange = entry
            if exchange.wants_continue():
                self.transport.write(CONTINUE)
            self.loop.call_soon(self.caller.proceed, exchange)
        if not self.pipeline:
            self.flow.resume_reading()

    # back-pressure

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled_since = self.ticker.now
        self.stalled_bytes = self.transport.get_write_buffer_size()
        if self.caller.current is not None:
            self.caller.current.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stalled_since = None
        if self.caller.current is not None:
            self.caller.current.resume()

    # endings

    def shutdown(self) -> None:
        self.gateway.shutting_down()
        self.caller.last = True
        if self.caller.current is not None or self.pipeline:
            if self.cycle is not None:
                self.cycle.keep_alive = False
            if self.caller.current is not None:
                self.caller.current.keep_alive = False
        else:
            super().shutdown()

    def close(self) -> None:
        if self.broken_since is not None:
            self.linger()  # more may come of what can't be read, and would reset the connection under the answer
            return
        self.closing_since = self.ticker.now
        self.transport.close()

    def linger(self) -> None:
        """The caller is still sending: what comes is thrown away for a moment, then the connection ends."""
        self.lingered = 0
        self.closing_since = self.ticker.now
        self.caller.last = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _refuse_bytes(self, status: int, message: str) -> None:
        """What came can't be read as requests any further. What was asked whole before it is answered first, and is answered alone."""
        caller = self.caller
        self.broken_since = self.ticker.now
        current, reading = caller.current, caller.reading
        caller.reading = None
        if current is not None and not current.received:
            caller.current = None
            current.caller_gone()
        elif self._waits_for_body:
            self.cycle.disconnected = True  # what it still answers is not written
            self.cycle.message_event.set()
        elif not self.free:
            self._unqueue(reading)
            caller.last = True
            return
        body = message.encode("ascii", "replace")
        self.transport.write(
            b"%bcontent-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (STATUS_LINES[status], len(body), body)
        )
        self.linger()

    def _unqueue(self, reading: Exchange | None) -> None:
        """Takes the newest request out of the queue if it will never be whole: its turn must not come."""
        if not self.pipeline:
            return
        entry, app = self.pipeline[0]
        if app is None:
            if reading is not None and entry is reading:
                self.pipeline.popleft()
                entry.caller_gone()
        elif entry.more_body:
            self.pipeline.popleft()
            entry.more_body = False  # nothing is to be waited for

    @property
    def _waits_for_body(self) -> bool:
        """An ASGI request is due, has not been answered, and will never be whole."""
        cycle = self.cycle
        return self.caller.current is None and cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline

    def sweep(self, now: float) -> None:
        """Every time-out of a caller's connection. Called by the gateway's ticker."""
        patience = self.gateway.client_timeout
        current = self.caller.current
        if self.closing_since is not None or self.transport.is_closing():
            since = self.closing_since if self.closing_since is not None else self.caller.seen
            if now - since > (_LINGER if self.lingered >= 0 else patience):
                self.transport.abort()
        elif self.stalled_since is not None:
            waiting = self.transport.get_write_buffer_size()
            if waiting < self.stalled_bytes:
                self.stalled_bytes = waiting
                self.stalled_since = now
            elif now - self.stalled_since > patience:
                self.transport.abort()
        elif current is not None and current.ready and current is not self.caller.reading:
            current.start()  # it was forgotten; nothing else would ever end this connection
        elif self.caller.in_head:
            if now - self.head_since > patience and self.free:
                self._refuse_bytes(408, "The request's head did not come in time.")
        elif self.caller.reading is not None:
            if now - self.caller.seen > patience and not self.flow.read_paused:
                self._refuse_bytes(408, "The request's body did not come in time.")
        elif self.free:
            if now - self.caller.seen > self.timeout_keep_alive:
                self.close()
        elif (
            current is None
            and self.cycle is not None
            and self.cycle.more_body
            and not self.flow.read_paused
            and now - (self.caller.seen if self.broken_since is None else self.broken_since) > patience
        ):
            self.transport.abort()


class _Malformed(ValueError):
    """Raised inside parser callbacks: status and message of the refusal."""


def _origin_form(url: bytes) -> bytes:
    """The path and query of an absolute target (RFC 9112 section 3.2.2). Whose name stands before it makes no difference here."""
    scheme, found, rest = url.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        raise _Malformed(400, "The request's target is not a path.")
    ends = min(at if at >= 0 else len(rest) for at in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")))
    if not ends or b"@" in rest[:ends]:
        raise _Malformed(400, "The request's target names no host.")
    below = rest[ends:]
    return below if below.startswith(b"/") else b"/" + below
