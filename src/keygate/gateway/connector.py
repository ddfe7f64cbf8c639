"""Opens connections to vendors: names resolved and judged, TLS, proxies, within a time limit."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import cast

from keygate.gateway.proxies import Proxy, ProxySettings
from keygate.gateway.ticker import Ticker
from keygate.gateway.upstream import Origin, Pool, UpstreamConnection
from keygate.kit.addresses import is_forbidden

_MAX_PROXY_HEAD = 16 * 1024
_STAGGER = 3.0  # seconds for one address while others remain


class NotSent(Exception):
    """The request never reached the vendor. The message says why, without secrets."""


class Connector:
    """Holds the pools. `take` never waits; `connect` opens one more, or raises NotSent within the time limit."""

    def __init__(
        self,
        ticker: Ticker,
        *,
        connect_timeout: float,
        first_byte_timeout: float,
        idle_timeout: float,
        proxies: ProxySettings,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        per_origin: int = 1000,
        keep_idle: float = 20.0,
    ) -> None:
        self._ticker = ticker
        self._timeout = connect_timeout
        self._first_byte = first_byte_timeout
        self._idle = idle_timeout
        self._proxies = proxies
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._per_origin = per_origin
        self._keep_idle = keep_idle
        self._pools: dict[Origin, Pool] = {}
        ticker.every_step(self._sweep)

    def pool(self, origin: Origin) -> Pool:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, limit=self._per_origin)
        return pool

    def proxy_for(self, origin: Origin) -> Proxy | None:
        return self._proxies.choose(origin.host, origin.port, tls=origin.tls)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def open_connections(self) -> int:
        return sum(len(pool.busy) + len(pool.free) for pool in self._pools.values())

    def _sweep(self, now: float) -> None:
        for pool in self._pools.values():
            pool.sweep(now, first_byte=self._first_byte, idle=self._idle, keep=self._keep_idle)

    async def connect(self, pool: Pool) -> UpstreamConnection:
        if pool.full:
            raise NotSent(f"there are {pool.limit} requests in flight to {pool.origin.host} already")
        pool.connecting += 1
        try:
            async with asyncio.timeout(self._timeout):
                return await self._connect(pool)
        except TimeoutError:
            raise NotSent(f"{pool.origin.host} did not take a connection within {self._timeout:g} seconds") from None
        except ssl.SSLError as error:
            raise NotSent(f"TLS with {pool.origin.host} failed: {error.reason or 'handshake'}") from error
        except OSError as error:
            raise NotSent(f"{pool.origin.host} can't be reached: {error.strerror or type(error).__name__}") from error
        finally:
            pool.connecting -= 1

    async def _connect(self, pool: Pool) -> UpstreamConnection:
        origin = pool.origin
        proxy = self.proxy_for(origin)
        connection = UpstreamConnection(pool, self._ticker)
        protocol = cast("asyncio.Protocol", connection)
        if proxy is None:
            await self._reach(protocol, origin.host, origin.port, self._context() if origin.tls else None)
            return connection
        if is_literal(origin.host) and is_forbidden(origin.host):
            raise NotSent(f"{origin.host} is an address that requests are never sent to")
        if not origin.tls:  # the proxy is asked in absolute form
            await self._reach(protocol, proxy.host, proxy.port, self._context() if proxy.tls else None)
            return connection
        greeting = _ProxyGreeting()
        await self._reach(greeting, proxy.host, proxy.port, self._context() if proxy.tls else None)
        transport = greeting.transport
        assert transport is not None  # noqa: S101  (just connected)
        try:
            await greeting.tunnel(origin, proxy)
            secured = await asyncio.get_running_loop().start_tls(transport, protocol, self._context(), server_hostname=origin.host)
        except BaseException:
            transport.abort()
            raise
        if secured is None:
            raise NotSent(f"TLS with {origin.host} failed behind the proxy")
        connection.connection_made(secured)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()  # reads the system's trust, and SSL_CERT_FILE
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def _reach(self, protocol: asyncio.Protocol, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Connects to one of the host's addresses. The address that was judged is the one that is used."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [address for address in addresses if not is_forbidden(address)]
        if not allowed:
            raise NotSent(f"{host} resolves to an address that requests are never sent to" if addresses else f"{host} has no address")
        name = host if context is not None else None
        for address in allowed[:-1]:
            try:
                async with asyncio.timeout(_STAGGER):
                    await loop.create_connection(lambda: protocol, address, port, ssl=context, server_hostname=name)
                    return
            except OSError:  # TimeoutError among them; the next address may do
                continue
        await loop.create_connection(lambda: protocol, allowed[-1], port, ssl=context, server_hostname=name)


def is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


class _ProxyGreeting(asyncio.Protocol):
    """Asks a proxy for a tunnel, and reads its answer to the blank line."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._read = b""
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # loops give stream protocols a Transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._answer.done():
            return
        if b"\r\n\r\n" in self._read:
            self._answer.set_result(self._read)
        elif len(self._read) > _MAX_PROXY_HEAD:
            self._answer.set_exception(NotSent("the proxy's answer is too long"))

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(NotSent("the proxy closed the connection"))

    async def tunnel(self, origin: Origin, proxy: Proxy) -> None:
        assert self.transport is not None  # noqa: S101  (called once connected)
        authority = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n".encode()
        if proxy.authorization is not None:
            head += b"Proxy-Authorization: " + proxy.authorization + b"\r\n"
        self.transport.write(head + b"\r\n")
        answer = await self._answer
        status = answer.split(b"\r\n", 1)[0].split(b" ")
        if len(status) < 2 or status[1] != b"200" or not answer.endswith(b"\r\n\r\n"):
            code = status[1].decode("latin-1")[:3] if len(status) > 1 else "garbage"
            raise NotSent(f"the proxy refused a tunnel to {origin.host} ({code})")
