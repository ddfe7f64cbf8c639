"""Which network addresses a request may be sent to. Pure."""

from __future__ import annotations

import ipaddress

_METADATA = frozenset(
    {
        ipaddress.ip_address("fd00:ec2::254"),  # AWS, instance metadata over IPv6 (docs.aws.amazon.com, checked 2026-11)
        ipaddress.ip_address("fd20:ce::254"),  # Google Cloud, metadata server over IPv6 (cloud.google.com/compute/docs, checked 2026-11)
        ipaddress.ip_address("100.100.100.200"),  # Alibaba Cloud, instance metadata (alibabacloud.com/help, checked 2026-11)
    }
)

# RFC 6052 section 2.1 (NAT64) and RFC 4291 section 2.5.5.1 (IPv4-compatible): the last 32 bits are an IPv4 address
_EMBEDDING = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))


def is_forbidden(address: str) -> bool:
    """True for addresses no vendor can have: link-local (cloud metadata among them), multicast, the unspecified address.

    `address` is a literal as `getaddrinfo` gives it, with or without a zone; IPv4 inside IPv6 is judged as IPv4.
    Loopback and private addresses are allowed: an administrator may run a model at home. What can't be read is forbidden.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and int(ip) > 1 and any(ip in network for network in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA
