"""Which proxy stands between us and a vendor: HTTP_PROXY, HTTPS_PROXY, NO_PROXY as curl reads them. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    tls: bool
    authorization: bytes | None = field(default=None, repr=False)  # the whole value of Proxy-Authorization


@dataclass(frozen=True, slots=True)
class ProxySettings:
    http: Proxy | None = None
    https: Proxy | None = None
    no_proxy: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> ProxySettings:
        """From a mapping such as the environment; lower-case names win, as everywhere. `HTTP_PROXY` in capitals is ignored under CGI.

        Raises ValueError for an address that is not an http(s) proxy's.
        """

        def value(name: str) -> str:
            return (environ.get(name) or environ.get(name.upper()) or "").strip()

        http = value("http_proxy") if "REQUEST_METHOD" not in environ else environ.get("http_proxy", "")
        everything = value("all_proxy")
        bypass = tuple(part.strip().lower() for part in value("no_proxy").split(",") if part.strip())
        return cls(_proxy(http or everything), _proxy(value("https_proxy") or everything), bypass)

    def choose(self, host: str, port: int, *, tls: bool) -> Proxy | None:
        proxy = self.https if tls else self.http
        if proxy is None or self._bypassed(host.lower(), port):
            return None
        return proxy

    def _bypassed(self, host: str, port: int) -> bool:
        if host in {"localhost", "127.0.0.1", "::1"}:
            return True
        for entry in self.no_proxy:
            if entry == "*":
                return True
            name, colon, wanted = entry.rpartition(":")
            if colon and wanted.isdigit() and "]" not in wanted and name.count(":") == 0:
                if int(wanted) != port:
                    continue
            else:
                name = entry
            name = name.strip("[]").removeprefix("*").removeprefix(".")
            if host == name or host.endswith("." + name):
                return True
        return False


def _proxy(url: str) -> Proxy | None:
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("a proxy must be an address such as http://proxy.example.com:3128")
    authorization = None
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), parts.scheme == "https", authorization)
