"""The `Desk` that provisioners are given: one admin credential, its settings, and the tokens it was traded for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.secret import Secret
from keygate.vendors.admin.http import AdminHttp
from keygate.vendors.admin.interface import Issuer, MakeToken, ProvisionerFacts

_MARGIN_NS = 60 * NANOSECONDS


class TokenShelf:
    """Keeps short-lived tokens of one admin credential; asks for one at a time. Share it among the desks of that credential."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[Secret, int]] = {}
        self._turn = asyncio.Lock()

    def clear(self) -> None:
        self._kept.clear()

    async def token(self, name: str, make: MakeToken, *, refused: Secret | None = None) -> Secret:
        async with self._turn:
            kept = self._kept.get(name)
            if kept is None or kept[0] is refused or kept[1] - _MARGIN_NS <= self._clock.now_ns():
                kept = self._kept[name] = await make()
            return kept[0]


@dataclass(frozen=True, slots=True)
class AdminDesk:
    facts: ProvisionerFacts
    admin: Secret
    settings: Mapping[str, str]
    http: AdminHttp
    clock: Clock
    issuer: Issuer
    shelf: TokenShelf = field(repr=False)

    def base(self, name: str | None = None) -> str:
        main = next(iter(self.facts.hosts))
        wanted = main if name is None else name
        own = self.settings.get(f"{wanted}_url")
        root = self.settings.get("base_url")
        if own is not None:
            return own.rstrip("/")
        if root is not None:
            return root.rstrip("/") if wanted == main else f"{root.rstrip('/')}/{wanted}"
        return self.facts.hosts[wanted].rstrip("/")

    async def token(self, name: str, make: MakeToken, *, refused: Secret | None = None) -> Secret:
        return await self.shelf.token(name, make, refused=refused)
