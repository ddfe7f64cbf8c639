"""Scans of vendor accounts: begun each day and on demand, worked on by the worker, gone on with after a crash."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.errors import KeyGateError
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.looking import CLAIM_NS, WORKER, Look, ScanLost, can_look
from keygate.issued_keys.inventory.model import FIRST_SCAN_NS, SCAN_EVERY_NS, Scan, ScanState
from keygate.kit.ids import new_id
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import NotFound, ProvisionerError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_log = logging.getLogger(__name__)


class Scanner:
    def __init__(self, eyes: Eyes) -> None:
        self._eyes = eyes

    async def recover(self) -> None:
        """Before the first turn: scans of a former process of this node go on at once."""
        async with self._eyes.database.unit() as work:
            await self._eyes.repository.give_back(work.connection, node=self._eyes.node_id)

    async def plan(self) -> None:
        """Begins a scan of every account that was not looked at for a day. For the worker."""
        eyes, now = self._eyes, self._eyes.clock.now_ns()
        async with eyes.database.read() as connection:
            due = await eyes.repository.accounts_to_scan(connection, before_ns=now - SCAN_EVERY_NS, made_before_ns=now - FIRST_SCAN_NS)
        for organization_id, account_id, vendor in due:
            if can_look(eyes.provisioners.get(vendor)):
                async with eyes.database.unit(organization_id) as work:
                    await self.begin(work.connection, organization_id, account_id, vendor, asked_by=WORKER)

    async def begin(self, connection: AsyncConnection, organization_id: str, account_id: str, vendor: str, *, asked_by: str) -> Scan:
        """A scan that the worker takes up; the one that is open already, where there is one: it waits no longer if somebody asks."""
        eyes = self._eyes
        found = await eyes.repository.open_scan(connection, organization_id, account_id)
        now = eyes.clock.now_ns()
        if found is not None:
            if asked_by != WORKER and found.due_at_ns is not None and found.due_at_ns > now:
                await eyes.repository.hurry(connection, found, asked_by=asked_by, now_ns=now)
            return found
        scan = Scan(
            id=new_id("scan"),
            organization_id=organization_id,
            account_id=account_id,
            vendor=vendor,
            state=ScanState.LISTING,
            asked_by=asked_by,
            began_at_ns=now,
            updated_at_ns=now,
            due_at_ns=now,
        )
        await eyes.repository.add_scan(connection, scan)
        return scan

    async def tick(self) -> bool:
        """Works on the scans that are due, one after the other. Returns whether there was one. For the worker."""
        eyes = self._eyes
        async with eyes.database.read() as connection:
            due = await eyes.repository.due_scans(connection, now_ns=eyes.clock.now_ns(), limit=10)
        for scan in due:
            now = eyes.clock.now_ns()
            async with eyes.database.unit(scan.organization_id) as work:
                taken = await eyes.repository.claim_scan(work.connection, scan, by=eyes.node_id, until_ns=now + CLAIM_NS, now_ns=now)
            if taken:
                await self._worked(replace(scan, claimed_by=eyes.node_id, claimed_until_ns=now + CLAIM_NS))
        return bool(due)

    async def assess(self) -> None:
        """Judges all that was found again: keys end and people leave between two scans. For the worker."""
        eyes = self._eyes
        async with eyes.database.read() as connection:
            accounts = await eyes.repository.accounts_with_items(connection)
        for organization_id, account_id, vendor in accounts:
            if vendor in eyes.provisioners:
                async with eyes.database.unit(organization_id) as work:
                    await eyes.assess(work.connection, organization_id, account_id, vendor)

    async def _worked(self, scan: Scan) -> None:
        look = Look(self._eyes, scan)
        try:
            await look.run()
        except ScanLost:
            _log.warning("inventory scan %s: another process has taken over", scan.id)
        except ProvisionerError as error:
            await look.failed(error.detail, lasting=error.lasting and not isinstance(error, NotFound), error=error)
        except EnvelopeBroken as error:
            await look.failed(f"The admin credential can't be opened: {error.detail}; enter it again", lasting=True)
        except KeyGateError as error:
            await look.failed(error.detail, lasting=False)
