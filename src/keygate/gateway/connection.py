"""The gateway's half of a caller's connection: whose answer is due, what its next bytes are, and the short way for a client that repeats
itself. The other half, `protocol.py`, is uvicorn's: the parser, ASGI, and every ending.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, final

from keygate.gateway.exchange import Exchange
from keygate.gateway.http1 import Header
from keygate.gateway.incoming import CallerConnection, Incoming
from keygate.gateway.repeated import HeadTemplate, Request
from keygate.gateway.ticker import Ticker

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from keygate.gateway.gateway import Gateway

_SMALL = 64 * 1024  # bodies that need not be counted while they wait
_MAX_TEMPLATES = 4  # heads of one connection that are kept in the hope of a repetition


class Host(Protocol):
    """What the connection asks of uvicorn's half."""

    @property
    def free(self) -> bool:
        """Nothing is being answered, and nothing waits."""

    def parse(self, data: bytes) -> None: ...

    def stop_reading(self) -> None: ...

    def read_on(self, exchange: Incoming) -> None:
        """The caller of the current exchange is known now: its body may come, unless other requests wait behind it."""

    def take_next(self) -> None:
        """The current answer has been written."""

    def linger(self) -> None:
        """The answer has been written, and the caller is still sending."""

    def close(self) -> None: ...


@final
class GatewayConnection(CallerConnection):
    __slots__ = (
        "_g",
        "_host",
        "_state",
        "_template",
        "_templates_left",
        "_ticker",
        "_transport",
        "body_left",
        "current",
        "in_head",
        "last",
        "mixed",
        "reading",
        "seen",
    )

    def __init__(self, gateway: Gateway, host: Host, state: ServerState) -> None:
        self._g = gateway
        self._host = host
        self._state = state
        self._ticker: Ticker = gateway.ticker
        self._transport: asyncio.Transport | None = None
        self._template: HeadTemplate | None = None
        self._templates_left = _MAX_TEMPLATES
        self.body_left = 0  # of a request whose head was the template's: its body is not parsed either
        self.current: Exchange | None = None  # whose answer is due
        self.reading: Exchange | None = None  # whose body is coming
        self.seen = self._ticker.now
        self.in_head = False
        self.last = False  # no request after the current ones
        self.mixed = False  # a request was left to ASGI, had to wait for its turn, or was paused: from then on the host is asked

    def connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    # bytes from the caller

    def data_received(self, data: bytes) -> None:
        """From the transport itself: uvicorn's half hears of the bytes only where they must be parsed."""
        self.seen = self._ticker.now
        template = self._template
        if template is not None and not self.in_head:
            if self.body_left:
                data = self._body_unparsed(data)
                if not data:
                    return
            if self.current is None and self.reading is None and not self.last and (not self.mixed or self._host.free):
                length, begins = template.match(data)
                if length >= 0:
                    self._repeated(template.request, data, length, begins)
                    return
        self._host.parse(data)

    def _repeated(self, request: Request, data: bytes, length: int, begins: int) -> None:
        """The head is one that was parsed before: nothing is parsed."""
        exchange = Exchange(self._g, self, request.route, request.method, request.query, http10=False, keep_alive=True)
        if 0 < length <= _SMALL and len(data) - begins == length:
            now_ns = time.time_ns()
            if request.caller.holds(now_ns):
                self.current = exchange
                exchange.go(request.head, request.caller, data[begins:], now_ns)
                return
        self.current = self.reading = exchange
        exchange.begin(request.head.of_length(length), request.caller)
        self.body_left = length
        if begins < len(data) or not length:
            rest = self._body_unparsed(data[begins:])
            if rest:
                self._host.parse(rest)
        elif exchange.ready:
            exchange.start()

    def _body_unparsed(self, data: bytes) -> bytes:
        """Takes what belongs to the body; returns what stands behind it."""
        left = self.body_left
        rest = b""
        if len(data) > left:
            data, rest = data[:left], data[left:]
        self.body_left = left - len(data)
        exchange = self.reading
        if exchange is None:  # answered early, or refused: nobody wants it
            return rest
        exchange.body_received(data)
        if not self.body_left:
            self.reading = None
            exchange.received = True
        elif exchange.greedy:
            self._host.stop_reading()
        if exchange.ready:
            exchange.start()
        return rest

    def keep_template(self, data: bytes, exchange: Exchange, headers: list[Header]) -> None:
        """`data` began with this exchange's head, parsed into `headers`. What a client does not repeat a few times is not kept."""
        if not self._templates_left:
            return
        self._templates_left -= 1
        head, caller = exchange.head, exchange.caller
        if caller is None or exchange.http10 or not exchange.keep_alive or head.expect_continue or exchange.route.refused is not None:
            return
        if b"key=" not in exchange.query and not self.in_head:
            request = Request(head, exchange.route, exchange.method, exchange.query, caller)
            self._template = HeadTemplate.of(data, headers, self._g.spellings, request)

    # from exchanges

    def write(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None:
            transport.write(data)

    def proceed(self, exchange: Incoming) -> None:
        if exchange is self.current:
            self._host.read_on(exchange)
            if exchange.ready:
                exchange.start()

    def finished(self, exchange: Incoming, *, close: bool) -> None:
        self._state.total_requests += 1
        if exchange is not self.current:
            return
        self.current = None
        self.seen = self._ticker.now
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.reading is exchange:  # answered before its body was whole
            self.reading = None
            self._host.linger()
        elif close:
            self._host.close()
        elif self.mixed or self.last:
            self._host.take_next()

    def abort(self) -> None:
        self.current = None
        if self._transport is not None:
            self._transport.abort()
