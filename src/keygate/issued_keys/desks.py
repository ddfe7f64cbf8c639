"""Opens vendor accounts for provisioners: the admin credential out of the vault, paced HTTP, kept sign-in tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from keygate.issued_keys.model import VendorAccount
from keygate.kit.clock import Clock
from keygate.kit.secret import Secret
from keygate.vault import Place, Vault
from keygate.vendors.admin import AdminDesk, AdminHttp, Issuer, Pace, Provisioner, ProvisionerFacts, Sender, TokenShelf, Watcher

CALLS_SETTING = "calls_per_minute"
CEILING_SETTING = "ceiling"
UNTOLD_LAG_SECONDS = 900
LAG_SETTING = "last_use_delay_seconds"  # how late this account tells when a key was used
PROOF_SETTING = "proof"  # `off`: no sealed copies of keys are kept, so no vendor is asked with them


@dataclass(frozen=True, slots=True)
class _Kept:
    pace: Pace
    shelf: TokenShelf
    stamp: tuple[str, int]


class Desks:
    """One for a process: what has to be shared among all who use the same account (its pace, its tokens) is kept here."""

    def __init__(
        self,
        *,
        sender: Sender,
        vault: Vault,
        issuer: Issuer,
        clock: Clock,
        provisioners: Mapping[str, Provisioner],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sender = sender
        self._vault = vault
        self._issuer = issuer
        self._clock = clock
        self._provisioners = provisioners
        self._sleep = sleep
        self._kept: dict[str, _Kept] = {}
        self.refused: Callable[[VendorAccount], Awaitable[None]] | None = None  # told where a vendor does not know a credential any more

    async def open(self, account: VendorAccount, *, watcher: Watcher | None = None, trial: bool = False) -> AdminDesk:
        """With `trial` to ask about the credential itself: no token that it was traded for before, and nobody is told of a refusal. Raises
        `EnvelopeBroken` where the admin credential can't be opened."""
        admin = await self._vault.open(account.admin_key, admin_place(account))
        facts = self._provisioners[account.vendor].facts
        stamp = (account.id, account.updated_at_ns)
        kept = self._kept.get(account.id)
        if kept is None or kept.stamp != stamp:
            pace = Pace(calls_per_minute(facts, account.settings), clock=self._clock, sleep=self._sleep)
            kept = self._kept[account.id] = _Kept(pace, TokenShelf(self._clock), stamp)
        if trial:
            kept.shelf.clear()  # whatever was traded for before the question is not trusted after it
            return self._desk(facts, admin, account.settings, kept.pace, TokenShelf(self._clock), watcher)
        tell = None if self.refused is None else partial(self.refused, account)
        return self._desk(facts, admin, account.settings, kept.pace, kept.shelf, watcher, tell)

    def trial(self, facts: ProvisionerFacts, admin: Secret, settings: Mapping[str, str]) -> AdminDesk:
        """For a credential that is not stored yet."""
        pace = Pace(calls_per_minute(facts, settings), clock=self._clock, sleep=self._sleep)
        return self._desk(facts, admin, settings, pace, TokenShelf(self._clock), None)

    def _desk(
        self,
        facts: ProvisionerFacts,
        admin: Secret,
        settings: Mapping[str, str],
        pace: Pace,
        shelf: TokenShelf,
        watcher: Watcher | None,
        refused: Callable[[], Awaitable[None]] | None = None,
    ) -> AdminDesk:
        http = AdminHttp(self._sender, pace=pace, clock=self._clock, watcher=watcher, conceal=(admin,), sleep=self._sleep, refused=refused)
        return AdminDesk(facts, admin, settings, http, self._clock, self._issuer, shelf)


def admin_place(account: VendorAccount) -> Place:
    return Place("vendor_accounts", account.id, account.organization_id, "admin_key")


def calls_per_minute(facts: ProvisionerFacts, settings: Mapping[str, str]) -> int:
    text = settings.get(CALLS_SETTING, "")
    return int(text) if text.isdecimal() and text else facts.calls_per_minute


def last_use_delay(facts: ProvisionerFacts, settings: Mapping[str, str]) -> int:
    """Seconds by which the vendor's `last used` may lag; where it does not say, a quarter of an hour."""
    text = settings.get(LAG_SETTING, "")
    told = facts.last_use_delay_seconds
    return int(text) if text.isdecimal() and text else (UNTOLD_LAG_SECONDS if told is None else told)


def ceiling(facts: ProvisionerFacts, settings: Mapping[str, str]) -> int | None:
    text = settings.get(CEILING_SETTING, "")
    return int(text) if text.isdecimal() and text else facts.ceiling
