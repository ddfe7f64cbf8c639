"""One scan at work: list everything page by page, read what stands there, judge it against what KeyGate knows.

Each page is a transaction with its cursor, so a scan goes on where it was cut off. It calls nothing that changes anything, and every call
waits for its turn in the account's pace, like all others there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.events import EventType
from keygate.issued_keys.bench import pause_ns
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.judging import match
from keygate.issued_keys.inventory.model import Finding, Item, Kind, Scan, ScanState, identity_of, kind_of
from keygate.issued_keys.life import LIVE
from keygate.kit.clock import NANOSECONDS
from keygate.kit.ids import new_id
from keygate.vendors.admin import (
    AdminDesk,
    AdminKeyRefused,
    Footprint,
    Found,
    Lists,
    NotFound,
    Presence,
    Provisioner,
    ProvisionerError,
    RateLimited,
    Reading,
    Rejected,
    Unavailable,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

WORKER = "worker"  # who asked for the daily scan
CLAIM_NS = 300 * NANOSECONDS
MAX_ATTEMPTS = 12
ASKED_ATTEMPTS = 3  # of a scan that somebody waits for
NOWHERE_ATTEMPTS = 3  # where the list itself is not found: there is no such API
MAX_PAGES = 20_000
_LONGEST_SECONDS = 600.0
_LONGEST_ASKED_SECONDS = 5.0
_UNREADABLE_IN_A_ROW = 5  # then it is not the things that can't be read, but the vendor
_AT_ONCE = 10  # rows that are read between two transactions
_SETTLING_NS = 600 * NANOSECONDS  # a key so young may not be listed yet


class ScanLost(Exception):
    """Another process works on this scan now."""


def can_look(provisioner: Provisioner | None) -> bool:
    """Whether there is a list, or keys that were entered one by one and can be asked about."""
    return isinstance(provisioner, Lists) or (provisioner is not None and provisioner.facts.adopt_only)


class Look:
    def __init__(self, eyes: Eyes, scan: Scan) -> None:
        self._eyes = eyes
        self.scan = scan
        self._unreadable: dict[str, str] = {}  # item → what the vendor said
        self._in_a_row = 0

    async def run(self) -> None:
        eyes, scan = self._eyes, self.scan
        async with eyes.database.read() as connection:
            account = await eyes.accounts.get(connection, scan.organization_id, scan.account_id)
        provisioner = eyes.provisioners.get(scan.vendor)
        if account is None or provisioner is None or not can_look(provisioner):
            await self.failed("the vendor account is gone, or this vendor lists nothing", lasting=True)
            return
        desk = await eyes.desks.open(account)
        while self.scan.state is ScanState.LISTING and isinstance(provisioner, Lists):
            await self._page(provisioner, desk)
        await self._vanished(provisioner, desk)
        await self._unlisted(provisioner, desk)
        await self._readings(provisioner, desk)
        await self._close()

    async def failed(self, detail: str, *, lasting: bool, error: ProvisionerError | None = None) -> None:
        """Notes what went wrong, and when the scan is tried again; after some tries, or for what does not mend itself, never. Somebody who
        waits is told soon; what the worker began may take its time."""
        now, scan = self._eyes.clock.now_ns(), replace(self.scan, attempts=self.scan.attempts + 1, error=detail)
        asked = scan.asked_by != WORKER and not isinstance(error, RateLimited)
        most = ASKED_ATTEMPTS if asked else MAX_ATTEMPTS
        longest = _LONGEST_ASKED_SECONDS if asked else _LONGEST_SECONDS
        if isinstance(error, NotFound):
            most, longest = NOWHERE_ATTEMPTS, _LONGEST_ASKED_SECONDS
            nowhere = f"{detail}. Nothing is listed at this address: see the account's base_url and its other settings"
            scan = replace(scan, error=nowhere)
        if lasting or scan.attempts >= most:
            after = replace(scan, state=ScanState.FAILED, due_at_ns=None, ended_at_ns=now)
        else:
            pause = pause_ns(error or Unavailable(detail), scan.attempts, longest=longest)
            after = replace(scan, due_at_ns=now + pause)
        async with self._eyes.database.unit(self.scan.organization_id) as work:
            released = replace(after, claimed_until_ns=None, updated_at_ns=now)
            await self._eyes.repository.save_scan(work.connection, released, by=self._eyes.node_id)

    # Listing

    async def _page(self, provisioner: Lists, desk: AdminDesk) -> None:
        eyes, scan = self._eyes, self.scan
        if scan.pages >= MAX_PAGES:
            raise Rejected("The vendor's list has no end")
        listed, cursor = await provisioner.list_page(desk, scan.cursor)
        if cursor is not None and cursor == scan.cursor:
            raise Rejected("The vendor's list goes round in a circle")
        # The same thing twice in a page counts once.
        found = {identity_of(scan.account_id, each.footprint): each for each in listed if each.presence is not Presence.GONE}
        async with eyes.database.unit(self.scan.organization_id) as work:
            known = await eyes.repository.with_identities(work.connection, scan.organization_id, scan.account_id, list(found))
            for identity, each in found.items():
                before = known.get(identity)
                item = self._item(each, identity, before)
                if before is None:
                    await eyes.repository.add(work.connection, item)
                else:
                    await eyes.repository.save(work.connection, item)
            done = cursor is None
            state = ScanState.READING if done else ScanState.LISTING
            after = replace(scan, state=state, cursor=cursor, pages=scan.pages + 1, seen=scan.seen + len(found), attempts=0)
            await self._saved(work.connection, after)

    def _item(self, found: Found, identity: str, before: Item | None) -> Item:
        now, scan = self._eyes.clock.now_ns(), self.scan
        fresh = before or Item(
            id=new_id("inv"),
            organization_id=scan.organization_id,
            account_id=scan.account_id,
            vendor=scan.vendor,
            kind=kind_of(found.footprint),
            identity=identity,
            footprint=found.footprint,
            name=found.name[:300],
            presence=found.presence,
            scan_id=scan.id,
            first_seen_ns=now,
            seen_at_ns=now,
        )
        return replace(
            fresh,
            footprint=found.footprint,
            name=found.name[:300],
            presence=found.presence,
            scan_id=scan.id,
            seen_at_ns=now,
            owner=None if found.owner is None else found.owner[:320],
            hint=fresh.hint if found.hint is None else found.hint[:60],
            created_at_ns=found.created_at_ns or fresh.created_at_ns,
            last_used_at_ns=found.last_used_at_ns or fresh.last_used_at_ns,
            terms=fresh.terms if found.terms is None else found.terms,
        )

    # What is not listed

    async def _vanished(self, provisioner: Provisioner, desk: AdminDesk) -> None:
        """What former scans saw and this one did not: gone, once the vendor says so of it by name."""
        eyes, scan = self._eyes, self.scan
        async with eyes.database.read() as connection:
            unseen = await eyes.repository.unseen(connection, scan)
        for item in unseen:
            reading = await self._reading(provisioner, desk, item.id, item.footprint)
            if reading is not None:
                await self._read_item(item, reading)

    async def _unlisted(self, provisioner: Provisioner, desk: AdminDesk) -> None:
        """Keys of ours that the list does not show: read by name, and kept as items, so that one that is missing is seen."""
        eyes, scan = self._eyes, self.scan
        async with eyes.database.read() as connection:
            items = await eyes.repository.of_account(connection, scan.organization_id, scan.account_id)
            known = await eyes.known(connection, scan.organization_id, scan.account_id, scan.vendor)
        matched = {key.id for item in items if item.kind is Kind.KEY and (key := match(item, known)) is not None}
        for key in known.keys.values():
            young = (key.activated_at_ns or 0) + _SETTLING_NS > scan.began_at_ns
            if (
                key.account_id != scan.account_id
                or key.id in matched
                or key.state not in LIVE
                or key.footprint is None
                or key.footprint.key is None
                or young
            ):
                continue
            reading = await self._reading(provisioner, desk, key.id, key.footprint)
            if reading is None:
                continue
            found = Found(key.footprint, reading.name or key.name, reading.presence, hint=key.hint)
            item = self._item(found, identity_of(scan.account_id, key.footprint), None)
            async with eyes.database.unit(self.scan.organization_id) as work:
                await eyes.repository.add(work.connection, _with_reading(item, reading, eyes.clock.now_ns()))
                await self._saved(work.connection, replace(self.scan, read=self.scan.read + 1))

    # Reading

    async def _readings(self, provisioner: Provisioner, desk: AdminDesk) -> None:
        """The terms of each key, as the vendor shows them now; of containers only where the vendor lists no keys."""
        eyes = self._eyes
        kinds = {Kind.KEY} if provisioner.facts.lists_keys else {Kind.KEY, Kind.CONTAINER}
        while True:
            async with eyes.database.read() as connection:
                limit = _AT_ONCE + len(self._unreadable)
                unread = await eyes.repository.unread(connection, self.scan, kinds=kinds, limit=limit)
            waiting = [item for item in unread if item.id not in self._unreadable]
            for item in waiting:
                reading = await self._reading(provisioner, desk, item.id, item.footprint)
                if reading is not None:
                    await self._read_item(item, reading)
            if not waiting:
                return

    async def _reading(self, provisioner: Provisioner, desk: AdminDesk, name: str, footprint: Footprint) -> Reading | None:
        """What the vendor shows of one thing. None: just this one can't be read, which fails no scan and is told at its end. Raises where
        the vendor can't be read at all."""
        try:
            reading = await provisioner.read(desk, footprint)
        except (AdminKeyRefused, RateLimited):
            raise
        except ProvisionerError as error:
            self._in_a_row += 1
            self._unreadable[name] = error.detail
            if self._in_a_row >= _UNREADABLE_IN_A_ROW:
                raise
            await self._alive()
            return None
        self._in_a_row = 0
        return reading

    async def _alive(self) -> None:
        """The claim goes on, and whoever looks sees it."""
        async with self._eyes.database.unit(self.scan.organization_id) as work:
            await self._saved(work.connection, self.scan)

    async def _read_item(self, item: Item, reading: Reading) -> None:
        eyes = self._eyes
        async with eyes.database.unit(self.scan.organization_id) as work:
            current = await eyes.repository.get(work.connection, item.organization_id, item.id, lock=True)
            if current is not None:
                await eyes.repository.save(work.connection, _with_reading(current, reading, eyes.clock.now_ns()))
            await self._saved(work.connection, replace(self.scan, read=self.scan.read + 1))

    async def _close(self) -> None:
        eyes, scan = self._eyes, self.scan
        now = eyes.clock.now_ns()
        async with eyes.database.unit(self.scan.organization_id) as work:
            fresh = await eyes.assess(work.connection, scan.organization_id, scan.account_id, scan.vendor)
            done = replace(scan, state=ScanState.DONE, due_at_ns=None, ended_at_ns=now, error=self._left(), claimed_until_ns=None)
            await self._saved(work.connection, done, claim=False)
            drifted = {item.issued_key_id for item in fresh if Finding.DRIFT in item.findings and item.issued_key_id is not None}
            if drifted:  # what stands behind their terms is told anew, and a budget that the vendor does not keep now is watched
                await eyes.key_rows.read_again(work.connection, scan.organization_id, now_ns=now, ids=drifted)
            if fresh:
                told: dict[str, int] = {}
                for item in fresh:
                    for what in item.matters:
                        told[what] = told.get(what, 0) + 1
                payload = {"vendor": scan.vendor, "account": scan.account_id, "new": len(fresh), **told}
                await eyes.outbox.raise_event(work, scan.organization_id, EventType.INVENTORY_FOUND, scan.id, payload)

    def _left(self) -> str | None:
        """What the scan could not read, for people."""
        if not self._unreadable:
            return None
        first = next(iter(self._unreadable.values()))
        return f"{len(self._unreadable)} could not be read, the others were: {first}"

    async def _saved(self, connection: AsyncConnection, scan: Scan, *, claim: bool = True) -> None:
        """In the caller's transaction. Raises `ScanLost` where another process has taken over."""
        now = self._eyes.clock.now_ns()
        after = replace(scan, updated_at_ns=now, claimed_until_ns=now + CLAIM_NS if claim else None)
        if not await self._eyes.repository.save_scan(connection, after, by=self._eyes.node_id):
            raise ScanLost
        self.scan = after


def _with_reading(item: Item, reading: Reading, now_ns: int) -> Item:
    return replace(
        item,
        presence=reading.presence,
        terms=item.terms if reading.presence is Presence.GONE else reading.terms,
        read_at_ns=now_ns,
        last_used_at_ns=reading.last_used_at_ns or item.last_used_at_ns,
    )
