"""Budgets that a vendor does not enforce are watched: told at 80 and 100 per cent, and at 100 the key is switched off where the vendor can.

This is never a hard limit: it goes by what the vendor has told so far, which is late by the vendor's own delay. Budgets that the vendor
enforces are told of alike, and left to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, NotFound, UpstreamFailed
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor
from keygate.issued_keys.bench import worker_actor
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.life import LIVE
from keygate.issued_keys.model import Enforcement, IssuedKey, VendorAccount
from keygate.kit.clock import Clock, from_ns, to_ns
from keygate.kit.money import format_usd
from keygate.policies import change
from keygate.vendors.admin import AdminDesk, Disables, Footprint, Period, Presence, Provisioner, ProvisionerError, Term

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.issued_keys.spend_repository import SpendRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)

THRESHOLDS = (80, 100)  # per cent


def period_start(period: Period, now_ns: int, *, created_at_ns: int) -> int:
    """When the running period began: calendar periods in UTC, as vendors have them."""
    if period is Period.LIFETIME:
        return created_at_ns
    day = from_ns(now_ns).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.WEEK:
        day -= timedelta(days=day.weekday())
    elif period is Period.MONTH:
        day = day.replace(day=1)
    return to_ns(day)


class BudgetWatch:
    def __init__(
        self,
        *,
        database: Database,
        keys: IssuedKeyRepository,
        spend: SpendRepository,
        accounts: VendorAccountRepository,
        desks: Desks,
        audit: AuditLog,
        outbox: EventOutbox,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._keys = keys
        self._spend = spend
        self._accounts = accounts
        self._desks = desks
        self._audit = audit
        self._outbox = outbox
        self._provisioners = provisioners
        self._clock = clock

    async def look(self, account: VendorAccount) -> None:
        """After an import: every live key of the account that has a budget. A vendor that does not switch a key off is asked again at the
        next import."""
        async with self._database.read() as connection:
            keys = await self._spend.keys_of(connection, account.organization_id, account.id)
        for key in keys:
            if key.state in LIVE and key.terms.budget_nano:
                try:
                    await self._judge(account, key)
                except (ProvisionerError, Conflict) as error:
                    _log.warning("the budget of issued key %s can't be kept: %s", key.id, error.detail)

    async def resume(self, actor: Actor, key_id: str) -> IssuedKey:
        """Switches a key on again that was switched off for its budget; it is watched on, and told of again in the next period only."""
        async with self._database.read() as connection:
            key = await self._keys.get(connection, actor.organization_id, key_id)
            account = None if key is None else await self._accounts.get(connection, actor.organization_id, key.account_id)
        if key is None:
            raise NotFound("There is no issued key with this id")
        if key.suspended_at_ns is None or account is None or key.state not in LIVE:
            raise Conflict("The key is not switched off")
        try:
            await self._switch(account, key, enabled=True)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not switch the key on: {error.detail}") from None
        async with change(self._database, self._audit, actor, "issued_key.resume", key_id) as work:
            current = await self._keys.get(work.connection, key.organization_id, key_id, lock=True)
            if current is None or current.state not in LIVE:
                raise Conflict("The key was changed meanwhile")
            after = replace(current, suspended_at_ns=None, version=current.version + 1)
            await self._audit.record(work, actor, "issued_key.resume", key_id, after={"suspended": False})
            await self._keys.save(work.connection, after)
        return after

    async def _judge(self, account: VendorAccount, key: IssuedKey) -> None:
        now, budget = self._clock.now_ns(), key.terms.budget_nano or 0
        start = period_start(key.terms.budget_period, now, created_at_ns=key.created_at_ns)
        async with self._database.read() as connection:
            spent = await self._spend.spent(connection, key.organization_id, key.id, from_ns=start)
        percent = spent * 100 // budget
        told = key.spend_told if key.spend_from_ns == start else 0
        reached = max((threshold for threshold in THRESHOLDS if percent >= threshold), default=0)
        fresh = key.spend_from_ns != start
        off = reached >= 100 and key.enforcement.get(str(Term.BUDGET)) is Enforcement.NOT_ENFORCED and (fresh or told < 100)
        on = fresh and key.suspended_at_ns is not None and reached < 100
        switched = await self._switch(account, key, enabled=on) if off or on else False
        if switched and off:
            suspended: int | None = now
        else:
            suspended = None if on and switched else key.suspended_at_ns
        actor = worker_actor(key.organization_id)
        async with self._database.unit(key.organization_id) as work:
            current = await self._keys.get(work.connection, key.organization_id, key.id, lock=True)
            if current is None or current.state not in LIVE:
                return
            after = replace(
                current,
                spend_nano=spent,
                spend_from_ns=start,
                spend_told=max(told, reached),
                suspended_at_ns=suspended,
                version=current.version + 1,
            )
            if reached > told:
                payload = {
                    "percent": reached,
                    "spent_usd": format_usd(spent),
                    "budget_usd": format_usd(budget),
                    "switched_off": switched and off,
                }
                await self._outbox.raise_event(work, key.organization_id, EventType.ISSUED_KEY_BUDGET_REACHED, key.id, payload)
            if switched:
                said = {"switched_off": off, "spent_usd": format_usd(spent), "budget_usd": format_usd(budget)}
                await self._audit.record(work, actor, "issued_key.suspend" if off else "issued_key.resume", key.id, after=said)
            await self._keys.save(work.connection, after)

    async def _switch(self, account: VendorAccount, key: IssuedKey, *, enabled: bool) -> bool:
        """True: the vendor shows it so. False: it has no such switch."""
        provisioner = self._provisioners.get(account.vendor)
        power: object = provisioner
        if provisioner is None or not isinstance(power, Disables):
            return False
        desk: AdminDesk = await self._desks.open(account)
        footprint = key.footprint or Footprint()
        await power.set_enabled(desk, footprint, enabled=enabled)
        shown = (await provisioner.read(desk, footprint)).presence
        if shown is not (Presence.LIVE if enabled else Presence.DISABLED):
            raise Conflict(f"the vendor took the call, but shows the key as {shown}")
        return True
