"""Reads vendors' bills, account by account, page by page. Late and restated numbers never count twice: a window's pages wait apart until
the last one is there, then they replace what the window held, in one transaction. A process that ends in between goes on at its page."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput
from keygate.identities import Actor
from keygate.issued_keys import IssuedKeyAccess, VendorAccount
from keygate.kit.clock import NANOSECONDS, Clock, rfc3339
from keygate.policies import OwnerDirectory
from keygate.vault import EnvelopeBroken
from keygate.vendor_spend.attributing import Attributor
from keygate.vendor_spend.model import ImportState, Window, earliest, first_window, is_deep, next_window, pause_ns
from keygate.vendors.admin import (
    MISSHAPEN,
    AdminDesk,
    AdminKeyRefused,
    ProvisionerError,
    RateLimited,
    Rejected,
    ReportsSpend,
    SpendFacts,
    SpendRow,
    TellsByKey,
    TellsLastSpend,
    Unavailable,
    spend_of,
    why_no_spend,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import Database
    from keygate.vendor_spend.repository import SpendRepository

_log = logging.getLogger(__name__)

LEASE_NS = 300 * NANOSECONDS  # renewed with each page, which takes less than half of it
STALE_NS = 3 * 3_600 * NANOSECONDS  # pages older than this are read again with the rest of their window
TURN_NS = 600 * NANOSECONDS  # of one account; the rest is read in its next turn, so that none keeps the others waiting
MOST_PAGES = 5_000  # of a window
MANY_PAGES = 100
AT_ONCE = 4
_LONGEST_PAUSE_SECONDS = 3_600
_LONGEST_WAIT_SECONDS = 86_400  # whatever a vendor says, and whatever a clock was set to
MOST_CURSOR = 20_000
ASK_AGAIN_NS = 12 * 3_600 * NANOSECONDS  # of keys that are gone, for as long as their last day may be restated
MOST_ASKED = 50  # of them, in a window; the rest in the next import
_ASKED_WITHIN_NS = 100 * NANOSECONDS


class Overtaken(Exception):
    """Another process imports this account now; `until_ns`: if it is gone, its lease ends then."""

    def __init__(self, until_ns: int | None = None) -> None:
        super().__init__()
        self.until_ns = until_ns


class _TimeIsUp(Exception):
    """What is left is read in the next turn."""


class SpendImporter:
    def __init__(
        self,
        *,
        database: Database,
        repository: SpendRepository,
        issued: IssuedKeyAccess,
        owners: OwnerDirectory,
        audit: AuditLog,
        clock: Clock,
        node_id: str,
    ) -> None:
        self._database = database
        self._repository = repository
        self._issued = issued
        self._attributor = Attributor(issued, owners)
        self._audit = audit
        self._clock = clock
        self._node_id = node_id[:24]
        self._count = 0

    async def recover(self) -> None:
        """Before the first turn: accounts that a former process of this node was importing are free again."""
        async with self._database.unit() as work:
            await self._repository.give_back(work.connection, node=self._node_id)

    async def tick(self) -> None:
        """Imports every account that is due, a few at a time. For the worker."""
        async with self._database.read() as connection:
            accounts = await self._issued.all_accounts(connection)
            known = await self._repository.all_states(connection)
        now = self._clock.now_ns()
        due = [each for each in accounts if self.facts(each) is not None and (each.id not in known or _is_due(known[each.id], now))]
        room = asyncio.Semaphore(AT_ONCE)

        async def one(account: VendorAccount) -> None:
            async with room:
                await self._safely(account)

        await asyncio.gather(*(one(each) for each in due))

    async def run(self, actor: Actor, account_id: str, *, since_ns: int | None = None) -> ImportState:
        """Imports an account now, on demand; `since_ns` reads from there again, whatever was read. What a vendor refuses stands in the
        answer. Raises `Conflict` for a vendor that reports no spend, or an account that is being imported."""
        now = self._clock.now_ns()
        if since_ns is not None and not now - 366 * 86_400 * NANOSECONDS <= since_ns < now:
            raise InvalidInput("from: must lie within the last 366 days", field="from")
        async with self._database.unit(actor.organization_id) as work:
            account = await self._issued.account(work.connection, actor.organization_id, account_id)
            facts = self.facts(account)
            if facts is None:
                raise Conflict(why_no_spend(self._issued.provisioner(account.vendor), account.settings) or "The vendor's bill is not read")
            if since_ns is not None and since_ns < earliest(facts, now):
                raise InvalidInput(f"from: this vendor tells the last {facts.reach_days} days only", field="from")
            said = None if since_ns is None else {"since": rfc3339(since_ns)}
            await self._audit.record(work, actor, "vendor_spend.import", account_id, after=said)
        try:
            return await self._import(account, since_ns=since_ns)
        except Overtaken as error:
            gone = "" if error.until_ns is None else f"; if that process is gone, it is free at {rfc3339(error.until_ns)}"
            raise Conflict(f"This account is being imported right now; look again in a moment{gone}") from None

    def facts(self, account: VendorAccount) -> SpendFacts | None:
        """None: this account's bill is not read."""
        return spend_of(self._issued.provisioner(account.vendor), account.settings)

    async def _safely(self, account: VendorAccount) -> None:
        try:
            await self._import(account)
        except Overtaken:
            _log.info("vendor account %s: another process imports its bill", account.id)
        except Exception:  # noqa: BLE001  (one account's trouble must not stop the others)
            _log.exception("vendor account %s: its bill could not be imported; it is tried again", account.id)
            await self._put_off(account)

    async def _put_off(self, account: VendorAccount) -> None:
        """What nobody foresaw is not tried again at once, for ever."""
        try:
            async with self._database.unit() as work:
                state = await self._repository.state(work.connection, account.organization_id, account.id)
                if state is not None:
                    now = self._clock.now_ns()
                    told = "Its bill could not be imported; the log says why"
                    later = replace(
                        state, attempts=state.attempts + 1, next_at_ns=now + _backoff_ns(state), error_code="failed", error=told
                    )
                    await self._repository.put_off(work.connection, later)
        except Exception:  # noqa: BLE001  (the database itself may be what failed)
            _log.exception("vendor account %s: that it failed could not be written down", account.id)

    async def _import(self, account: VendorAccount, *, since_ns: int | None = None) -> ImportState:
        self._count += 1
        lease = f"{self._node_id}:{self._count}"
        now = self._clock.now_ns()
        fresh = ImportState(account_id=account.id, organization_id=account.organization_id, vendor=account.vendor)
        async with self._database.unit() as work:
            await self._repository.add_state(work.connection, fresh)
            if not await self._repository.lease(work.connection, fresh, by=lease, until_ns=now + LEASE_NS, now_ns=now):
                raise Overtaken(await self._repository.leased_until(work.connection, fresh))
            state = await self._repository.state(work.connection, account.organization_id, account.id) or fresh
        try:
            return await _Turn(self, account, state, lease).run(since_ns)
        finally:
            async with self._database.unit() as work:
                await self._repository.release(work.connection, fresh, by=lease)

    async def attribute(self, connection: AsyncConnection, state: ImportState, window: Window) -> None:
        """Finds whose the rows of a window are that nobody's are yet."""
        unknown = await self._repository.unknown(connection, state, window)
        owners = await self._attributor.owners_of(connection, state, {each[1:] for each in unknown})
        found = {row: owners[place, key] for row, place, key in unknown if (place, key) in owners}
        await self._repository.attribute(connection, state, found)

    async def attribute_former(self, state: ImportState) -> None:
        """The same of all rows that there are, for keys that became known since they were told: entered by hand, or found late."""
        async with self._database.read() as connection:
            owners = await self._attributor.owners_of(connection, state, await self._repository.unknown_names(connection, state))
        if owners:
            async with self._database.unit() as work:
                await self._repository.hold(work.connection, state)
                await self._repository.attribute_named(work.connection, state, owners)

    async def page(
        self, account: VendorAccount, desk: AdminDesk | None, state: ImportState, window: Window
    ) -> tuple[AdminDesk, tuple[SpendRow, ...], str | None]:
        """What a vendor tells that can't be read is the vendor's failure (`Unavailable`), not ours."""
        reports: object = self._issued.provisioner(account.vendor)
        if not isinstance(reports, ReportsSpend):
            raise Rejected("The vendor reports no spend by API")
        try:
            opened = desk or await self._issued.desk(account)
        except EnvelopeBroken as error:
            raise AdminKeyRefused(f"The admin credential can't be opened: {error.detail}; enter it again") from None
        try:
            rows, cursor = await reports.spend_page(opened, window.from_ns, window.until_ns, state.cursor)
        except MISSHAPEN:
            _log.exception("vendor account %s: a page of its bill has a shape that is not known", account.id)
            raise Unavailable("The vendor's bill has a shape that KeyGate does not know; the log says more") from None
        if cursor is not None and (cursor == state.cursor or len(cursor) > MOST_CURSOR):
            raise Unavailable("The vendor's next page is the same as this one, or its name too long")
        return opened, rows, cursor

    async def of_gone(
        self, account: VendorAccount, desk: AdminDesk, state: ImportState, window: Window
    ) -> tuple[list[SpendRow], list[str]]:
        """What the vendor tells of keys that KeyGate has ended, once the day of their end is over; and which keys it was asked of. That it
        tells nothing of them, or fails over it, is no failure of the import: what was read before their end stands."""
        reports: object = self._issued.provisioner(account.vendor)
        if not isinstance(reports, TellsLastSpend):
            return [], []
        now, began = self._clock.now_ns(), self._clock.monotonic_ns()
        async with self._database.read() as connection:
            keys = await self._repository.gone(connection, state, window, now_ns=now, asked_before_ns=now - ASK_AGAIN_NS, limit=MOST_ASKED)
        rows: list[SpendRow] = []
        asked: list[str] = []
        for key in keys:
            if self._clock.monotonic_ns() - began > _ASKED_WITHIN_NS:
                break
            try:
                rows += await reports.spend_of_gone(desk, key, window.from_ns, window.until_ns)
            except RateLimited:
                break
            except (ProvisionerError, *MISSHAPEN) as error:
                _log.warning("vendor account %s: what a key cost that is gone can't be read: %s", account.id, error)
            asked.append(key)
        return rows, asked

    def provisioner(self, account: VendorAccount) -> object:
        return self._issued.provisioner(account.vendor)

    @property
    def database(self) -> Database:
        return self._database

    @property
    def repository(self) -> SpendRepository:
        return self._repository

    @property
    def clock(self) -> Clock:
        return self._clock

    def known_facts(self, account: VendorAccount) -> SpendFacts:
        facts = self.facts(account)
        if facts is None:
            raise Rejected("The vendor's bill is not read")
        return facts


def _is_due(state: ImportState, now_ns: int) -> bool:
    """Also where the time lies farther ahead than any pause: the clock was set back."""
    return not 0 < state.next_at_ns - now_ns <= _LONGEST_WAIT_SECONDS * NANOSECONDS


def _backoff_ns(state: ImportState, facts: SpendFacts | None = None) -> int:
    """Longer each time; longest where asking costs money."""
    longest = _LONGEST_PAUSE_SECONDS if facts is None else max(_LONGEST_PAUSE_SECONDS, (facts.every_seconds or 0) // 2)
    return min(longest, 60 << min(state.attempts, 10)) * NANOSECONDS


class _Turn:
    """One import of one account, under its lease."""

    def __init__(self, importer: SpendImporter, account: VendorAccount, state: ImportState, lease: str) -> None:
        self._importer = importer
        self._account = account
        self._state = state
        self._lease = lease
        self._desk: AdminDesk | None = None
        self._ends_ns = importer.clock.monotonic_ns() + TURN_NS
        self._pages = 0

    async def run(self, since_ns: int | None) -> ImportState:
        try:
            await self._windows(since_ns)
        except ProvisionerError as error:
            await self._failed(error)
        except _TimeIsUp:
            await self._save(replace(self._state, next_at_ns=self._importer.clock.now_ns()))
        return self._state

    async def _windows(self, since_ns: int | None) -> None:
        now = self._importer.clock.now_ns()
        facts = self._importer.known_facts(self._account)
        window, age = self._state.window, now - self._state.window_began_ns
        if window is None or since_ns is not None or not 0 <= age <= STALE_NS:
            if window is not None and age > STALE_NS and self._state.pages > MANY_PAGES:  # too much to come to its end: in smaller parts
                self._state = replace(self._state, attempts=self._state.attempts + 1, error_code=Unavailable.code)
            deep = now if since_ns is None and is_deep(self._state, now) else None
            self._state = replace(self._state, deep_began_ns=deep)
            window = first_window(self._state, facts, created_ns=self._account.created_at_ns, now_ns=now, since_ns=since_ns)
            await self._begin(window)
        following: Window | None = window
        while following is not None:
            window = following
            if self._state.window != window:
                await self._begin(window)
            await self._read(window, keep_untold=facts.forgets_keys)
            following = next_window(window, now, self._state, facts)
        deep_at = self._state.deep_at_ns if self._state.deep_began_ns is None else self._state.deep_began_ns
        await self._importer.attribute_former(self._state)
        self._state = await self._by_key(self._state)
        done = replace(self._state, deep_at_ns=deep_at, deep_began_ns=None, attempts=0, error=None, error_code=None)
        await self._save(replace(done, next_at_ns=now + pause_ns(facts)))

    async def _by_key(self, state: ImportState) -> ImportState:
        """With what the vendor says now of whether its bill can be told by key. Where that can't be seen, a bill that has named keys of
        ours can, and else a passing failure changes nothing."""
        reports: object = self._importer.provisioner(self._account)
        if not isinstance(reports, TellsByKey) or self._desk is None:
            return replace(state, by_key_since_ns=0, not_by_key=None)
        try:
            found = await reports.by_key(self._desk)
        except ProvisionerError as error:
            async with self._importer.database.read() as connection:
                named = await self._importer.repository.names_keys(connection, state)
            if named or isinstance(error, RateLimited | Unavailable):
                return replace(state, not_by_key=None) if named else state
            return replace(state, not_by_key=f"whether costs can be told by key could not be seen: {error.detail}")
        return replace(state, by_key_since_ns=found.since_ns or 0, not_by_key=found.why_not)

    async def _begin(self, window: Window) -> None:
        """Whatever waits of another reading is forgotten."""
        state = replace(self._state, window=window, window_began_ns=self._importer.clock.now_ns(), cursor=None, pages=0)
        async with self._importer.database.unit() as work:
            await self._importer.repository.forget_waiting(work.connection, state)
            await self._keep(work.connection, state)
        self._state = state

    async def _read(self, window: Window, *, keep_untold: bool) -> None:
        """All pages of a window that have not come yet; with the last one it is put in place."""
        while True:
            if self._pages and self._importer.clock.monotonic_ns() > self._ends_ns:
                raise _TimeIsUp
            self._pages += 1
            if self._state.pages >= MOST_PAGES:
                raise Rejected(f"The vendor's bill has more than {MOST_PAGES} pages at a time; it is read in smaller parts")
            self._desk, rows, cursor = await self._importer.page(self._account, self._desk, self._state, window)
            inside = [row for row in rows if window.from_ns <= row.start_ns < window.until_ns]
            asked: list[str] = []
            if cursor is None:
                late, asked = await self._importer.of_gone(self._account, self._desk, self._state, window)
                inside += [row for row in late if window.from_ns <= row.start_ns < window.until_ns]
            state = replace(self._state, cursor=cursor, pages=self._state.pages + 1)
            async with self._importer.database.unit() as work:
                repository = self._importer.repository
                await repository.hold(work.connection, state)
                await repository.wait(work.connection, state, inside)
                if cursor is None:
                    await repository.note_asked(work.connection, state, asked, at_ns=self._importer.clock.now_ns())
                    await repository.put_in_place(work.connection, state, window, keep_untold=keep_untold)
                    await self._importer.attribute(work.connection, state, window)
                    read_until = max(window.until_ns, state.read_until_ns or 0)
                    newest = window.until_ns >= (state.read_until_ns or 0)
                    as_of = state.window_began_ns if newest else state.as_of_ns
                    state = replace(state, window=None, read_until_ns=read_until, as_of_ns=as_of)
                await self._keep(work.connection, state)
            self._state = state
            if cursor is None:
                return

    async def _failed(self, error: ProvisionerError) -> None:
        """Tried again later: twice as long each time, and not before the vendor says, within a day. Pages that have come are kept, unless
        the vendor will not go on from them: then the window is read anew, and in smaller parts."""
        state, now = self._state, self._importer.clock.now_ns()
        asked = min(error.retry_after, _LONGEST_WAIT_SECONDS) if isinstance(error, RateLimited) else 0.0
        lost = state.cursor is None or isinstance(error, Rejected)
        failed = replace(
            state,
            window=None if lost else state.window,
            cursor=None if lost else state.cursor,
            attempts=state.attempts + 1,
            error_code=error.code,
            error=error.detail,
            next_at_ns=now + max(_backoff_ns(state, self._importer.facts(self._account)), int(asked * NANOSECONDS)),
        )
        _log.warning("vendor account %s: its bill can't be read: %s", state.account_id, error.detail)
        await self._save(failed)

    async def _save(self, state: ImportState) -> None:
        async with self._importer.database.unit() as work:
            await self._keep(work.connection, state)
        self._state = state

    async def _keep(self, connection: AsyncConnection, state: ImportState) -> None:
        until = self._importer.clock.now_ns() + LEASE_NS
        if not await self._importer.repository.save_state(connection, state, lease=self._lease, until_ns=until):
            raise Overtaken
