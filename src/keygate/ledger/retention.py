"""Old entries and old recorded content go, roll-ups stay. In small portions, so that no other writer waits long for one of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from keygate.kit.clock import Clock
from keygate.ledger.posting import DAY_NS

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.ledger.content_repository import ContentRepository
    from keygate.ledger.repository import LedgerRepository

PORTION = 2_000
PAUSE = 0.05
LIMIT_DAYS = 2  # limits per day look back one day


class Retention:
    def __init__(
        self,
        *,
        database: Database,
        repository: LedgerRepository,
        contents: ContentRepository,
        clock: Clock,
        entry_days: int,
        content_days: int = 30,
    ) -> None:
        self._database = database
        self._repository = repository
        self._contents = contents
        self._clock = clock
        self._entry_days = entry_days
        self._content_days = content_days

    async def tick(self) -> int:
        """Deletes all that is too old; returns how many entries went. An entry goes only once the roll-ups contain it."""
        now = self._clock.now_ns()
        before = now - self._entry_days * DAY_NS
        gone = 0
        while True:
            async with self._database.unit() as work:
                until = await self._repository.oldest_entries(work.connection, before_ns=before, limit=PORTION)
                deleted = 0 if until is None else await self._repository.delete_entries(work.connection, until_seq=until, before_ns=before)
            gone += deleted
            if not deleted:
                break
            await asyncio.sleep(PAUSE)
        while True:
            async with self._database.unit() as work:
                if not await self._contents.delete_before(work.connection, now - self._content_days * DAY_NS, limit=PORTION):
                    break
            await asyncio.sleep(PAUSE)
        async with self._database.unit() as work:
            await self._repository.lock_fold(work.connection)  # it may be adding to the same rows, in another order
            await self._repository.forget_limit_use(work.connection, now - LIMIT_DAYS * DAY_NS)
        return gone
