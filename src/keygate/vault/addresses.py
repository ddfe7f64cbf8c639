"""Where a credential's base URL may lead: anywhere but to link-local addresses and clouds' metadata services. Pure.

This judges what an administrator writes. Names are judged again by the address that they resolve to, when a connection is made
(`kit.addresses.is_forbidden`).
"""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

from keygate.errors import InvalidInput
from keygate.kit.addresses import is_forbidden

_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",  # cloud.google.com/compute/docs/metadata (checked 2026-11)
        "metadata.goog",
        "instance-data",  # resolves to 169.254.169.254 in AWS EC2
        "instance-data.ec2.internal",
    }
)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")
MAX_URL = 500


def refuse_link_local(host: str, *, field: str = "base_url") -> None:
    """Raises `InvalidInput` for a link-local, multicast or unspecified address in any spelling (decimal, octal, hexadecimal, short,
    IPv4 in IPv6), and for the names of metadata services. `host` has no brackets."""
    name = host.rstrip(".").lower()
    literal = name if ":" in name else _legacy_ipv4(name)
    if name in _METADATA_NAMES or (literal is not None and is_forbidden(literal)):
        raise InvalidInput(f"{field}: link-local and metadata addresses are not allowed", field=field)


def checked_base_url(url: str, *, field: str = "base_url") -> str:
    """The API root, without a slash at the end. Raises `InvalidInput`, whose message does not repeat the value."""
    if len(url) > MAX_URL or not url.isascii() or any(character <= " " or character in '\x7f\\"<>^`{|}' for character in url):
        raise InvalidInput(f"{field}: an address of at most {MAX_URL} plain characters, such as https://api.openai.com/v1", field=field)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput(f"{field}: not an address", field=field) from None
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or not host:
        raise InvalidInput(f"{field}: must begin with https:// or http:// and name a host", field=field)
    if "@" in parts.netloc:
        raise InvalidInput(f"{field}: must hold no user name or password; the secret has a field of its own", field=field)
    if "?" in url or "#" in url:
        raise InvalidInput(f"{field}: must have no query and no fragment", field=field)
    if port == 0 or not (":" in host or _HOST.fullmatch(host)) or "%" in host:
        raise InvalidInput(f"{field}: the host or port is not valid", field=field)
    refuse_link_local(host, field=field)
    return url.rstrip("/")


def _legacy_ipv4(name: str) -> str | None:
    """What `inet_aton(3)` and so most resolvers make of `0xA9FEA9FE`, `2852039166`, `0251.0376.0251.0376` or `169.254.43518`."""
    if not re.fullmatch(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}", name):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return "0.0.0.0"  # noqa: S104  (never bound; digits that are no address are refused like the unspecified one)
