"""Calls from the control plane to the outside: bounded in time and size, without redirects, only to addresses that may be called.

The address that was judged is the one that is used. A proxy of the operator's (HTTPS_PROXY, NO_PROXY) is honoured.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from keygate.kit.addresses import is_forbidden

if TYPE_CHECKING:
    import httpx

MAX_ANSWER = 8 * 1024 * 1024
_MAX_HOSTS = 32


class Unreached(Exception):
    """No whole answer. `sent`: the request may have arrived all the same. The message names no address and no secret."""

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes = field(repr=False)


class Outbound:
    """One for a process; connections are kept per host. `close` it at the end."""

    def __init__(
        self, *, timeout: float = 30, max_answer: int = MAX_ANSWER, tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    ) -> None:
        self._timeout = timeout
        self._max_answer = max_answer
        self._tls = tls
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, timeout: float | None = None
    ) -> Answer:
        """Any status is an answer. Raises `Unreached`."""
        # httpx brings its command line along, with rich: not at a start, not on the loop
        await asyncio.to_thread(importlib.import_module, "httpx")
        import httpx  # noqa: PLC0415  (loaded a line above)

        seconds = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._send(method, url, headers, body)
        except (httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ConnectError):
            raise Unreached("can't be reached: no connection, or TLS failed", sent=False) from None
        except (TimeoutError, httpx.TimeoutException):
            raise Unreached(f"did not answer within {seconds:g} seconds", sent=True) from None
        except (httpx.HTTPError, OSError, UnicodeError):
            raise Unreached("broke the connection, or its answer is not valid HTTP", sent=True) from None
        except httpx.InvalidURL:
            raise Unreached("can't be called: not a valid address", sent=False) from None

    async def close(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        import httpx  # noqa: PLC0415  (loaded by `send`)

        target = httpx.URL(url)
        sent = {"accept-encoding": "identity", "user-agent": "keygate", **{name.lower(): value for name, value in headers.items()}}
        extensions: dict[str, str] = {}
        host = target.host
        proxy = proxy_for(url)
        key = f"{target.scheme}://{target.netloc.decode('ascii')}"
        if proxy is None:
            address = await usable_address(host, target.port or (443 if target.scheme == "https" else 80))
            if address is None:
                raise Unreached("has no address that requests may be sent to", sent=False)
            sent["host"] = target.netloc.decode("ascii")
            extensions = {"sni_hostname": host}
            target = target.copy_with(host=address)
        client = await self._client(key, secure=target.scheme == "https", proxy=proxy)
        async with client.stream(method, target, headers=sent, content=body, extensions=extensions) as response:
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) > self._max_answer:
                    raise Unreached(f"answered with more than {self._max_answer} bytes", sent=True)
            return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, bytes(content))

    async def _client(self, key: str, *, secure: bool, proxy: str | None) -> httpx.AsyncClient:
        """One for each host: connections to one address under two names are not shared."""
        import httpx  # noqa: PLC0415  (loaded by `send`)

        client = self._clients.get(key)
        if client is None:
            if len(self._clients) >= _MAX_HOSTS:
                oldest = self._clients.pop(next(iter(self._clients)))
                await oldest.aclose()
            client = httpx.AsyncClient(
                timeout=self._timeout, follow_redirects=False, trust_env=False, proxy=proxy, verify=self._tls() if secure else False
            )
            self._clients[key] = client
        return client


async def usable_address(host: str, port: int) -> str | None:
    """An address of the host that requests may be sent to."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
    return next((str(entry[4][0]) for entry in found if not is_forbidden(str(entry[4][0]))), None)


def proxy_for(url: str) -> str | None:
    """The operator's proxy for this address, from HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in {"localhost", "127.0.0.1", "::1"} or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
