"""What every use case of the inventory does: find the item, open the vendor, record before the effect, read back after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog
from keygate.errors import Conflict, Forbidden, NotFound, UpstreamFailed
from keygate.identities import Actor, allows
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.model import Difference, Item, remedy
from keygate.issued_keys.records import footprint_to_json
from keygate.vendors.admin import AdminDesk, Presence, Provisioner, ProvisionerError, Reading

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_POLL_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)  # a vendor's own reads may lag behind its writes


class Hands:
    def __init__(self, eyes: Eyes, *, audit: AuditLog, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.eyes = eyes
        self.audit = audit
        self._sleep = sleep

    async def get(self, actor: Actor, item_id: str) -> Item:
        async with self.eyes.database.read() as connection:
            return await self.mine(connection, actor, item_id)

    def remedies(self, item: Item) -> list[str]:
        """What helps, by its findings."""
        return [remedy(finding, stale_days=self.eyes.stale_days) for finding in item.findings]

    async def open(self, item: Item) -> tuple[Provisioner, AdminDesk]:
        async with self.eyes.database.read() as connection:
            account = await self.eyes.accounts.get(connection, item.organization_id, item.account_id)
        provisioner = self.eyes.provisioners.get(item.vendor)
        if account is None or provisioner is None:
            raise Conflict("The vendor account that it was found with is gone; configure it again")
        return provisioner, await self.eyes.desks.open(account)

    async def told(self, call: Awaitable[Any], what: str) -> Any:
        try:
            return await call
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not {what}: {error.detail}") from None

    async def recorded(self, actor: Actor, action: str, item: Item, detail: dict[str, Any]) -> None:
        """Before the effect: what can't be recorded doesn't happen."""
        async with self.eyes.database.unit(item.organization_id) as work:
            told = {"vendor": item.vendor, "name": item.name, "at_vendor": footprint_to_json(item.footprint), **detail}
            await self.audit.record(
                work, actor, action, item.id, before={"findings": list(item.findings), **drift_record(item.drift)}, after=told
            )

    async def until(self, provisioner: Provisioner, desk: AdminDesk, item: Item, holds: Callable[[Reading], bool]) -> Item:
        """Reads until the vendor shows what was asked for, and saves what it shows. Raises `UpstreamFailed` where it never does."""
        for pause in (*_POLL_SECONDS, None):
            reading: Reading = await self.told(provisioner.read(desk, item.footprint), "read it back")
            if holds(reading) or pause is None:
                break
            await self._sleep(pause)
        after = await self.saved(item, reading)
        if not holds(reading):
            raise UpstreamFailed("The vendor took the call, but still shows it as before; look again in a moment")
        return after

    async def saved(self, item: Item, reading: Reading) -> Item:
        eyes = self.eyes
        async with eyes.database.unit(item.organization_id) as work:
            current = await eyes.repository.get(work.connection, item.organization_id, item.id, lock=True) or item
            terms = current.terms if reading.presence is Presence.GONE else reading.terms
            after = replace(current, presence=reading.presence, terms=terms, read_at_ns=eyes.clock.now_ns())
            await eyes.repository.save(work.connection, after)
            await eyes.assess(work.connection, item.organization_id, item.account_id, item.vendor)
            return await eyes.repository.get(work.connection, item.organization_id, item.id) or after

    async def looked_again(self, item: Item) -> Item:
        provisioner, desk = await self.open(item)
        return await self.saved(item, await self.told(provisioner.read(desk, item.footprint), "read it back"))

    async def mine(self, connection: AsyncConnection, actor: Actor, item_id: str, *, lock: bool = False) -> Item:
        item = None if actor.only_own else await self.eyes.repository.get(connection, actor.organization_id, item_id, lock=lock)
        if item is None:
            raise NotFound("There is nothing with this id in the inventory")
        return item


def require_keys(actor: Actor) -> None:
    """Whoever changes what stands at a vendor, or what was agreed, may also change issued keys: a token's scopes may be narrower."""
    if not allows(actor, "issued_keys.write"):
        raise Forbidden("This needs the permission issued_keys.write too")


def drift_record(drift: Sequence[Difference]) -> dict[str, Any]:
    return {"drift": [{"term": each.term, "agreed": each.agreed, "found": each.found} for each in drift]} if drift else {}
