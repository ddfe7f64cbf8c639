"""Whose address a request came from, behind proxies that the operator named.

Each proxy appends the address that it was called from to `X-Forwarded-For`, so only the right end can be believed: as far as the
addresses are those of named proxies, the next one to the left was written by one of them. What stands left of the first that is not was
written by anybody. The header of a peer that is no named proxy is not read at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_HEADER = b"x-forwarded-for"


class Forwarded:
    """Pure ASGI: `scope["client"]` is the caller behind `trusted` proxies, for everything that stands below."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client:
            said = b",".join(value for name, value in scope["headers"] if name == _HEADER).decode("latin-1")
            scope["client"] = (caller(client[0], said, self._trusted), client[1])
        await self._app(scope, receive, send)


def caller(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The address next to the last proxy that can be believed. Where that wrote no address, the proxy's own."""
    found = peer
    for entry in (peer, *reversed(forwarded.split(","))):
        address = _parsed(entry)
        if address is None:
            break
        found = str(address)
        if not any(address in network for network in trusted):
            break
    return found


def _parsed(entry: str) -> _Address | None:
    """Some proxies write the port as well: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    text = entry.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
