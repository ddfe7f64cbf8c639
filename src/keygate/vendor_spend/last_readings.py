"""What was read of keys just before they were ended, brought into the bill: in place at once, so that reports and watched budgets have it,
and put again over readings of the bill that had begun before. The same reading brought again is the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keygate.vendor_spend.attributing import Attributor
from keygate.vendor_spend.model import ImportState, place_text, plain
from keygate.vendors.admin import SpendRow

if TYPE_CHECKING:
    from keygate.issued_keys.ports import AtVendor
    from keygate.kit.database import Database
    from keygate.vendor_spend.repository import SpendRepository


class LastReadings:
    """The `LastSpend` of issued keys."""

    def __init__(self, *, database: Database, repository: SpendRepository, attributor: Attributor) -> None:
        self._database = database
        self._repository = repository
        self._attributor = attributor

    async def keep(self, thing: AtVendor, rows: Sequence[SpendRow], *, read_at_ns: int) -> None:
        state = ImportState(account_id=thing.account_id, organization_id=thing.organization_id, vendor=thing.vendor)
        names = {(place_text(row.place), row.key) for row in map(plain, rows)}
        async with self._database.unit() as work:
            await self._repository.add_state(work.connection, state)
            await self._repository.hold(work.connection, state)
            await self._repository.keep_last(work.connection, state, rows, read_at_ns=read_at_ns)
            owners = await self._attributor.owners_of(work.connection, state, names)
            await self._repository.attribute_named(work.connection, state, owners)
