"""How long a password must wait after failures. Pure.

Attempts are counted before the password is looked at, so that parallel guesses can't outrun the count, and given back when it was right.
An account's wait is short: a stranger who guesses must not keep its owner out. Whoever signed in from an address lately has a count
of their own there, and only that: neither strangers elsewhere touch it nor those who share the address, as behind a proxy, and try other
accounts.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass

from keygate.kit.clock import NANOSECONDS

FORGET_NS = 15 * 60 * NANOSECONDS
TRUST_NS = 30 * 24 * 3600 * NANOSECONDS


@dataclass(frozen=True, slots=True)
class Bucket:
    """`free` attempts, then a wait that doubles from one second to `longest`."""

    name: str
    free: int
    longest: int

    def wait_ns(self, failures: int) -> int:
        over = failures - self.free
        return 0 if over < 0 else min(2 ** min(over, 20), self.longest) * NANOSECONDS

    def subject(self, *parts: str) -> str:
        joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
        return f"{self.name}:{hashlib.sha256(joined).hexdigest()}"


ACCOUNT = Bucket("account", free=5, longest=60)
ADDRESS = Bucket("address", free=20, longest=300)
PAIR = Bucket("pair", free=5, longest=60)  # an account from an address that signed in lately
TRUSTED = Bucket("trusted", free=0, longest=0)


@dataclass(frozen=True, slots=True)
class Attempts:
    failures: int
    blocked_until_ns: int
    updated_at_ns: int


def take(bucket: Bucket, before: Attempts | None, *, now_ns: int) -> Attempts | int:
    """The counts after one more attempt, or how many seconds it has to wait."""
    if before is not None and now_ns < before.blocked_until_ns:
        return -(-(before.blocked_until_ns - now_ns) // NANOSECONDS)
    failures = 0 if before is None or now_ns - before.updated_at_ns > FORGET_NS else before.failures
    failures += 1
    return Attempts(failures=failures, blocked_until_ns=now_ns + bucket.wait_ns(failures), updated_at_ns=now_ns)


def network_of(address: str | None) -> str:
    """What counts as one address: an IPv4 address, an IPv6 /64 (the least that a household is given)."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
    return str(parsed)
