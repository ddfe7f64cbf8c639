"""Judging a whole account: what was found there against what the database knows now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.events import EventOutbox
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.inventory.judging import Known, judge
from keygate.issued_keys.inventory.model import DAY_NS, Item
from keygate.issued_keys.inventory.ports import Ages, Leavers, Restraints
from keygate.issued_keys.life import LIVE
from keygate.issued_keys.model import facts_of
from keygate.kit.clock import Clock
from keygate.vendors.admin import Provisioner, ProvisionerFacts

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.inventory.repository import InventoryRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database


@dataclass(frozen=True, slots=True)
class Eyes:
    """What whoever looks at vendors works with."""

    database: Database
    repository: InventoryRepository
    key_rows: IssuedKeyRepository
    accounts: VendorAccountRepository
    desks: Desks
    provisioners: Mapping[str, Provisioner]
    leavers: Leavers
    restraints: Restraints
    ages: Ages
    outbox: EventOutbox
    clock: Clock
    node_id: str
    stale_days: int

    async def known(
        self, connection: AsyncConnection, organization_id: str, account_id: str, vendor: str, items: Sequence[Item] = ()
    ) -> Known:
        """What KeyGate knows that bears on this account, and on the items in it. Keys of the vendor's other accounts too: the same
        organisation may be entered under two names, and ids of different ones are never the same."""
        if self.provisioners[vendor].facts.adopt_only:  # each key has an account of its own, which is all that is known of it
            keys = await self.key_rows.of_account(connection, organization_id, account_id)
        else:
            keys = await self.key_rows.of_vendor(connection, organization_id, vendor)
        owners = {item.owner.lower() for item in items if item.owner is not None and "@" in item.owner}
        holders = sorted({key.owner.scope_id for key in keys if key.owner is not None})
        living = [key for key in keys if key.state in LIVE]
        return Known.of(
            keys,
            max_ages=await self.ages.max_ages(connection, organization_id, living),
            restrained=await self.restraints.restrained(connection, organization_id),
            inactive=await self.leavers.inactive(connection, organization_id, holders),
            left=await self.leavers.left(connection, organization_id, sorted(owners)),
            listed=frozenset(item.footprint.key for item in items if item.footprint.key is not None),
        )

    async def facts(self, connection: AsyncConnection, organization_id: str, account_id: str, vendor: str) -> ProvisionerFacts:
        """What is true of the vendor for this account."""
        return facts_of(self.provisioners[vendor], await self.accounts.get(connection, organization_id, account_id))

    async def assess(self, connection: AsyncConnection, organization_id: str, account_id: str, vendor: str) -> list[Item]:
        """Judges every item of an account again and saves what has changed; `connection` is one that may write. Returns those with
        something new the matter that nobody has accepted."""
        items = await self.repository.of_account(connection, organization_id, account_id)
        known = await self.known(connection, organization_id, account_id, vendor, items)
        facts = await self.facts(connection, organization_id, account_id, vendor)
        now, fresh = self.clock.now_ns(), []
        for item in items:
            after = judge(item, known, facts, now_ns=now, stale_ns=self.stale_days * DAY_NS)
            if after != item:
                await self.repository.save(connection, after)
            if after.matters - item.matters and not after.accepted:
                fresh.append(after)
        return fresh
