"""Desks for provisioners under test: real HTTP to the sandbox, or answers from a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keygate.kit.clock import Clock, ManualClock
from keygate.kit.outbound import Answer, Unreached
from keygate.kit.secret import Secret
from keygate.vendors.admin import AdminDesk, AdminHttp, Pace, ProvisionerFacts, TokenShelf, Watcher
from keygate.vendors.admin.http import Sleep


def answer(status: int = 200, body: Any = None, **headers: str) -> Answer:
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


@dataclass
class Script:
    """A vendor that answers from a list, and keeps what it was asked."""

    answers: Sequence[Answer | Unreached]
    asked: list[tuple[str, str, Mapping[str, str], bytes | None]] = field(default_factory=list)

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, timeout: float | None = None
    ) -> Answer:
        self.asked.append((method, url, headers, body))
        told = self.answers[len(self.asked) - 1]
        if isinstance(told, Unreached):
            raise told
        return told


@dataclass
class Steps:
    """A watcher that keeps what it was told."""

    told: list[str] = field(default_factory=list)

    async def before(self, what: str) -> None:
        self.told.append(f"> {what}")

    async def after(self, what: str, outcome: str) -> None:
        self.told.append(f"< {what}: {outcome}")


class NoIssuer:
    url = "https://keygate.example"

    def jwks(self) -> dict[str, Any]:
        raise AssertionError("no issuer in this test")

    def sign(self, claims: Mapping[str, Any]) -> Secret:
        raise AssertionError("no issuer in this test")


def resting(clock: ManualClock) -> Any:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    return sleep


def admin_http(
    sender: Any, *, clock: ManualClock, per_minute: int = 1000, watcher: Watcher | None = None, conceal: Sequence[Secret] = ()
) -> AdminHttp:
    sleep = resting(clock)
    return AdminHttp(sender, pace=Pace(per_minute, clock=clock, sleep=sleep), clock=clock, watcher=watcher, conceal=conceal, sleep=sleep)


async def ended_early() -> tuple[Secret, int]:
    """A sign-in whose token the vendor does not know any more, long before its end."""
    return Secret("a-token-that-the-vendor-has-ended"), 2**62


def desk(
    facts: ProvisionerFacts,
    sender: Any,
    admin: str,
    *,
    clock: Clock,
    settings: Mapping[str, str] | None = None,
    issuer: Any = None,
    watcher: Watcher | None = None,
    sleep: Sleep = asyncio.sleep,
) -> AdminDesk:
    """Real time and, unless `sleep` is another, real waits: for the sandbox."""
    secret = Secret(admin)
    http = AdminHttp(sender, pace=Pace(100_000, clock=clock), clock=clock, watcher=watcher, conceal=(secret,), sleep=sleep)
    return AdminDesk(facts, secret, settings or {}, http, clock, issuer or NoIssuer(), TokenShelf(clock))
