"""The gateway as a whole: what requests share, wired once, and the door to uvicorn.

gateway = Gateway(...)                  from `processes/`, with ports implemented
uvicorn.Config(app, http=gateway.http_class, timeout_keep_alive=75, …)
await gateway.start() … await gateway.stop()      inside the lifespan of the app
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, final

from keygate.gateway.catalogue import Catalogue
from keygate.gateway.connector import Connector
from keygate.gateway.credentials import CredentialBook
from keygate.gateway.exchange import Exchange
from keygate.gateway.http1 import request_spellings
from keygate.gateway.incoming import Incoming
from keygate.gateway.keyring import KeyRing
from keygate.gateway.metrics import Metrics
from keygate.gateway.pipeline import Pipeline, Routes
from keygate.gateway.ports import Accounts, CredentialSource, KeySource, Observer, Prices, Recorder
from keygate.gateway.protocol import GatewayProtocol
from keygate.gateway.proxies import ProxySettings
from keygate.gateway.ticker import Ticker
from keygate.kit.ids import base62
from keygate.vendors import VENDORS


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Seconds and bytes; named as in `config.Settings`."""

    max_body_bytes: int = 64 * 2**20
    connect_timeout: float = 10
    first_byte_timeout: float = 600
    idle_timeout: float = 120
    drain_timeout: float = 120
    client_timeout: float = 60
    shutdown_timeout: float = 3
    max_keys: int = 200_000  # in memory at once, 5 to 6 KiB each: reading one again costs as much as twenty requests
    per_origin: int = 1000  # connections to one vendor address


_PAIRS = [f"{number:02x}" for number in range(256)]


@final
class RequestIds:
    """`req_` and 22 base62 digits, as `kit.ids` makes them, at a tenth of the price: time and chance once a second, then counted."""

    def __init__(self) -> None:
        self._count = 0
        self._until = 0.0
        self._prefix = ""
        self._block = ""  # all but the last two digits, which 256 requests share

    def next(self) -> str:
        self._count = count = self._count + 1
        low = count & 255
        if not low:
            self._block = self._next_block()
        return self._block + _PAIRS[low]

    def _next_block(self) -> str:
        return f"{self._prefix}{self._count >> 8:06x}"

    def renew(self, now: float) -> None:
        if now >= self._until:
            self._until = now + 1
            self._prefix = f"req_{base62(time.time_ns() // 1_000_000, 8)}{base62(secrets.randbelow(62**6), 6)}"
            self._block = self._next_block()


@final
class Gateway:
    """Also the `StatePublisher` that the control plane tells of changes."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        keys: KeySource,
        credentials: CredentialSource,
        accounts: Accounts,
        prices: Prices,
        pepper: bytes,
        proxies: ProxySettings | None = None,
        recorder: Recorder | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.max_body_bytes = settings.max_body_bytes
        self.max_buffered_bytes = 4 * settings.max_body_bytes
        self.client_timeout = settings.client_timeout
        self.drain_timeout = settings.drain_timeout
        self._shutdown_timeout = settings.shutdown_timeout
        self.ticker = Ticker()
        self.metrics = Metrics()
        self.request_ids = RequestIds()
        self.request_ids.renew(self.ticker.now)
        self.connector = Connector(
            self.ticker,
            connect_timeout=settings.connect_timeout,
            first_byte_timeout=settings.first_byte_timeout,
            idle_timeout=settings.idle_timeout,
            proxies=proxies or ProxySettings(),
            per_origin=settings.per_origin,
        )
        self.accounts = accounts
        self.recorder = recorder
        self.observer = observer
        self.ring = KeyRing(keys, accounts, pepper, self.ticker, max_keys=settings.max_keys)
        self.book = CredentialBook(credentials, self.connector, VENDORS)
        self.pipeline = Pipeline(ring=self.ring, accounts=accounts, book=self.book, prices=prices, metrics=self.metrics, recorder=recorder)
        self.catalogue = Catalogue(prices, self.book)
        self.routes = Routes()
        self.spellings = request_spellings({name for vendor in VENDORS.values() for name in vendor.caller_headers})
        self.connections: set[GatewayProtocol] = set()
        self.in_flight: set[Incoming] = set()  # holds that are not settled
        self.draining: set[Exchange] = set()
        self.buffered_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_by: float | None = None
        self.http_class: type[GatewayProtocol] = type("BoundGatewayProtocol", (GatewayProtocol,), {"gateway": self})
        self.ticker.every_step(self._sweep)
        self.metrics.gauge("keygate_gateway_holds_open", "Requests whose hold is not settled", lambda: len(self.in_flight))
        self.metrics.gauge("keygate_gateway_connections", "Connections of callers", lambda: len(self.connections))
        self.metrics.gauge("keygate_gateway_upstream_connections", "Connections to vendors", self.connector.open_connections)
        self.metrics.gauge("keygate_gateway_keys_loaded", "Keys in memory", lambda: len(self.ring))
        self.metrics.gauge("keygate_gateway_buffered_bytes", "Request bodies in memory", lambda: self.buffered_bytes)

    # life

    async def start(self) -> None:
        """Before the first request: credentials read, clock running."""
        await self.book.load()
        self.ticker.start()

    def shutting_down(self) -> None:
        """uvicorn has begun to stop: from here the time for requests in flight is counted."""
        if self._stop_by is None:
            self._stop_by = time.monotonic() + self._shutdown_timeout

    def hurry(self) -> None:
        """Requests in flight get no more time."""
        self._stop_by = time.monotonic()

    async def stop(self) -> None:
        """Lets requests in flight finish (those being drained too), within the shutdown time-out; then settles the rest as it stands."""
        self.shutting_down()
        assert self._stop_by is not None  # noqa: S101  (just set)
        while self.in_flight and time.monotonic() < self._stop_by:  # noqa: ASYNC110  (requests pay nothing for an event that one stop wants)
            await asyncio.sleep(0.02)
        self.ticker.stop()
        for exchange in list(self.in_flight):
            exchange.stop()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for exchange in list(self.in_flight):  # held while tasks ended
            exchange.stop()
        self.connector.close()

    def spawn(self, step: Coroutine[Any, Any, None]) -> None:
        """Runs what a request must wait for. Steps end their request themselves, whatever happens."""
        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self, now: float) -> None:
        self.request_ids.renew(now)
        for connection in list(self.connections):
            connection.sweep(now)
        for exchange in list(self.draining):
            exchange.sweep(now)

    # changes, from the control plane

    async def keys_changed(self, key_ids: Sequence[str]) -> None:
        await self.ring.keys_changed(key_ids)

    async def organization_changed(self, organization_id: str) -> None:
        await self.ring.organization_changed(organization_id)

    async def credentials_changed(self) -> None:
        await self.book.load()
