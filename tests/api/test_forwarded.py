"""Whose address stands behind a proxy: only what named proxies wrote is believed."""

from __future__ import annotations

from ipaddress import ip_network

import httpx
import pytest
from pydantic import ValidationError
from tests.conftest import OWNER_PASSWORD

from keygate.api import create_app
from keygate.api.forwarded import caller
from keygate.audit import AuditOutcome, EntryFilter
from keygate.config import Settings

TRUSTED = [ip_network("10.0.0.1"), ip_network("10.1.0.0/24"), ip_network("2001:db8:1::/64")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("192.0.2.9", "203.0.113.5", "192.0.2.9"),  # no proxy of ours
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.5", "203.0.113.5"),  # what the caller wrote itself
        ("10.0.0.1", "198.51.100.1, 203.0.113.5, 10.1.0.7", "203.0.113.5"),  # two proxies
        ("10.0.0.1", "203.0.113.5, 10.2.0.7", "10.2.0.7"),
        ("10.0.0.1", "10.1.0.3, 10.1.0.7", "10.1.0.3"),
        ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.1", "[2001:db8::5]:4711", "2001:db8::5"),
        ("2001:db8:1::8", "2001:DB8::5", "2001:db8::5"),
        ("10.0.0.1", "203.0.113.5, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5, x'\"<, 10.1.0.7", "10.1.0.7"),
        ("10.0.0.1", "203.0.113.5,", "10.0.0.1"),
        ("testclient", "203.0.113.5", "testclient"),
    ],
)
def test_addresses_are_believed_from_the_right_as_far_as_proxies_wrote_them(peer, forwarded, found):
    assert caller(peer, forwarded, TRUSTED) == found
    assert caller(peer, forwarded, []) == (peer.removeprefix("::ffff:"))


async def test_throttle_and_audit_log_see_the_caller_behind_a_named_proxy(people, audit, started):
    app = create_app(services=people.by_class(), sessions=people.sessions, audit=audit, public_url="x", proxies=[ip_network("10.0.0.1")])

    async def sign_in(address: str, *, email: str = "owner@example.com", password: str = OWNER_PASSWORD, peer: str = "10.0.0.1") -> int:
        transport = httpx.ASGITransport(app=app, client=(peer, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://keygate.test") as client:
            # The caller writes one itself, in a header of its own; the proxy appends.
            headers = [("x-forwarded-for", f"198.51.100.{len(email)}"), ("x-forwarded-for", address)]
            answer = await client.post("/api/v1/auth/login", json={"email": email, "password": password}, headers=headers)
        return answer.status_code

    for number in range(20):
        assert await sign_in("203.0.113.5", email=f"nobody{number}@example.com", password="wrong") == 401
    assert await sign_in("203.0.113.5") == 429
    assert await sign_in("203.0.113.6") == 200
    assert await sign_in("203.0.113.7", password="wrong") == 401
    (refused,) = await audit.find(started.organization.id, EntryFilter(outcome=AuditOutcome.REFUSED), before=None, limit=5)
    assert refused.address == "203.0.113.7"
    assert await sign_in("203.0.113.5", password="wrong", peer="10.0.0.2") == 401  # not named: not read
    refused, *_ = await audit.find(started.organization.id, EntryFilter(outcome=AuditOutcome.REFUSED), before=None, limit=5)
    assert refused.address == "10.0.0.2"


def test_proxies_are_addresses_and_networks():
    assert Settings(trusted_proxies=" 127.0.0.1, ::1,10.1.0.0/24 ").proxies == [
        ip_network("127.0.0.1"),
        ip_network("::1"),
        ip_network("10.1.0.0/24"),
    ]
    assert Settings().proxies == []
    for wrong in ("*", "proxy.example.com", "10.1.0.1/24", "10.0.0.1;10.0.0.2"):
        with pytest.raises(ValidationError, match="addresses and networks"):
            Settings(trusted_proxies=wrong)
