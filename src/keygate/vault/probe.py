"""Asks a vendor whether a credential works: `GET …/models`, once, without redirects, without reading the answer's body."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Callable

from keygate.kit.clock import Clock
from keygate.kit.outbound import proxy_for, usable_address
from keygate.kit.secret import Secret
from keygate.vault.credentials import ProbeResult
from keygate.vendors import Auth, Dialect, Vendor

_ANTHROPIC_VERSION = "2023-06-01"  # docs.anthropic.com/en/api/versioning (checked 2026-11): required on every call


class HttpProbe:
    def __init__(self, *, clock: Clock, timeout: float = 10, tls: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> None:
        self._clock = clock
        self._timeout = timeout
        self._tls = tls

    async def check(self, vendor: Vendor, base_url: str, secret: Secret) -> ProbeResult:
        await asyncio.to_thread(
            importlib.import_module, "httpx"
        )  # its command line comes along, with rich: not at a start, not on the loop
        import httpx  # noqa: PLC0415  (loaded a line above)

        began = self._clock.monotonic_ns()
        try:
            async with asyncio.timeout(self._timeout):
                status, detail = await self._ask(vendor, base_url, secret)
        except (TimeoutError, httpx.TimeoutException):
            status, detail = None, f"the vendor did not answer within {self._timeout:g} seconds"
        except httpx.ConnectError:
            status, detail = None, "the vendor can't be reached: no connection, or TLS failed"
        except (httpx.HTTPError, OSError, UnicodeError):
            status, detail = None, "the vendor's answer is not valid HTTP, or the connection broke"
        latency_ms = (self._clock.monotonic_ns() - began) // 1_000_000
        return ProbeResult(ok=status is not None and 200 <= status < 300, status=status, detail=detail, latency_ms=latency_ms)

    async def _ask(self, vendor: Vendor, base_url: str, secret: Secret) -> tuple[int | None, str]:
        import httpx  # noqa: PLC0415  (loaded by `check`)

        url = httpx.URL(base_url + _models_path(vendor))
        headers = {"accept-encoding": "identity", "user-agent": "keygate"}
        if vendor.auth is Auth.BEARER:
            headers["authorization"] = f"Bearer {secret.open()}"
        else:
            headers[vendor.auth.value] = secret.open()
        if any(endpoint.dialect is Dialect.ANTHROPIC_MODELS for endpoint in vendor.endpoints):
            headers["anthropic-version"] = _ANTHROPIC_VERSION
        proxy = proxy_for(base_url)
        extensions = {}
        if proxy is None:  # the address that was judged is the one that is used
            host = url.host
            address = await usable_address(host, url.port or (443 if url.scheme == "https" else 80))
            if address is None:
                return None, "the host has no address that requests may be sent to"
            headers["host"] = url.netloc.decode("ascii")
            extensions = {"sni_hostname": host}
            url = url.copy_with(host=address)
        verify = self._tls() if url.scheme == "https" else False
        async with (
            httpx.AsyncClient(timeout=self._timeout, follow_redirects=False, trust_env=False, proxy=proxy, verify=verify) as client,
            client.stream("GET", url, headers=headers, extensions=extensions) as response,
        ):
            return response.status_code, _words(response.status_code)


def _models_path(vendor: Vendor) -> str:
    return "/v1/models".removeprefix(vendor.root_path)


def _words(status: int) -> str:
    if 200 <= status < 300:
        return "the vendor took the credential"
    if 300 <= status < 400:
        return "the vendor answers with a redirect; set base_url to where it leads"
    return {
        401: "the vendor does not know the credential (401)",
        403: "the vendor knows the credential, but it may not list models (403)",
        404: "there is no list of models at this base_url (404); it should be the API root as the vendor's SDK has it",
        429: "the vendor limits the credential now (429)",
    }.get(status, f"the vendor answered with status {status}")
